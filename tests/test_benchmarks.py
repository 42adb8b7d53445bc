"""The benchmark scripts: what they copy, parse, compare and write, without their minutes of measuring."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy import ndimage

import keepmap
from keepmap.config import to_dict
from keepmap.runs import RunFolder

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
PRINTED = "lite0 camvid 600 s seed 0: 371 steps, 2968 crops; mean IoU 0.3558; per class [0.76, 0.52, 0.0]\n"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A benchmark script as a module, found as Python finds it when the script is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = {path.stem for path in FOLDER.glob("*.py")}

    def load(name: str) -> ModuleType:
        for stale in names & set(sys.modules):
            monkeypatch.delitem(sys.modules, stale)
        return importlib.import_module(name)

    return load


def write_sample(data: Path) -> None:
    """A nuclei folder of three images as DATA has it: black, with one white square each."""
    for kind in ("images", "masks"):
        (data / "nuclei" / kind).mkdir(parents=True)
    for number in range(3):
        mask = np.zeros((20, 20), np.uint8)
        mask[5:15, 5 : 10 + number] = 255
        Image.fromarray(mask).save(data / "nuclei" / "masks" / f"{number}.png")
        Image.fromarray(np.stack([mask] * 3, -1)).save(data / "nuclei" / "images" / f"{number}.png")
    split = {"train": ["0.png", "1.png"], "test": ["2.png"]}
    (data / "nuclei" / "split.json").write_text(json.dumps(split))


def test_parts_are_copied_apart(tmp_path: Path, load: Any) -> None:
    write_sample(tmp_path / "data")
    assert load("accuracy").copy_parts(tmp_path / "data", "nuclei", tmp_path) == ["2.png"]
    found = {p.relative_to(tmp_path).as_posix() for part in ("train", "test") for p in (tmp_path / part).rglob("*.png")}
    assert found == {f"train/{k}/{n}.png" for k in ("images", "masks") for n in (0, 1)} | {
        "test/images/2.png",
        "test/masks/2.png",
    }


def test_matrix_counts_truth_by_row(tmp_path: Path, load: Any) -> None:
    accuracy = load("accuracy")
    write_sample(tmp_path / "data")
    accuracy.copy_parts(tmp_path / "data", "nuclei", tmp_path)
    (tmp_path / "predictions").mkdir()
    Image.fromarray(np.full((20, 20), 255, np.uint8)).save(tmp_path / "predictions" / "2.png")
    matrices = accuracy.matrices_of(tmp_path, accuracy.TASKS["nuclei"], ["2.png"])
    assert matrices.tolist() == [[[0, 400 - 70], [0, 70]]]


def test_ignored_pixels_are_in_no_matrix(tmp_path: Path, load: Any) -> None:
    accuracy = load("accuracy")
    for name, values in (("test/masks", [0, 11, 3]), ("predictions", [0, 0, 2])):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(np.array([values], np.uint8)).save(tmp_path / name / "a.png")
    matrix = accuracy.matrices_of(tmp_path, accuracy.TASKS["camvid"], ["a.png"])[0]
    assert matrix.sum() == 2
    assert matrix[0, 0] == matrix[3, 2] == 1


def test_printed_line_of_the_baseline_is_read(load: Any) -> None:
    accuracy = load("accuracy")
    assert accuracy.parse_plain(PRINTED) == (371, [0.76, 0.52, 0.0])
    with pytest.raises(ValueError, match="the baseline printed 'nothing'"):
        accuracy.parse_plain("nothing")


def test_command_names_no_folder_of_this_machine(tmp_path: Path, load: Any) -> None:
    line = load("common").command_line([str(FOLDER / "speed.py"), str(tmp_path / "data"), "--rounds", "4"])
    assert line == "python benchmarks/speed.py .../data --rounds 4"


def test_plain_network_computes_what_ours_computes(load: Any) -> None:
    """The peer of the speed benchmark is the same function of the same weights."""
    torch.manual_seed(0)
    ours = keepmap.build_model("unet", channels=3, classes=2, widths=(8, 16, 32)).eval()
    plain = load("plain_unet").PlainUNet(2, (8, 16, 32)).eval()
    plain.take_over({name: t for name, t in ours.state_dict().items() if name not in ("mean", "std")})
    x = torch.randn(1, 3, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(plain(x), ours(x), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="another network"):
        plain.take_over(dict(list(ours.state_dict().items())[:5]))


@pytest.mark.parametrize("name", ["milesial U-Net", "smp Unet-ResNet34", "torchvision fcn_resnet50"])
def test_peers_compute_what_ours_computes(name: str, load: Any, peers: None) -> None:
    """Else the times are of two networks. Norms as they begin would hide which is which."""
    module = load("peers")
    torch.manual_seed(0)
    ours, theirs = module.PAIRS[name]()
    x, _ = module.batch(64, 2)
    with torch.inference_mode():
        ours.train()(x), theirs.train()(x)
        found, want = module.logits_of(ours.eval(), x), module.logits_of(theirs.eval(), x)
    assert float((found - want).abs().max()) <= 1e-4 * float(want.abs().max())


def test_checkpointing_is_measured_as_fewer_bytes(load: Any) -> None:
    module, sides = load("peers"), {}
    for on in (False, True):
        network = keepmap.build_model("unet", channels=3, classes=2, widths=(8, 16), checkpointing=on)
        sides[on] = module.held(network, 64, "float32")
    assert sides[True][0] < 0.3 * sides[False][0]
    assert sides[True][1] < 0.7 * sides[False][1]


def test_calls_alternate(load: Any) -> None:
    order: list[str] = []
    ours, theirs = load("speed").seconds_in_turn(lambda: order.append("a"), lambda: order.append("b"), 2)
    assert "".join(order) == "ababab"
    assert len(ours) == len(theirs) == 2


def test_both_whole_loops_train(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("throughput")
    monkeypatch.setattr(module, "CROP", 32)
    network = keepmap.build_model("unet", channels=3, classes=2, widths=(4, 8))
    plain = module.PlainLoop(load("plain_unet").PlainUNet(2, (4, 8)))
    engine = module.our_engine(network, "float32")
    inside = module.Inside(engine)
    before = (network.head.weight.clone(), plain.network.head.weight.clone())
    module.take_our_steps(engine, module.our_batches(), 2)
    plain.take_steps(2)
    assert inside.seconds > 0
    for then, now in zip(before, (network.head.weight, plain.network.head.weight), strict=True):
        assert not torch.equal(then, now)


def test_memory_benchmark_makes_a_run_that_predicts(tmp_path: Path, load: Any) -> None:
    run = load("memory").make_run(tmp_path / "run")
    assert keepmap.load(run)(np.zeros((5, 7, 3), np.uint8)).shape == (5, 7)


def test_damage_is_undone_but_for_a_pixel_in_a_thousand(tmp_path: Path, load: Any) -> None:
    """Ten ways to damage a data set; what is not lost for good comes back, images whole and masks nearly so."""
    damage = load("damage")
    rows = {row["way"]: row for row in damage.run(tmp_path, 11)}
    assert len(rows) == 11
    for way, row in rows.items():
        assert row["kept"] == (0 if way in ("truncate_image", "lose_mask") else 1), way
        assert row["image_differs"] == (way == "add_alpha"), way
        assert row["mask_differs"] <= row["pixels"] / 1000 * (way in ("jpeg_mask", "smooth_mask", "stray_values")), way


def test_check_is_measured(tmp_path: Path, load: Any) -> None:
    check = load("check")
    check.write_pairs(tmp_path, 3, 64)
    assert check.peak_bytes(tmp_path) > 10 << 20
    check.decode(tmp_path)
    report = keepmap.check(tmp_path / "images", tmp_path / "masks")
    assert {(fact.height, fact.width) for fact in report.facts} == {(64, 64)}
    assert len(report.facts) == 3


def test_a_plan_is_compared_over_the_steps_that_were_done(tmp_path: Path, load: Any) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.last_file.parent.mkdir(parents=True)
    for file, moment in ((folder.split_file, 100.0), (folder.last_file, 150.0)):
        file.write_text("")
        os.utime(file, (moment, moment))
    folder.append_metrics(step=40, loss=1.0)
    entries = {"steps": 50, "crop": 256, "batch": 8, "micro": 8, "checkpointing": False}
    planned = {"expected_seconds": 60.0, "plan": {name: {"value": value} for name, value in entries.items()}}
    row = load("planning").compared(planned, folder, 61.5, 60)
    assert (row["expected_seconds"], row["real_seconds"], row["overrun"]) == (48.0, 50.0, 1.5)
    assert row["ratio"] == pytest.approx(0.96)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the file size, and forks")
@pytest.mark.parametrize("part", ["saves", "damage", "disk"])
def test_survival_counts_what_was_tried(part: str, load: Any, tmp_path: Path) -> None:
    counts = load("survival").PARTS[part](tmp_path, tmp_path, 3, np.random.default_rng(0))
    assert (counts["tried"], counts["survived"]) == (3, 3)


def test_export_benchmark_measures_all_sides(tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("openvino", "nncf", "onnxscript"):
        pytest.importorskip(package)
    module = load("export")
    monkeypatch.setattr(module.keepmap, "export", exported_by_hand)
    monkeypatch.setattr(module, "bare_loop", lambda file, arrays, precision: arrays[0].shape == (1, 3, 64, 64))
    network = keepmap.build_model("unet", channels=3, classes=2, widths=(4, 8)).eval()
    found = module.measure(tmp_path, network, lambda task: np.zeros((1, 64, 64), np.int64), 2, 64, 1)
    assert set(found["seconds"]) == {"predict", "predict_int8", "predict_torch", "eager", "bare"}
    assert all((tmp_path / side / "001.png").exists() for side in ("a", "b", "c", "eager"))
    assert min(found["faster_than_eager"], found["over_bare"], found["int8_faster"]) > 0


def exported_by_hand(run: Path, to: str, out: Path, **options: Any) -> Any:
    """In place of an export, which takes seconds: the run itself."""
    return SimpleNamespace(path=run, parity=SimpleNamespace(agreement=1.0, difference=0.0))


def test_scores_are_counted_the_same_in_every_way_and_memory_is_flat(load: Any) -> None:
    module = load("metrics")
    drawn = module.draw_pairs(64, 2)
    assert {len(np.unique(plane)) >= 5 for pair in drawn for plane in pair} == {True}
    assert module.region(drawn, 4)["ratio"] > 0
    assert module.everything(drawn, 4)["mean_iou"] > 0.5
    few, many = (module.peak_mib(drawn, count) for count in (4, 40))
    assert many < few + 1
    if sys.platform == "linux":
        before, after = module.resident_mib(4, 64)
        assert 20 < before <= after


def test_an_independent_script_scores_the_same(tmp_path: Path, load: Any) -> None:
    """Three classes and ignored pixels; a number that is off by a little, or n/a on one side, is found."""
    module = load("independent")
    random = np.random.default_rng(0)
    for name in ("predictions", "masks"):
        (tmp_path / name).mkdir()
    for index in range(5):
        scene = ndimage.gaussian_filter(random.normal(size=(4, 40, 50 + index)), (0, 3, 3))
        truth, prediction = (layers.argmax(0) for layers in (scene[:3], scene[:3] + 0.3 * scene[1:]))
        truth[random.random(truth.shape) < 0.05] = 255
        truth[truth == (2 if index < 2 else -1)] = 0
        for name, plane in (("masks", truth), ("predictions", prediction)):
            Image.fromarray(plane.astype(np.uint8)).save(tmp_path / name / f"{index}.png")
    (tmp_path / "names.txt").write_text("background\ncell\nrare")
    folders = tmp_path / "predictions", tmp_path / "masks"
    found = keepmap.evaluate(*folders, classes=str(tmp_path / "names.txt"), ignore="255")
    scores = json.loads(json.dumps(to_dict(found)))
    counts = module.count(folders, ["background", "cell", "rare"], 255, 2.0)
    compared = module.compare(scores, counts)
    assert compared["largest_difference"] < 1e-12
    assert compared["left_out"] == [] and compared["numbers"] > 100
    scores["classes"][1]["hausdorff95"] += 1e-6
    assert module.compare(scores, counts)["of"] == "class cell: hausdorff95"
    scores["figures"][0]["value"] = None
    assert module.compare(scores, counts)["largest_difference"] == np.inf


def arm(name: str, hits: int) -> dict[str, Any]:
    matrices = [[[300, 100 - hits], [0, hits]], [[350, 50 - hits // 2], [0, hits // 2]]]
    return {
        "task": "nuclei", "arm": name, "seed": 0, "seconds": 300, "classes": ["background", "nucleus"],
        "train_seconds": 299.4, "evaluate_seconds": 9.0, "commands": ["train it"], "said": ["plan"],
        "iou": [0.9, hits / 100], "matrices": matrices,
    }  # fmt: skip


ROW = {"unit": "images per second", "keepmap": 1.2, "plain": 0.4, "ratio": 3.0}
TIMES = {"ratio": 1.01, "range": [0.97, 1.04], "first_seconds": [1.0], "second_seconds": [1.01]}
BYTES = {"held_mib": 5000.0, "peak_mib": 5480.0, "computed_mib": 6000.0}
PEERS: dict[str, Any] = {
    "precision": "bfloat16",
    "networks": [
        {"network": "unet", "parameters": 31e6, "multiply_adds": 7.3e11, "plain": BYTES, "checkpointing": BYTES}
    ],
    "peers": {"milesial U-Net": {"side": 256, "logit_difference": 0.0, "forward": TIMES, "training": TIMES}},
    "checkpointing": {
        "side": 512, "precision": "bfloat16", "held_mib": [127.0, 746.0], "peak_mib": [353.0, 808.0],
        "resident_mib": [500.0, 1000.0], "time": {**TIMES, "ratio": 1.34},
    },
    "defaults": {"training": {"ratio": 2.5}, "inference": {"ratio": 3.6}},
}  # fmt: skip
SPENT = {"peak_mib": 900.4, "seconds": 61.0}
LARGE = {"network": "unet", "memory": "1G", "keepmap": SPENT, "per_megapixel_ratio": 1.05}
PAIR = {"way": "jpeg_mask", "pairs": 3, "kept": 3, "pixels": 9000, "mask_differs": 2, "image_differs": 0}
CHECK = {
    "images": 2000, "side": 512, "check": 300.0, "decode": 200.0, "ratio": 1.5, "check_cpu_ms": 6.0,
    "decode_cpu_ms": 5.0, "peak_mib": {"200": 250.0, "2000": 251.0},
}  # fmt: skip
RESULTS: dict[str, dict[str, Any]] = {
    "peers": PEERS,
    "accuracy-nuclei-keepmap-seed0": arm("keepmap", 90),
    "accuracy-nuclei-keepmap-600s-seed0": arm("keepmap", 95) | {"seconds": 600},
    "accuracy-nuclei-plain-lite0-seed0": arm("plain-lite0", 80),
    **{
        f"ablation-camvid-{name}-seed0": {
            "task": "camvid", "arm": name, "seed": 0, "classes": ["sky", "pole"], "entries": entries, "steps": 480,
            "score": score, "iou": [0.8, 0.1],
        }
        for name, entries, score in (("base", [], 0.376), ("root-frequency", ["class_weights=1,2"], 0.4))
    },
    "check": CHECK,
    "prediction-unet-10000": {
        **LARGE, "side": 10_000, "beside_whole": {"keepmap": [4.0], "whole": [10.0], "ratio": 0.4},
        "tall": {**SPENT, "peak_mib": 990.4},
    },
    "prediction-unet-5000": {
        **LARGE, "side": 5000, "float32": {
            "reference": "one pass", **{name: {**SPENT, "labels_that_differ": 2e-4} for name in ("keepmap", "monai")},
        },
    },
    "prediction-exact": {"draws": 200, "largest_difference": {"bands": 6e-7, "tiles": 5e-7}},
    "prediction-kills": {"side": 4000, "tries": 20, "same": 20, "entered_on_the_way": 12, "seconds": 20.0},
    "damage": {"rows": [PAIR]},
    "serving-throughput": {
        "side": 512, "rate": {"loop": 10.0, "files": 9.0, "1": 8.0, "4": 9.5}, "precision": "bfloat16",
        "share": {"files": 0.9, "1": 0.8, "4": 0.95}, "latency": {"1": [0.1, 0.12, 0.2], "4": [0.4, 0.5, 0.6]},
        "batches": {"512x512": "together"},
    },
    "serving-malformed": {"tried": 500, "refused": 500, "good_after": [25, 25]},
    "serving-memory": {"requests": 2000, "resident": [600 << 20, 610 << 20]},
    "serving-crowd": {"clients": 32, "answers": 320, "same": 320},
    "serving-killed": {"tried": 5, "right": 5},
    "survival-saves": {"what": "Kills of a process", "tried": 50, "survived": 49, "saves": 7},
    "export": {
        "images": 2, "side": 64, "precision": "bfloat16", "openvino": "2026.4.1", "over_bare": 1.05, "int8_faster": 1.5,
        "seconds": {"predict": [1.0], "predict_int8": [0.7], "predict_torch": [1.2], "eager": [4.0], "bare": [0.95]},
        "logit_difference": 2e-6, "trained": {"run": 0.8, "exported": 0.8, "int8": 0.797},
    },
    "demo": {"seconds_from_nothing": 200.0, "seconds_alone": 75.2, "pictures": ["demo.png"], "output": ["picture"]},
    "memory": {"widths": [16, 32], "rows": [{"side": 64, "limit": "default", "peak_mib": 300.4, "seconds": 4.0}]},
    "throughput": {
        "precision": "bfloat16", "batch": 4, "crop": 256, "matrix_product": 400.0, "networks": {
            "classic U-Net": {**ROW, "range": [2.9, 3.1], "beside": 0.061, "gflop_per_second": 300.0},
        },
    },
    "planning-nuclei": {
        "task": "nuclei", "options": "--model unet", "steps": 90, "planned_steps": 100, "expected_seconds": 45.0,
        "real_seconds": 50.0, "ratio": 0.9, "overrun": -2.25,
    },
    "metrics": {
        "side": 512, "classes": 11, "peak_mib": {"50": 20.1, "250": 20.4},
        "region": {"ours": 1e-3, "plain": 2e-3, "barest": 1e-3, "ratio": 2.0, "ratio_barest": 1.0},
        "all": {"seconds": 0.12, "slowest": 0.2, "intervals_seconds": 0.8, "mean_iou": 0.8, "pairs": 1000},
        "monai": {"ours": 0.08, "monai": 0.8, "ratio": 10.0, "difference": 1e-6, "pairs": 20},
    },
    "metrics-memory": {"side": 512, "resident_mib": {"100": [91.2, 110.4], "1000": [91.3, 131.0]}},
    "independent-drawn": {
        "images": 5, "classes": 3, "numbers": 130, "not_available": 9, "largest_difference": 2e-15, "of": "image: IoU",
    },
    "speed": {
        "precision": "bfloat16", "logit_difference": 1e-6, "training": ROW,
        "inference": {**ROW, "equal_labels": 0.999, "gflop": 385.0, "gflop_per_second": 300.0},
        "matrix_product": {"float32": 170.0, "bfloat16": 360.0},
    },
}  # fmt: skip


def test_results_become_one_page(tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    common = load("common")
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    for name, figures in RESULTS.items():
        common.write_result(name, figures)
    assemble = importlib.import_module("assemble")
    assemble.main(tmp_path / "RESULTS.md")
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.count("\n## ") == 16
    assert "| nuclei `--model unet` | 90 (100) | 45.0 | 50.0 | 0.90 | -2.2 |" in page
    assert "Median error 10%" in page
    assert "| root-frequency, seed 0 | 480 | 0.400 | +0.024 | n/a | 0.80 | 0.10 |" in page
    assert "| milesial U-Net, 256 px | 1.01 (0.97 to 1.04) | 1.01 (0.97 to 1.04) | 0.0e+00 |" in page
    assert "| `keepmap predict`, OpenVINO, bfloat16 | 1.0 | 4.00 |" in page
    assert "int8 0.7970" in page
    assert "| peak | 353 | 808 | 0.44 |" in page
    assert "2.50 in training, 3.60 in inference" in page
    assert "| classic U-Net | 1.20 | 0.40 | 3.00 (2.90 to 3.10) | 6.1% | 0.75 |" in page
    assert "| training, images per second | 1.200 | 0.400 | 3.00 |" in page
    assert "| keepmap - plain-lite0, 5 min, seed 0 | +0.100 | " in page and page.count("| keepmap - plain") == 1
    assert "| keepmap, 10 min, seed 0 | 0.947 | " in page
    assert "| 4 clients | 9.5 | 0.95 | 400 | 500 | 600 |" in page
    assert "500 answered with a 4xx; 25 of 25 good ones" in page and "320 of 320 answers the same bytes" in page
    places = [page.index(f"| unet, {side} px | 1G | 900 | 61 | 1.0") for side in (5000, 10_000)]
    assert places == sorted(places)
    assert "| unet, 5000 px, MONAI | 900 | 61 | 2.0e-04 | one pass |" in page
    assert "10000 px, file to file: bands take 0.40 of the time of one pass over the whole image." in page
    assert "10000 px wide, 4 times as high: peak 990 MiB, 1.10 of that of the square image." in page
    assert "bands 6e-07, tiles 5e-07" in page and "20 of 20 with the same bytes; 12 went on" in page
    assert "| surfaces: MONAI | 800 | 10.00 |" in page
    assert "| drawn: 5 images, 3 classes | 130 | 9 | 2.0e-15 | image: IoU |" in page
    assert "scores 1000 pairs holds 131 MiB at its peak, 91 MiB before." in page
    assert "0.83 of the matrix product" in page
    assert f"torch {torch.__version__}" in page


def test_arms_of_an_ablation_take_the_time_of_the_base(load: Any) -> None:
    ablation = load("ablation")
    steps, words = ablation.options_of("nuclei", "root-frequency")
    assert steps == ablation.STEPS["nuclei"]
    assert words[-4:] == ["--set", "weighting=root_median_frequency", "--steps", "240"]
    assert "weighting=equal" in ablation.options_of("camvid", "base")[1]
    assert ablation.options_of("nuclei", "stride2")[0] == 320


def test_pair_of_equals_does_not_differ(load: Any) -> None:
    assert load("assemble").paired_interval(arm("keepmap", 90), arm("plain-lite0", 90)) == (0.0, 0.0, 0.0)


def test_page_is_what_the_results_say(load: Any) -> None:
    page = FOLDER / "RESULTS.md"
    if not page.exists():
        pytest.skip("no results yet")
    assert load("assemble").assemble() == page.read_text(encoding="utf-8")


def test_large_images_are_tiled_and_parts_equal_the_whole(
    tmp_path: Path, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = load("prediction")
    array = tifffile.imread(prediction.write_image(tmp_path / "x.tif", 700))
    field, _ = prediction.draw_pair(seed=0, index=0)
    assert array.shape == (700, 700, 3)
    assert np.array_equal(array, np.tile(field, (9, 9, 1))[:700, :700])
    random = np.random.default_rng(0)
    found = [prediction.differences(*prediction.DRAWN[0], seed, random) for seed in range(3)]
    assert {kind for each in found for kind in each} == {"bands", "bands in columns", "tiles", "another grid"}
    assert all(value <= 1e-5 for each in found for value in each.values())
    parts = prediction.Predictor._parts
    monkeypatch.setattr(prediction.Predictor, "_parts", lambda *given: list(parts(*given))[1:])
    assert prediction.differences(*prediction.DRAWN[0], 0, np.random.default_rng(0))["bands"] == np.inf
