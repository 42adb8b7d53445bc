"""Files and folders to files: names, refusals before the first image, and nothing half-written."""

from __future__ import annotations

import csv
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from keepmap import config
from keepmap.data import sinks
from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.masks import read_mask
from keepmap.data.tiff_plane import TiffPlane
from keepmap.errors import DataError, DiskFull, OptionError, OutOfMemory, OutputError
from keepmap.inference import batching, files
from keepmap.inference.files import predict_files
from keepmap.inference.predictor import Predictor
from keepmap.networks.catalogue import build_network
from keepmap.options import PredictOptions
from keepmap.protocols import Geometry, Silent
from keepmap.runtime import torch_runtime
from keepmap.runtime.torch_runtime import TorchRuntime


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
    network.set_normalisation([100.0] * 3, [60.0] * 3)
    labels = LabelSet((0, 255), ("background", "cell"), None, default_colours(2))
    return Predictor(TorchRuntime(network, device="cpu", precision="float32"), labels, memory_bytes=2**30)


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def save(path: Path, height: int = 20, width: int = 30, channels: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = pixels(height, width, channels)
    if path.suffix.startswith(".tif"):
        tifffile.imwrite(path, array, photometric="rgb")
    else:
        Image.fromarray(array).save(path)
    return path


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class Told(Silent):
    """Progress that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.total = self.done = 0.0

    def say(self, text: str) -> None:
        self.lines.append(text)

    def track(self, name: str, total: float, unit: str) -> Told:
        self.total = total
        return self

    def advance(self, done: float = 1, **figures: float | str) -> None:
        self.done += done


def test_folders_keep_their_structure_and_masks_their_sizes_and_values(predictor, tmp_path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    save(images / "a.png", 1, 1)
    save(images / "b" / "a.jpg", 33, 21)
    save(images / "b" / "c.d.tif", 17, 40)
    single = save(tmp_path / "single.png", 5, 90)
    told = Told()
    paths = predict_files(predictor, [images, single], out, progress=told)
    assert paths == [out / "a.png", out / "b" / "a.png", out / "b" / "c.d.tif", out / "single.png"]
    assert tree(out) == {"a.png", "b/a.png", "b/c.d.tif", "single.png"}
    assert [read_mask(path).shape for path in paths] == [(1, 1), (33, 21), (17, 40), (5, 90)]
    assert all(set(np.unique(read_mask(path))) <= {0, 255} for path in paths)
    assert np.array_equal(read_mask(paths[3]), predictor(pixels(5, 90)))
    assert told.done == pytest.approx(told.total) == pytest.approx((1 + 33 * 21 + 17 * 40 + 5 * 90) / 1e6)


def test_overlays_and_probabilities_lie_beside_the_mask(predictor, tmp_path) -> None:
    out = tmp_path / "out"
    image = save(tmp_path / "x.jpg", 25, 31)
    (mask,) = predict_files(predictor, [image], out, PredictOptions(overlay=True, probabilities=True))
    assert tree(out) == {"x.png", "x_overlay.png", "x.npy"}
    values = np.load(out / "x.npy")
    assert (values.shape, values.dtype) == ((2, 25, 31), np.float32)
    assert np.array_equal(read_mask(mask), predictor.labels.decode(values.argmax(0)))
    with Image.open(out / "x_overlay.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (31, 25))


def test_large_images_go_in_tiles_or_bands_and_it_is_said(predictor, tmp_path) -> None:
    image = save(tmp_path / "large.tif", 200, 230)
    tiled = Predictor(predictor.runtime, predictor.labels, memory_bytes=1)
    told = Told()
    (one,) = predict_files(predictor, [image], tmp_path / "one")
    (many,) = predict_files(tiled, [image], tmp_path / "many", progress=told)
    assert np.mean(read_mask(one) != read_mask(many)) < 1e-3
    assert len(told.lines) == 1
    assert "tiles of" in told.lines[0]
    banded = Predictor(predictor.runtime, predictor.labels, memory_bytes=2**24, way="bands")
    (bands,) = predict_files(banded, [image], tmp_path / "bands", progress=told)
    assert np.array_equal(read_mask(one), read_mask(bands))
    assert told.lines[1].endswith("bands of 200 rows, 1.00 times its pixels; --way bands.")


def test_older_predictions_are_replaced(predictor, tmp_path) -> None:
    out = tmp_path / "out"
    image = save(tmp_path / "x.png")
    (mask,) = predict_files(predictor, [image], out)
    first = mask.read_bytes()
    mask.write_bytes(b"old")
    assert predict_files(predictor, [image, image, tmp_path], out) == [mask]
    assert mask.read_bytes() == first


@pytest.mark.parametrize("second", ["other/x.png", "other/x.jpeg"])
def test_two_inputs_with_one_output_are_refused_before_the_first(predictor, tmp_path, second) -> None:
    inputs = [save(tmp_path / "x.png"), save(tmp_path / second)]
    with pytest.raises(OutputError, match=r"x\.png and .*other.* would both be written to .*out"):
        predict_files(predictor, inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_input_is_never_replaced(predictor, tmp_path) -> None:
    image = save(tmp_path / "x.png")
    before = image.read_bytes()
    with pytest.raises(OutputError, match="is an input and would be replaced"):
        predict_files(predictor, [image], tmp_path)
    assert image.read_bytes() == before
    assert tree(tmp_path) == {"x.png"}


def test_an_output_folder_inside_the_images_is_not_read(predictor, tmp_path) -> None:
    save(tmp_path / "x.png")
    for _ in range(2):
        assert predict_files(predictor, [tmp_path], tmp_path / "out") == [tmp_path / "out" / "x.png"]


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/keepmap"])
def test_an_output_folder_that_cannot_be_written_is_found_first(predictor, tmp_path, monkeypatch, where) -> None:
    image = save(tmp_path / "x.png")
    (tmp_path / "file").write_text("here")
    monkeypatch.setattr(files, "open_image", lambda _: pytest.fail("opened an image before the folder was tried"))
    with pytest.raises(OutputError, match="cannot be written"):
        predict_files(predictor, [image], tmp_path / where)


@pytest.mark.parametrize(("name", "message"), [("missing.png", "does not exist"), ("empty", "no images")])
def test_nothing_to_predict_is_an_error(predictor, tmp_path, name, message) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        predict_files(predictor, [tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_bad_image_does_not_stop_the_others(predictor, tmp_path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    save(images / "a.png")
    whole = save(images / "b.png", 60, 60).read_bytes()
    (images / "b.png").write_bytes(whole[: len(whole) // 2])
    save(images / "c.png", channels=1)
    (images / "d.png").write_text("no image")
    (images / "e.gif").write_bytes(b"GIF89a")
    save(images / "f.png")
    with pytest.raises(DataError) as caught:
        predict_files(predictor, [images], out, PredictOptions(overlay=True, probabilities=True))
    text = str(caught.value)
    assert "4 of 6 images could not be predicted" in text
    assert all(name in text for name in ("b.png", "c.png has 1 channel", "d.png", "e.gif"))
    assert tree(out) == {f"{stem}{end}" for stem in "af" for end in (".png", "_overlay.png", ".npy")}


def test_the_only_image_fails_with_its_own_error(predictor, tmp_path) -> None:
    with pytest.raises(DataError, match=r"grey\.png has 1 channel"):
        predict_files(predictor, [save(tmp_path / "grey.png", channels=1)], tmp_path / "out")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_no_half_file(predictor, tmp_path, monkeypatch, suffix, error) -> None:
    out = tmp_path / "out"
    inputs = [save(tmp_path / f"a{suffix}", 100, 110), save(tmp_path / f"b{suffix}", 100, 110)]
    tiled = Predictor(predictor.runtime, predictor.labels, memory_bytes=1)
    run, calls = tiled.runtime.run, 0

    def stop_in_the_second(x, output="labels"):
        nonlocal calls
        calls += 1
        if calls > tiled.plan_way(100, 110).tiles + 1:
            raise error
        return run(x, output)

    monkeypatch.setattr(tiled.runtime, "run", stop_in_the_second)
    with pytest.raises(error):
        predict_files(tiled, inputs, out, PredictOptions(probabilities=True, overlay=True))
    assert tree(out) == {f"a{suffix}", "a.npy", "a_overlay.png"}


def test_labels_above_255_are_written(predictor, tmp_path) -> None:
    labels = LabelSet((0, 1000), ("background", "cell"), None, default_colours(2))
    wide = Predictor(predictor.runtime, labels, memory_bytes=2**30)
    (mask,) = predict_files(wide, [save(tmp_path / "x.png")], tmp_path / "out", PredictOptions(overlay=True))
    assert np.array_equal(read_mask(mask), wide(pixels(20, 30)))


def test_the_coarse_score_maps_of_an_fcn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network("fcn", channels=3, classes=2, options={"encoder": "resnet18", "skips": 0}).eval()
    predictor = Predictor(
        TorchRuntime(network, device="cpu", precision="float32"),
        LabelSet((0, 255), ("background", "cell"), None, default_colours(2)),
    )
    images = [save(tmp_path / "in" / name, 70, 90) for name in ("a.png", "b.png", "c.png")]  # of one size
    predict_files(predictor, images, tmp_path / "out", PredictOptions(coarse=True))
    x = torch.from_numpy(np.asarray(Image.open(images[0])).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network.scores(x)[0].numpy()
    assert tree(tmp_path / "out") == {f"{stem}{end}" for stem in "abc" for end in (".png", "_coarse.npy")}
    for stem in "abc":
        scores = np.load(tmp_path / "out" / f"{stem}_coarse.npy")
        assert scores.shape == (2, 3, 3)
        np.testing.assert_allclose(scores, expected, atol=1e-4 * abs(expected).max())


def test_a_network_without_a_coarse_map_is_refused_first(predictor: Predictor, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "a.png")
    with pytest.raises(OptionError, match="no coarse score map"):
        predict_files(predictor, [image], tmp_path / "out", PredictOptions(coarse=True))
    assert not (tmp_path / "out").exists()


def test_a_geotiff_stays_where_it_is_and_what_was_not_measured_is_said(predictor, tmp_path) -> None:
    array = pixels(40, 50)
    array[:7, :9] = 0
    geo = (33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True)
    options = {"resolution": (100, 200), "resolutionunit": "CENTIMETER"}
    extra = [*geo, (42113, "s", 0, "0", True)]
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="rgb", compression="zlib", extratags=extra, **options)
    (mask,) = predict_files(predictor, [tmp_path / "x.tif"], tmp_path / "out", PredictOptions(overlay=True))
    source, plane = open_image(tmp_path / "x.tif"), TiffPlane(mask)
    assert plane.geometry == source.geometry
    assert [tag[0] for tag in plane.geometry.tags] == [33550, 33922]
    assert plane.nodata == 254
    filled = array.copy()
    filled[:7, :9] = 100  # the mean that the network was trained with
    expected = predictor(filled)
    expected[:7, :9] = 254
    assert np.array_equal(read_mask(mask), expected)


def test_an_ome_zarr_stays_one(predictor, tmp_path) -> None:
    zarr = pytest.importorskip("zarr")
    array = pixels(40, 50)
    group = zarr.open_group(tmp_path / "in" / "x.ome.zarr", mode="w")
    group.create_array("0", data=array.transpose(2, 0, 1)[:, None], chunks=(1, 1, 16, 16))
    axes = [{"name": name, "unit": "micrometer"} if name in "yx" else {"name": name} for name in "czyx"]
    steps = [{"type": "scale", "scale": [1, 1, 0.5, 0.25]}]
    level = {"path": "0", "coordinateTransformations": steps}
    group.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": [level]}]}
    for _ in range(2):
        (mask,) = predict_files(predictor, [tmp_path / "in"], tmp_path / "out", PredictOptions(overlay=True))
        assert mask == tmp_path / "out" / "x.ome.zarr"
        assert np.array_equal(read_mask(mask), predictor(array))
        assert open_image(mask).geometry == Geometry((0.5, 0.25), "micrometer")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"x.ome.zarr", "x.ome_overlay.png"}


def test_a_folder_that_only_looks_like_zarr_is_not_replaced(predictor, tmp_path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.create_array(tmp_path / "x.zarr", data=pixels(9, 9))
    (tmp_path / "out" / "x.zarr").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"x\.zarr is a folder, where a file is to be written"):
        predict_files(predictor, [tmp_path / "x.zarr"], tmp_path / "out")


def test_other_formats_in_and_what_becomes_of_them(predictor, tmp_path) -> None:
    array = pixels(24, 30)
    for name in ("a.bmp", "b.webp", "c.png"):
        Image.fromarray(array).save(tmp_path / name, **({"lossless": True} if "webp" in name else {"dpi": (50, 80)}))
    np.save(tmp_path / "d.npy", array)
    Image.fromarray(array).save(tmp_path / "e.tif", save_all=True, append_images=[Image.fromarray(255 - array)])
    masks = predict_files(predictor, [tmp_path], tmp_path / "out", PredictOptions(frame=1))
    assert [mask.name for mask in masks] == ["a.png", "b.png", "c.png", "d.tif", "e.tif"]
    for mask in masks:
        assert np.array_equal(read_mask(mask), predictor(255 - array if mask.name == "e.tif" else array))
    with Image.open(masks[2]) as image:
        assert image.info["dpi"] == pytest.approx((50, 80), rel=1e-3)
    with pytest.raises(DataError, match=r"e\.tif holds 2 frames"):
        predict_files(predictor, [tmp_path / "e.tif"], tmp_path / "out")


@pytest.mark.parametrize("name", ["x.tif", "out/x.tif", "out/prediction.jsonl", "out/review_first.csv", ""])
def test_a_table_replaces_neither_an_image_nor_another_output(predictor, tmp_path, name) -> None:
    image = save(tmp_path / "x.tif")
    with pytest.raises(OutputError, match="--table"):
        predict_files(predictor, [image], tmp_path / "out", PredictOptions(table=str(tmp_path / name)))
    assert tree(tmp_path) == {"x.tif"}


@pytest.mark.parametrize("option", ["overlay", "coarse"])
def test_what_needs_the_whole_image_has_its_limit(predictor, tmp_path, monkeypatch, option) -> None:
    image = save(tmp_path / "x.tif")
    monkeypatch.setattr(predictor.runtime, "check_scores", lambda: None)
    few = PredictOptions(max_pixels=599)
    assert predict_files(predictor, [image], tmp_path / "out", few)
    with pytest.raises(DataError, match=r"(?s)x\.tif is too large.*30 x 20 px"):
        predict_files(predictor, [image], tmp_path / "out", replace(few, **{option: True}))


class Stop(BaseException):
    """What a kill is to code that runs no further."""


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: int, *arguments: Any, **options: Any) -> None:
    """`predict_files` that is stopped after so many passes and bands of the runtime."""
    left, real = calls, torch_runtime.delivered

    def count(*given, **named):
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop
        return real(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(torch_runtime, "delivered", count)
        with pytest.raises(Stop):
            predict_files(*arguments, **options)


@pytest.mark.parametrize(
    ("way", "memory", "kind"),
    [("bands", 2**23, None), ("bands", 400_000, "float32"), ("tiles", 300_000, "uint8"), ("blended", 10**6, "float32")],
)
def test_a_large_image_goes_on_where_it_was(predictor, tmp_path, monkeypatch, way, memory, kind) -> None:
    if way == "blended":
        monkeypatch.setattr(predictor.runtime, "local", False)
        way = "tiles"
    image = save(tmp_path / "x.tif", 900, 200)
    monkeypatch.setattr(files, "_SAVED_EVERY", 0.0)
    large = Predictor(predictor.runtime, predictor.labels, memory_bytes=memory, way=way)
    options = PredictOptions(resume=True, fill_holes=5)
    if kind is not None:
        options = replace(options, probabilities=True, probability_type=kind, review=True)
    (expected,) = predict_files(large, [image], tmp_path / "whole", options)
    out, said = tmp_path / "out", Told()
    for calls in (1, 2, 4, 1, 5):
        stop_after(monkeypatch, calls, large, [image], out, options, about={}, progress=said)
        assert not {"x.tif", "x.npy"} & tree(out)
    (out / ".x.tif.partial").write_bytes(b"half")
    (found,) = predict_files(large, [image], out, options, about={}, progress=said)
    assert found.read_bytes() == expected.read_bytes()
    more = {"x.npy", "review_first.csv"} if kind else set()
    assert all((out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in more)
    assert tree(out) == {"x.tif", "prediction.jsonl"} | more
    assert any(" goes on at " in line for line in said.lines)
    assert predict_files(large, [image], out, options, about={}, progress=said) == [found]
    assert said.lines[-1] == "1 of 1 images are predicted already."


def test_what_was_stopped_while_it_was_cleaned_is_computed_again(predictor, tmp_path, monkeypatch) -> None:
    image, out = save(tmp_path / "x.tif", 300, 40), tmp_path / "out"
    monkeypatch.setattr(files, "_SAVED_EVERY", 0.0)
    large, options = Predictor(predictor.runtime, predictor.labels, memory_bytes=1), PredictOptions(fill_holes=5)
    (expected,) = predict_files(large, [image], tmp_path / "whole", options)

    def stopped(job, source, values, *others):
        values[:] = 0
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(files, "finish", stopped)
        with pytest.raises(Stop):
            predict_files(large, [image], out, options, about={})
    (found,) = predict_files(large, [image], out, replace(options, resume=True), about={})
    assert found.read_bytes() == expected.read_bytes()


def test_what_was_begun_with_something_else_begins_anew(predictor, tmp_path, monkeypatch) -> None:
    image, out = save(tmp_path / "x.tif", 300, 40), tmp_path / "out"
    monkeypatch.setattr(files, "_SAVED_EVERY", 0.0)
    large = Predictor(predictor.runtime, predictor.labels, memory_bytes=1)
    for about in ({"run": "a"}, {"run": "b"}):
        stop_after(monkeypatch, 2, large, [image], out, about=about)
    assert tree(out) == {".x.tif.pixels", ".x.tif.state"}
    save(image, 300, 41)
    said = Told()
    (mask,) = predict_files(large, [image], out, PredictOptions(resume=True), about={"run": "b"}, progress=said)
    assert not any("goes on" in line for line in said.lines)
    assert read_mask(mask).shape == (300, 41)
    assert tree(out) == {"x.tif", "prediction.jsonl"}


def test_pixels_that_begin_anew_are_not_those_that_were_stopped_before(predictor, tmp_path, monkeypatch) -> None:
    image, out = save(tmp_path / "x.tif", 300, 40), tmp_path / "out"
    monkeypatch.setattr(files, "_SAVED_EVERY", 0.0)
    large = Predictor(predictor.runtime, predictor.labels, memory_bytes=1)
    (expected,) = predict_files(large, [image], tmp_path / "whole")
    stop_after(monkeypatch, 2, large, [image], out, about={})
    with monkeypatch.context() as patch:
        patch.setattr(sinks.LabelSink, "begun", True)  # as a kill leaves it
        stop_after(monkeypatch, 0, large, [image], out, about={})
    assert tree(out) == {".x.tif.pixels"}
    (found,) = predict_files(large, [image], out, PredictOptions(resume=True), about={})
    assert found.read_bytes() == expected.read_bytes()


def test_images_that_are_whole_are_not_predicted_again(predictor, tmp_path, monkeypatch) -> None:
    images, out = [save(tmp_path / f"{name}.png", 20 + ord(name), 30) for name in "abcd"], tmp_path / "out"
    options = PredictOptions(table=str(tmp_path / "t.csv"), polygons=True)
    expected = predict_files(predictor, images, tmp_path / "whole", options)
    table = (tmp_path / "t.csv").read_text()
    stop_after(monkeypatch, 2, predictor, images, out, options, about={})
    assert {"a.png", "b.png"} == {name for name in tree(out) if name.endswith(".png")}
    (out / "a.geojson").unlink()
    runs = []
    monkeypatch.setattr(files, "open_image", lambda path, *o: runs.append(path.name) or open_image(path, *o))
    found = predict_files(predictor, images, out, replace(options, resume=True), about={})
    assert set(runs) == {"a.png", "c.png", "d.png"}
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in expected]
    assert (tmp_path / "t.csv").read_text() == table
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["image"], row["class"]) for row in rows[:2]] == [(str(images[0]), n) for n in ("background", "cell")]
    assert sum(int(row["area_px"]) for row in rows[:2]) == (20 + ord("a")) * 30


def test_small_images_of_one_size_go_together(predictor, tmp_path, monkeypatch) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        path = save(tmp_path / "in" / f"{name}.png", 33, 40 if name != "c" else 41)
        Image.fromarray(pixels(33, 40 if name != "c" else 41, seed=ord(name))).save(path)
    options = PredictOptions(probabilities=True)
    monkeypatch.setattr(batching, "_MOST", 1)
    alone = predict_files(predictor, [tmp_path / "in"], tmp_path / "alone", options)
    monkeypatch.setattr(batching, "_MOST", 2)
    monkeypatch.setattr(batching.Batches, "_tried", lambda self, shape, images: list(self._at_once(images)))
    together = predict_files(predictor, [tmp_path / "in"], tmp_path / "together", options)
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in together]


def test_where_one_of_several_cannot_be_written_those_beside_it_leave_nothing(predictor, tmp_path, monkeypatch) -> None:
    images = [save(tmp_path / "in" / f"{name}.png") for name in "abcd"]
    monkeypatch.setattr(batching.Batches, "_tried", lambda self, shape, images: list(self._at_once(images)))
    real = files.open_probabilities

    def full(path, *arguments):
        if path.name == "d.npy":
            raise OutputError(f"{path} cannot be written.")
        return real(path, *arguments)

    monkeypatch.setattr(files, "open_probabilities", full)
    with pytest.raises(OutputError, match=r"d\.npy") as caught:
        predict_files(predictor, images, tmp_path / "out", PredictOptions(probabilities=True))
    assert caught.traceback  # which holds what was computed
    assert not any(name.startswith(".") for name in tree(tmp_path / "out"))


def test_another_prediction_is_said_and_its_masks_stay(predictor, tmp_path) -> None:
    images, out, told = [save(tmp_path / f"{name}.png") for name in "ab"], tmp_path / "out", Told()
    for options, image in ((PredictOptions(), images[0]), (PredictOptions(fill_holes=3), images[1])):
        predict_files(predictor, [image], out, options, about={}, progress=told)
    assert told.lines[::2] == ["1 of 1 images: one pass each."] * 2
    record = out / "prediction.jsonl"
    assert told.lines[1] == f"{record} was of another prediction and begins anew; other masks in {out} stay."
    assert tree(out) == {"a.png", "b.png", "prediction.jsonl"}


def misled(predictor, monkeypatch) -> Predictor:
    """A predictor told of more memory than there is: a pass of more than 20,000 px fails, and there are no bands."""
    run = predictor.runtime.run

    def narrow(x, output="labels"):
        if x.shape[2] * x.shape[3] > 20_000:
            raise OutOfMemory("too much")
        return run(x, output)

    monkeypatch.setattr(predictor.runtime, "unstreamable", "it is so")
    monkeypatch.setattr(predictor.runtime, "run", narrow)
    return Predictor(predictor.runtime, predictor.labels, memory_bytes=2**30)


def test_a_lack_of_memory_makes_tiles_smaller_once(predictor, tmp_path, monkeypatch) -> None:
    images = [save(tmp_path / f"{name}.tif", 200, 230) for name in "ab"]
    expected = [read_mask(path) for path in predict_files(predictor, images, tmp_path / "whole")]
    generous = misled(predictor, monkeypatch)
    told = Told()
    found = predict_files(generous, images, tmp_path / "out", progress=told)
    assert all(np.mean(read_mask(path) != mask) < 1e-3 for path, mask in zip(found, expected, strict=True))
    assert generous.memory_bytes < 2**30
    assert "the memory did not suffice for one pass" in told.lines[1]
    forced = Predictor(predictor.runtime, predictor.labels, memory_bytes=2**30, way="pass")
    with pytest.raises(OutOfMemory):
        predict_files(forced, images, tmp_path / "forced")


def test_a_lack_of_memory_makes_bands_shorter_that_a_larger_limit_allowed(predictor, tmp_path, monkeypatch) -> None:
    image = save(tmp_path / "a.tif", 600, 230)
    expected = read_mask(predict_files(predictor, [image], tmp_path / "whole")[0])
    stream = predictor.runtime.stream

    def narrow(size, band, read, output="labels"):
        if band > 64:
            raise OutOfMemory("too much")
        return stream(size, band, read, output)

    monkeypatch.setattr(predictor.runtime, "quick_pass", 0)
    monkeypatch.setattr(predictor.runtime, "stream", narrow)
    generous, told = Predictor(predictor.runtime, predictor.labels, memory_bytes=2**40), Told()
    assert generous.plan_way(600, 230).band > 64
    found = predict_files(generous, [image], tmp_path / "out", progress=told)
    assert np.mean(read_mask(found[0]) != expected) < 1e-3
    assert "the memory did not suffice for bands of" in told.lines[1]


def test_a_lack_of_memory_ends_no_job_of_many_images_of_one_size(predictor, tmp_path, monkeypatch) -> None:
    """Those whose headers were read before are tiled in groups that were made for one pass."""
    images = [save(tmp_path / f"{number:02}.png", 200, 230) for number in range(20)]
    monkeypatch.setattr(batching, "_PIXELS", 200 * 230 * 3)
    generous = misled(predictor, monkeypatch)
    found = predict_files(generous, images, tmp_path / "out")
    assert len({path.read_bytes() for path in found}) == 1


def test_an_image_under_way_that_now_fits_one_pass_goes_on_among_others(predictor, tmp_path, monkeypatch) -> None:
    images, out = [save(tmp_path / f"{name}.png", 200, 230) for name in "ab"], tmp_path / "out"
    tiled = Predictor(predictor.runtime, predictor.labels, memory_bytes=400_000)
    monkeypatch.setattr(files, "_SAVED_EVERY", 0)
    stop_after(monkeypatch, 4, tiled, images, out, about={})
    monkeypatch.setattr(batching, "_PIXELS", 2**20)
    told = Told()
    assert len(predict_files(predictor, images, out, PredictOptions(resume=True), about={}, progress=told)) == 2
    assert "goes on at" in told.lines[1]


def strange(folder: Path) -> dict[str, str]:
    """Images as rows 23 to 31 of the list of faults have them -> what is said of them, "" where they are predicted."""
    folder.mkdir()
    for name, height, width in (("23", 1, 1), ("24 wide", 1, 20_000), ("24 tall", 20_000, 1), ("26", 37, 53)):
        save(folder / f"{name}.png", height, width)
    Image.fromarray(np.full((20, 30, 3), 7, np.uint8)).save(folder / "30 constant.png")
    save(folder / "31 grey.png", channels=1)
    tifffile.imwrite(folder / "31 five.tif", np.zeros((5, 20, 30), np.uint8), planarconfig="separate")
    tifffile.imwrite(folder / "28 pages.tif", np.zeros((3, 20, 30, 3), np.uint8), photometric="rgb")
    bad = np.zeros((20, 30, 3), np.float32)
    bad[3, 4] = np.nan
    tifffile.imwrite(folder / "29 nan.tif", bad, photometric="rgb")
    for name, side in (("25 empty", 0), ("27 bomb", 13_400)):
        head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        (folder / f"{name}.png").write_bytes(png + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    return {
        "23": "", "24 wide": "", "24 tall": "", "26": "", "30 constant": "", "31 grey": "has 1 channel",
        "31 five": "has 5 channels", "28 pages": "holds 3 frames", "29 nan": "values that are no numbers",
        "25 empty": "25 empty.png", "27 bomb": "too large to be decoded whole",
    }  # fmt: skip


@pytest.mark.parametrize("memory", [2**30, 400_000])
def test_strange_images_are_predicted_or_named_and_harm_no_other(predictor, tmp_path, memory) -> None:
    expected = strange(tmp_path / "in")
    some = Predictor(predictor.runtime, predictor.labels, memory_bytes=memory)
    for name, words in expected.items():
        (image,) = (tmp_path / "in").glob(f"{name}.*")
        if words:
            with pytest.raises(DataError, match=f"{name}.*{words}|{words}"):
                predict_files(some, [image], tmp_path / "out")
            assert not list((tmp_path / "out").glob(f"*{name}*"))
    with pytest.raises(DataError, match="6 of 11 images could not be predicted; the others are done"):
        predict_files(some, [tmp_path / "in"], tmp_path / "out", PredictOptions(table=str(tmp_path / "t.csv")))
    good = {name for name, words in expected.items() if not words}
    assert tree(tmp_path / "out") == {f"{name}.png" for name in good}
    for name in good:
        with Image.open(tmp_path / "in" / f"{name}.png") as image:
            assert read_mask(tmp_path / "out" / f"{name}.png").shape == (image.height, image.width)
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + 2 * len(good)


def test_a_full_disk_ends_the_job_keeps_old_files_and_loses_no_image_that_is_whole(
    predictor, tmp_path, monkeypatch
) -> None:
    images, out = [save(tmp_path / "in" / f"{name}.png", 20 + n) for n, name in enumerate("abcdefgh")], tmp_path / "out"
    for image in images:
        save(out / image.name, 5, 5)
    old, real, calls = (out / "d.png").read_bytes(), Image.Image.save, []

    def full(self, path, *arguments, **options):
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return real(self, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(DiskFull, match=r"(?s)The disk is full.*d\.png.*as it was") as caught:
            predict_files(predictor, images, out, about={})
    assert caught.value.exit_code == 1
    assert (out / "d.png").read_bytes() == old
    assert tree(out) == {*(image.name for image in images), "prediction.jsonl"}
    told = Told()
    found = predict_files(predictor, images, out, PredictOptions(resume=True), about={}, progress=told)
    assert int(told.lines[0].split()[0]) >= 3
    assert [read_mask(path).shape[0] for path in found] == list(range(20, 28))


@pytest.mark.parametrize("where", ["pixels", "probabilities", "state"])
def test_a_disk_that_fills_in_the_middle_of_a_large_image_leaves_what_can_be_taken_up(
    predictor, tmp_path, monkeypatch, where
) -> None:
    image, out = save(tmp_path / "x.tif", 500, 40), tmp_path / "out"
    monkeypatch.setattr(files, "_SAVED_EVERY", 0.0)
    large = Predictor(predictor.runtime, predictor.labels, memory_bytes=400_000)
    options = PredictOptions(probabilities=True)
    (expected,) = predict_files(large, [image], tmp_path / "whole", options)
    place = (config.os, "fsync") if where == "state" else (sinks.os, "posix_fallocate")
    real, calls = getattr(*place), []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == {"pixels": 1, "probabilities": 2, "state": 4}[where]:  # a file and its folder for each state
            raise OSError(28, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(*place, full, raising=False)
        with pytest.raises(DiskFull, match="The disk is full"):
            predict_files(large, [image], out, options, about={})
    left = {".x.tif.pixels", ".x.npy.pixels", ".x.tif.state"}
    assert tree(out) == (left if where == "state" else set())
    told = Told()
    (found,) = predict_files(large, [image], out, replace(options, resume=True), about={}, progress=told)
    assert found.read_bytes() == expected.read_bytes()
    assert any("goes on" in line for line in told.lines) == (where == "state")
