"""Files and folders to files: names, refusals before the first image, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.masks import read_mask
from keepmap.data.tiff_plane import TiffPlane
from keepmap.errors import DataError, OptionError, OutputError
from keepmap.inference import files
from keepmap.inference.files import plan_outputs, predict_files
from keepmap.inference.predictor import Predictor
from keepmap.networks.catalogue import build_network
from keepmap.options import ImageOptions
from keepmap.protocols import Geometry, Silent
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
    (mask,) = predict_files(predictor, [image], out, overlay=True, probabilities=True)
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
    assert told.lines[1].endswith("bands of 200 rows; --way bands.")


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


def test_an_overlay_must_not_take_the_name_of_a_mask(tmp_path) -> None:
    inputs = [save(tmp_path / "x.png"), save(tmp_path / "x_overlay.jpg")]
    assert len(plan_outputs(inputs, tmp_path / "out")[0]) == 2
    with pytest.raises(OutputError, match=r"x_overlay\.png"):
        plan_outputs(inputs, tmp_path / "out", overlay=True)


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


def test_a_folder_in_place_of_a_mask_is_found_first(tmp_path) -> None:
    (tmp_path / "out" / "x.png").mkdir(parents=True)
    with pytest.raises(OutputError, match="is a folder"):
        plan_outputs([save(tmp_path / "x.png")], tmp_path / "out")


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
        predict_files(predictor, [images], out, overlay=True, probabilities=True)
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
        predict_files(tiled, inputs, out, probabilities=True, overlay=True)
    assert tree(out) == {f"a{suffix}", "a.npy", "a_overlay.png"}


def test_labels_above_255_are_written(predictor, tmp_path) -> None:
    labels = LabelSet((0, 1000), ("background", "cell"), None, default_colours(2))
    wide = Predictor(predictor.runtime, labels, memory_bytes=2**30)
    (mask,) = predict_files(wide, [save(tmp_path / "x.png")], tmp_path / "out", overlay=True)
    assert np.array_equal(read_mask(mask), wide(pixels(20, 30)))


def test_the_module_knows_how_many_failures_it_shows() -> None:
    failures = [files.Failure(Path(f"{i}.png"), DataError(f"{i}.png is broken.")) for i in range(9)]
    text = str(files._failed(failures, 10))
    assert "4.png is broken" in text
    assert "5.png" not in text
    assert "and 4 more" in text


def test_the_coarse_score_map_of_an_fcn(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_network("fcn", channels=3, classes=2, options={"encoder": "resnet18", "skips": 0}).eval()
    predictor = Predictor(
        TorchRuntime(network, device="cpu", precision="float32"),
        LabelSet((0, 255), ("background", "cell"), None, default_colours(2)),
    )
    image = save(tmp_path / "in" / "a.png", 70, 90)
    predict_files(predictor, [image], tmp_path / "out", coarse=True)
    scores = np.load(tmp_path / "out" / "a_coarse.npy")
    x = torch.from_numpy(np.asarray(Image.open(image)).copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network.scores(x)[0].numpy()
    assert scores.shape == (2, 3, 3)
    np.testing.assert_allclose(scores, expected, atol=1e-4 * abs(expected).max())
    assert tree(tmp_path / "out") == {"a.png", "a_coarse.npy"}


def test_a_network_without_a_coarse_map_is_refused_first(predictor: Predictor, tmp_path: Path) -> None:
    image = save(tmp_path / "in" / "a.png")
    with pytest.raises(OptionError, match="no coarse score map"):
        predict_files(predictor, [image], tmp_path / "out", coarse=True)
    assert not (tmp_path / "out").exists()


def test_a_geotiff_stays_where_it_is_and_what_was_not_measured_is_said(predictor, tmp_path) -> None:
    array = pixels(40, 50)
    array[:7, :9] = 0
    geo = (33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True)
    options = {"resolution": (100, 200), "resolutionunit": "CENTIMETER"}
    extra = [*geo, (42113, "s", 0, "0", True)]
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="rgb", compression="zlib", extratags=extra, **options)
    (mask,) = predict_files(predictor, [tmp_path / "x.tif"], tmp_path / "out", overlay=True)
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
        (mask,) = predict_files(predictor, [tmp_path / "in"], tmp_path / "out", overlay=True)
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
    masks = predict_files(predictor, [tmp_path], tmp_path / "out", reading=ImageOptions(frame=1))
    assert [mask.name for mask in masks] == ["a.png", "b.png", "c.png", "d.tif", "e.tif"]
    for mask in masks:
        assert np.array_equal(read_mask(mask), predictor(255 - array if mask.name == "e.tif" else array))
    with Image.open(masks[2]) as image:
        assert image.info["dpi"] == pytest.approx((50, 80), rel=1e-3)
    with pytest.raises(DataError, match=r"e\.tif holds 2 frames"):
        predict_files(predictor, [tmp_path / "e.tif"], tmp_path / "out")


@pytest.mark.parametrize("option", ["overlay", "coarse"])
def test_what_needs_the_whole_image_has_its_limit(predictor, tmp_path, monkeypatch, option) -> None:
    image = save(tmp_path / "x.tif")
    monkeypatch.setattr(predictor.runtime, "check_scores", lambda: None)
    few = ImageOptions(max_pixels=599)
    assert predict_files(predictor, [image], tmp_path / "out", reading=few)
    with pytest.raises(DataError, match=r"(?s)x\.tif is too large.*30 x 20 px"):
        predict_files(predictor, [image], tmp_path / "out", reading=few, **{option: True})
