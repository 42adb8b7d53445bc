"""A training from folders to RUN, interrupted and continued: the same weights as one that was never interrupted."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from keepmap.config import from_dict, read_json
from keepmap.data.masks import read_mask
from keepmap.errors import DataError, OptionError, RunError
from keepmap.inference.files import predict_files
from keepmap.inference.predictor import Predictor
from keepmap.networks.catalogue import build_network
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import Cost, Plan
from keepmap.planning.recipe import LossConfig
from keepmap.protocols import Silent
from keepmap.runs import RunFolder, read_tensors
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training import checkpoint, loop
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from keepmap.training.lock import locked
from keepmap.training.session import begin, go_on

OPTIONS = TrainOptions(model="unet", steps=6, crop=64, batch=2, precision="float32", device="cpu")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    random = np.random.default_rng(0)
    for name in "abcdef":
        rows, columns = np.mgrid[:70, :90]
        disc = (rows - random.integers(20, 50)) ** 2 + (columns - random.integers(20, 70)) ** 2 < 200
        noise = random.integers(0, 40, (70, 90))
        Image.fromarray((disc * 150 + noise).astype(np.uint8)).save(images / f"{name}.png")
        Image.fromarray((disc * 255).astype(np.uint8)).save(masks / f"{name}.png")
    return images, masks


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network, and steps that cost the same wherever a validation is planned by their cost."""
    monkeypatch.setattr("keepmap.planning.choice._widths", lambda *_: ({"widths": [4, 8]}, ""))
    monkeypatch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(1.0, 1))


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Send Ctrl-C to this process during step number `steps` of every session."""
    real, count = Engine.step, 0

    def step(self: Engine, *arguments: object) -> float:
        nonlocal count
        count += 1
        if count == steps:
            signal.raise_signal(signal.SIGINT)
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop.Engine, "step", step)


def same(one: RunFolder, other: RunFolder) -> bool:
    """Whether the last states and the models of two RUNs have the same bits."""
    for first, second in ((one.last_file, other.last_file), (one.model_file, other.model_file)):
        expected, found = read_tensors(first)[0], read_tensors(second)[0]
        if expected.keys() != found.keys() or not all(torch.equal(t, found[name]) for name, t in expected.items()):
            return False
    return True


def test_a_validation_scores_as_many_of_the_held_out_images_as_the_plan_says(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    wanted = tmp_path / "held.txt"
    wanted.write_text("a\nb\nc\n", encoding="utf-8")
    options = replace(OPTIONS, steps=2, validation=str(wanted))
    scored = {}
    for count in (0, 2):
        run = RunFolder(tmp_path / f"run{count}")
        begin(*folders, run, replace(options, set={"validation_images": count}), Silent())
        scored[count] = {row["stem"] for row in read_json(run.validation_file, format=1)["images"]}
        assert read_json(run.path / "split.json", format=1)["validation"] == ["a", "b", "c"]
    assert scored == {0: {"a", "b", "c"}, 2: {"a", "b"}}


def test_a_run_holds_all_that_the_design_names(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    plan, position, _ = begin(*folders, run, OPTIONS, Silent())
    assert (plan.steps, position.step, position.signal) == (6, 6, 0)
    assert {p.name for p in run.path.iterdir()} == {
        "config.json", "model.safetensors", "plan.json", "split.json", "fingerprint.json", "metrics.jsonl",
        "validation.json", "checkpoints",
    }  # fmt: skip
    split = json.loads(run.split_file.read_text())
    assert (len(split["train"]), len(split["validation"])) == (5, 1)
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert any("validation_mean_iou" in line for line in lines)
    rows = json.loads(run.plan_file.read_text())
    assert rows["crop"] == {"value": 64, "because": "--crop"}
    network, config = run.load_network()
    assert config.labels.values == (0, 255)
    assert network.mean.item() > 1


@pytest.mark.parametrize(
    ("stops", "workers"), [((1,), 0), ((3,), 2), ((5,), 0), ((2, 2), 2), ((6,), 0), ((4, 2), 0)]
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_interrupted_and_continued_equals_uninterrupted(
    stops: tuple[int, ...], workers: int, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch, which is two and a half steps, at the end of the second, twice, with other workers."""
    workers = workers if sys.platform == "linux" else 0
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    begin(*folders, whole, OPTIONS, Silent())
    with monkeypatch.context() as patch:
        interrupt_after(patch, stops[0])
        _, position, _ = begin(*folders, parts, OPTIONS, Silent())
        assert (position.step, position.signal) == (stops[0], signal.SIGINT)
        for stop in stops[1:]:
            interrupt_after(patch, stop)
            _, position, _ = go_on(parts, Silent())
            assert position.signal == signal.SIGINT
    plan, position, _ = go_on(parts, Silent(), workers=workers)
    assert (position.step, plan.workers, plan.because["workers"]) == (6, workers, "--workers")
    assert same(whole, parts)


def test_a_run_whose_plan_has_neither_workers_nor_memory_format_goes_on(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, old = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "old")
    begin(*folders, whole, OPTIONS, Silent())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_COUNTED", (*checkpoint._COUNTED, "memory_format"))
        interrupt_after(patch, 3)
        begin(*folders, old, OPTIONS, Silent())
    rows = json.loads(old.plan_file.read_text())
    assert rows.pop("workers")["value"] == 0 and rows.pop("memory_format")["value"] == "contiguous"
    old.plan_file.write_text(json.dumps(rows))
    plan, position, _ = go_on(old, Silent())
    assert (position.step, plan.workers, plan.memory_format) == (6, 0, None)
    assert same(whole, old)


def test_after_a_kill_no_line_of_the_metrics_stands_twice(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is put back to that after step 2, as a process leaves it that is killed before it saves again."""
    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr(loop, "_REPORT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        begin(*folders, run, OPTIONS, Silent())
    state = run.last_file.read_bytes()
    go_on(run, Silent())
    steps = [(line["step"], "loss" in line) for line in map(json.loads, run.metrics_file.read_text().splitlines())]
    run.last_file.write_bytes(state)
    go_on(run, Silent())
    again = [(line["step"], "loss" in line) for line in map(json.loads, run.metrics_file.read_text().splitlines())]
    assert again == steps == sorted(set(steps), key=lambda line: (line[0], not line[1]))
    assert len(steps) > 6


def test_a_run_that_is_being_trained_is_left_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create()
    with locked(run, Silent()), pytest.raises(RunError, match=f"process {os.getpid()}"):
        begin(*folders, run, OPTIONS, Silent())
    begin(*folders, run, OPTIONS, Silent())
    with locked(run, Silent()), pytest.raises(RunError, match="Another process is training into"):
        go_on(run, Silent())


def test_an_interrupted_run_predicts(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    interrupt_after(monkeypatch, 1)
    begin(*folders, run, OPTIONS, Silent())
    network, _ = run.load_network()
    assert torch.isfinite(network(torch.rand(1, 1, 20, 20))).all()


def test_bad_data_leaves_no_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (folders[1] / "c.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"c\.png"):
        begin(*folders, RunFolder(tmp_path / "run"), OPTIONS, Silent())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(time="5m", steps=3), "one length"),
        (TrainOptions(steps=0), "expected  1 to"),
        (TrainOptions(time="soon"), "cannot be read"),
        (TrainOptions(model="unett", steps=1), "did you mean unet"),
        (TrainOptions(model="encoder_unet", encoder="resnet19", steps=1), "did you mean resnet18"),
        (TrainOptions(device="cpuu", steps=1), "did you mean cpu"),
    ],
)
def test_wrong_options_leave_no_run(
    options: TrainOptions, message: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        begin(*folders, RunFolder(tmp_path / "run"), options, Silent())
    assert not (tmp_path / "run").exists()


def test_deterministic_trainings_have_the_same_bits(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, real = [], Engine.step

    def step(self: Engine, *arguments: object) -> float:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "step", step)
    one, other = (RunFolder(tmp_path / name) for name in ("one", "other"))
    for run in (one, other):
        begin(*folders, run, replace(OPTIONS, deterministic=True), Silent())
    assert seen == [True] * 12
    assert not torch.are_deterministic_algorithms_enabled()
    assert same(one, other)


def edit(file: Path, name: str, value: object) -> None:
    content = json.loads(file.read_text())
    if isinstance(content[name], dict) and "because" in content[name]:
        content[name]["value"] = value
    else:
        content[name] = value
    file.write_text(json.dumps(content))


def repaint(mask: Path) -> None:
    pixels = np.asarray(Image.open(mask)).copy()
    pixels[:3, :3] = 255 - pixels[:3, :3]
    Image.fromarray(pixels).save(mask)


def test_what_has_changed_since_is_refused_and_named(folders: tuple[Path, Path], tmp_path: Path, lines: Any) -> None:
    """Each change is made in turn, seen, and undone; then the training goes on."""
    run, (images, masks) = RunFolder(tmp_path / "run"), folders
    begin(*folders, run, OPTIONS, Silent())
    changes = {
        "1 gone: a": lambda: [(folder / "a.png").rename(tmp_path / folder.name[:1]) for folder in folders],
        "1 new: g": lambda: [shutil.copy(folder / "b.png", folder / "g.png") for folder in folders],
        "1 of other content: c": lambda: repaint(masks / "c.png"),
        "1 of other content: d": lambda: shutil.copy(images / "e.png", images / "d.png"),
        "crop: 32, before 64": lambda: edit(run.plan_file, "crop", 32),
        "options: {'widths': [4, 16]}, before {'widths': [4, 8]}": lambda: edit(
            run.config_file, "options", {"widths": [4, 16]}
        ),
    }
    for number, (words, change) in enumerate(changes.items()):
        kept = tmp_path / f"kept{number}"
        for folder in (*folders, run.path):
            shutil.copytree(folder, kept / folder.name)
        change()
        with pytest.raises(RunError) as caught:
            go_on(run, Silent())
        assert words in caught.value.found
        for folder in (*folders, run.path):
            shutil.rmtree(folder)
            shutil.copytree(kept / folder.name, folder)
    edit(run.config_file, "version", "0.0.1")
    assert go_on(run, lines)[1].step == 6
    assert any("begun with keepmap 0.0.1" in line for line in lines.said)


@pytest.mark.parametrize(("images", "batch"), [(2, 16), (6, 1), (1, 2), (0, 2)])
def test_the_smallest_data_sets_and_batches_train_or_are_refused_at_once(
    images: int, batch: int, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for folder in folders:
        for file in sorted(folder.iterdir())[images:]:
            file.unlink()
    run, options = RunFolder(tmp_path / "run"), replace(OPTIONS, batch=batch, crop=32, steps=2)
    if images >= 2:
        assert begin(*folders, run, options, Silent())[1].step == 2
        return
    with pytest.raises(DataError) as caught:
        begin(*folders, run, options, Silent())
    assert caught.value.do
    assert not run.path.exists()


def test_time_ends_the_training(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan believes that a step costs nothing; the deadline stops it all the same."""
    run = RunFolder(tmp_path / "run")
    monkeypatch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(1e-5, 1))
    monkeypatch.setattr("keepmap.training.wanted._LEAST_SECONDS", 1.0)
    options = TrainOptions(model="unet", time="12s", crop=64, batch=2, device="cpu")
    plan, position, _ = begin(*folders, run, options, Silent())
    assert plan.seconds is not None and plan.seconds < 3
    assert 0 < position.step < plan.steps
    assert run.model_file.exists()
    _, again, _ = go_on(run, Silent())
    assert (again.step, again.validated) == (position.step, position.validated)


def test_a_run_that_was_stopped_before_its_first_step_is_not_continued(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    begin(*folders, run, OPTIONS, Silent())
    run.last_file.unlink()
    run.previous_file.unlink()
    with pytest.raises(RunError, match="stopped before its first step"):
        go_on(run, Silent())


def test_resume_needs_neither_the_working_folder_nor_the_file_of_names(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("ground\nthing\n")
    for mask in folders[1].iterdir():
        Image.fromarray(np.asarray(Image.open(mask)) // 255).save(mask)
    run = RunFolder(tmp_path / "run")
    begin(Path("images"), Path("masks"), run, replace(OPTIONS, classes="names.txt"), Silent())
    Path("names.txt").unlink()
    monkeypatch.chdir("/")
    _, position, _ = go_on(run, Silent())
    assert position.step == 6


def test_a_run_can_begin_from_another_and_lists_the_rest(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    first, second, third = (RunFolder(tmp_path / name) for name in ("first", "second", "third"))
    begin(*folders, first, OPTIONS, Silent())
    for image in folders[0].iterdir():  # the same images, darker
        Image.fromarray(np.asarray(Image.open(image)) // 2).save(image)
    begin(*folders, second, replace(OPTIONS, init=str(first.path), steps=1), lines)
    assert any(line.startswith("init ") and "not:" not in line for line in lines.said)
    assert second.read_normalisation() == first.read_normalisation()
    monkeypatch.setattr("keepmap.planning.choice._widths", lambda *_: ({"widths": [4, 8, 16]}, ""))
    begin(*folders, third, replace(OPTIONS, init=str(first.path), steps=1), lines)
    assert "not: " in next(line for line in reversed(lines.said) if line.startswith("init "))
    with pytest.raises(OptionError, match="nothing that this network could start from"):
        begin(*folders, RunFolder(tmp_path / "x"), replace(OPTIONS, init=str(first.path), model="fcn", steps=1), lines)
    with pytest.raises(RunError, match="is no RUN"):
        begin(*folders, RunFolder(tmp_path / "x"), replace(OPTIONS, init=str(tmp_path / "none"), steps=1), lines)
    assert not (tmp_path / "x").exists()


def test_matching_weights_are_loaded_exactly(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    begin(*folders, run, OPTIONS, Silent())
    trained, config = run.load_network()
    torch.manual_seed(9)
    fresh = build_network("unet", channels=1, classes=2, options=config.options)
    assert run.load_matching(fresh) == []
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]) is (name not in ("mean", "std")), name


def test_floats_of_five_bands_train_and_predict(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in "abcdef":
        mask = np.zeros((70, 90), np.uint8)
        mask[random.integers(5, 30) :, random.integers(5, 40) :] = 1
        bands = mask * np.float32(3) + random.normal(-2, 0.1, (5, 70, 90)).astype(np.float32)
        bands[:, :5, :6] = -9999
        extra = [(42113, "s", 0, "-9999", True)]
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", bands, photometric="minisblack", planarconfig="separate",
                         metadata=None, extratags=extra)  # fmt: skip
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    run = RunFolder(tmp_path / "run")
    options = replace(OPTIONS, steps=4, max_pixels=10**6)
    plan, *_ = begin(tmp_path / "images", tmp_path / "masks", run, options, Silent())
    low, high = plan.value_range
    assert -3 < low < -2 < 1 < high < 2
    assert all(-3 < mean < 1 for mean in plan.mean)
    network, config = run.load_network()
    assert (config.dtype, config.channels) == ("float32", 5)
    told = json.loads(run.split_file.read_text())["options"]
    assert (told["frame"], told["max_pixels"]) == (None, 10**6)
    predictor = Predictor(TorchRuntime(network, device="cpu"), config.labels, dtype=config.dtype)
    (mask_file,) = predict_files(predictor, [tmp_path / "images" / "a.tif"], tmp_path / "out")
    bands = tifffile.imread(tmp_path / "images" / "a.tif").transpose(1, 2, 0)
    bands[:5, :6] = plan.mean
    expected = predictor(bands)
    expected[:5, :6] = 255
    assert np.array_equal(read_mask(mask_file), expected)
    losses = [json.loads(line).get("loss", 0.0) for line in run.metrics_file.read_text().splitlines()]
    assert np.isfinite(losses).all()


def test_groups_are_written_down_and_kept_on_resume(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in folders:
        for number, file in enumerate(sorted(folder.iterdir())):
            file.rename(folder / f"p{number // 2}_{number % 2}.png")
    (tmp_path / "val.txt").write_text("p1_0\np1_1\n")
    run = RunFolder(tmp_path / "run")
    options = replace(OPTIONS, group_by="(p.)_", validation=str(tmp_path / "val.txt"))
    begin(*folders, run, options, Silent())
    split = json.loads(run.split_file.read_text())
    assert split["validation"] == ["p1_0", "p1_1"]
    assert split["rule"] == f"--validation {tmp_path / 'val.txt'}"
    assert split["groups"] == {f"p{n // 2}_{n % 2}": f"p{n // 2}" for n in range(6)}
    (tmp_path / "val.txt").unlink()
    _, position, _ = go_on(run, Silent())
    assert position.step == 6


def test_a_split_of_before_has_no_groups_and_is_continued(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    begin(*folders, run, OPTIONS, Silent())
    split = json.loads(run.split_file.read_text())
    del split["groups"], split["rule"], split["options"]["group_by"], split["options"]["validation"]
    run.split_file.write_text(json.dumps(split))
    assert go_on(run, Silent())[1].step == 6


def test_entries_that_are_fixed_reach_the_training(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe, the parts of a batch, recomputing and the sampling, and all again on resume."""
    seen: list[tuple[object, ...]] = []
    real = loop.fit

    def fit(engine: Engine, plan: Plan, batches: Batches, *rest: Any) -> loop.Position:
        position = real(engine, plan, batches, *rest)
        focus, network = batches.sampler.focus, engine.network
        assert focus is not None
        assert batches.weigh is not None and len(batches.draw(0)) == 3
        seen.append((engine.config.optimiser, engine.micro, network.checkpointing, focus.rate, batches.how.gamma))
        return position

    monkeypatch.setattr("keepmap.training.session.fit", fit)
    run = RunFolder(tmp_path / "run")
    fixed = {"optimiser": "sgd", "micro": 1, "checkpointing": True, "class_rate": 0.5, "gamma": (0.5, 2.0)}
    fixed |= {"border": 10.0, "sigma": 3.0, "invert": 0.0}
    said: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "say", said.append)
    plan, *_ = begin(*folders, run, replace(OPTIONS, steps=2, set=fixed), progress)
    assert plan.loss == LossConfig(border=10.0, sigma=3.0)
    ways = "augment flips and transposition, scale 0.6-1.7, light, 50% gamma, 50% around rare classes"
    assert {ways, "loss    weighs pixels by border 10, gaps between connected regions of a class"} <= set(said)
    assert run.read_config().options["checkpointing"] is True
    figures = from_dict(Fingerprint, read_json(run.fingerprint_file, format=1), "fingerprint.json")
    assert (figures.images, figures.heights, figures.median_frequency[0] < 1) == (5, (70, 70, 70), True)
    assert not (run.path / "tensorboard").exists()
    go_on(run, Silent())
    assert seen == 2 * [("sgd", 1, True, 0.5, (0.5, 2.0))]


def test_a_board_shows_the_lines_of_the_metrics_and_held_out_images(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    run = RunFolder(tmp_path / "run")
    begin(*folders, run, replace(OPTIONS, steps=2, tensorboard=True), Silent())
    (file,) = (run.path / "tensorboard").iterdir()
    shown = [(value.tag, event.step) for event in EventFileLoader(str(file)).Load() for value in event.summary.value]
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    expected = {(name, line["step"]) for line in lines for name, value in line.items() if isinstance(value, float)}
    (held_out,) = json.loads(run.split_file.read_text())["validation"]
    assert set(shown) == {*expected, (held_out, 2)}
    assert {("loss", 2), ("validation_mean_iou", 2)} <= expected
