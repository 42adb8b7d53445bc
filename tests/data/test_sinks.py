"""A file appears whole or not at all, whatever order the windows come in and whatever goes wrong."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keepmap.data import sinks, zarr_image
from keepmap.data.images import open_image
from keepmap.data.masks import declared_nodata, read_mask
from keepmap.data.tiff_tags import METRES
from keepmap.data.values import COLOUR, unpack_colours
from keepmap.errors import OutputError
from keepmap.protocols import Geometry

RNG = np.random.default_rng(0)


def windows(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    return [
        (slice(y, min(y + side, height)), slice(x, min(x + side, width)))
        for y in range(0, height, side) for x in range(0, width, side)
    ]  # fmt: skip


@given(
    st.sampled_from(["m.png", "m.tif", "m.TIFF", "m.zarr"]), st.sampled_from([np.uint8, np.uint16]),
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.randoms(use_true_random=False),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_windows_in_any_order_make_the_image(
    tmp_path_factory: pytest.TempPathFactory, name: str, dtype: type, height: int, width: int, side: int, random: object
) -> None:
    path = tmp_path_factory.mktemp("sink") / "deep" / "er" / name
    values = RNG.integers(0, np.iinfo(dtype).max, (height, width), dtype=dtype, endpoint=True)
    parts = windows(height, width, side)
    random.shuffle(parts)  # type: ignore[attr-defined]
    with sinks.open_sink(path, (height, width), dtype) as sink:
        for part in parts:
            assert not path.exists()
            sink.write(part, values[part])
    assert np.array_equal(read_mask(path), values)
    assert os.listdir(path.parent) == [name]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell what is resident")
@pytest.mark.parametrize("name", ["m.tif", "m.npy"])
def test_what_is_written_to_a_large_file_leaves_the_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_HELD", 1 << 20)
    path, size, most = tmp_path / name, (6000, 5000), 0
    if name == "m.npy":
        opened: AbstractContextManager[sinks.LabelSink] = sinks.open_probabilities(path, (1, *size), np.uint8)
    else:
        opened = sinks.open_sink(path, size, np.uint8)
    with opened as sink:
        for top in range(0, size[0], 100):
            part = np.full((1, 100, size[1]), top // 100 / 255 if name == "m.npy" else top // 100, np.float32)
            sink.write((slice(top, top + 100), slice(0, size[1])), part if name == "m.npy" else part[0])
            most = max(most, resident(".pixels"))
    assert 0 < most < 4 << 20
    stored = np.load(path)[0] if name == "m.npy" else tifffile.imread(path)
    assert np.array_equal(stored, np.broadcast_to(np.repeat(np.arange(60), 100)[:, None], size))


def resident(suffix: str) -> int:
    """Bytes of mapped files whose names end so that this process holds resident."""
    count, found = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            found = words[-1].endswith(suffix)
        elif found and words[0] == "Rss:":
            count += int(words[1]) * 1024
    return count


def test_a_tiff_is_compressed_and_has_the_dtype(tmp_path: Path) -> None:
    with sinks.open_sink(tmp_path / "m.tif", (500, 600), np.uint16) as sink:
        sink.write((slice(0, 500), slice(0, 600)), np.full((500, 600), 300))
    assert (tmp_path / "m.tif").stat().st_size < 20_000
    array = tifffile.imread(tmp_path / "m.tif")
    assert array.dtype == np.uint16
    assert (array == 300).all()


def test_probabilities_come_back_in_windows(tmp_path: Path) -> None:
    values = RNG.random((3, 17, 23), dtype=np.float32)
    with sinks.open_probabilities(tmp_path / "p.npy", (3, 17, 23)) as sink:
        for rows, columns in windows(17, 23, 8):
            sink.write((rows, columns), values[:, rows, columns])
    stored = np.load(tmp_path / "p.npy")
    assert stored.dtype == np.float32
    assert np.array_equal(stored, values)
    assert os.listdir(tmp_path) == ["p.npy"]


NAMES = ("m.png", "m.tif", "m.zarr", "p.npy")


def open_one(folder: Path, name: str) -> AbstractContextManager[sinks.LabelSink]:
    if name == "p.npy":
        return sinks.open_probabilities(folder / name, (2, 4, 5))
    return sinks.open_sink(folder / name, (4, 5), np.uint8)


def write_badly(sink: sinks.LabelSink) -> None:
    sink.write((slice(0, 4), slice(0, 5)), np.zeros((4, 5)))
    sink.write((slice(2, 4), slice(0, 5)), np.zeros((9, 9)))


@pytest.mark.parametrize("name", NAMES)
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    for each in NAMES:
        (tmp_path / each).write_bytes(b"old")
    with pytest.raises(ValueError, match="broadcast"), open_one(tmp_path, name) as sink:
        write_badly(sink)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(NAMES, b"old")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_window_is_an_error_and_no_file(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(OutputError, match=r"(?s)was not finished.*5 px were never written"),
        open_one(tmp_path, name) as sink,
    ):
        sink.write((slice(0, 3), slice(0, 5)), np.zeros((3, 5)))
    assert not os.listdir(tmp_path)


def test_a_zarr_folder_is_replaced_whole(tmp_path: Path) -> None:
    for value in (1, 2):
        with sinks.open_sink(tmp_path / "m.zarr", (2, 3), np.uint8) as sink:
            sink.write((slice(0, 2), slice(0, 3)), np.full((2, 3), value))
        assert (read_mask(tmp_path / "m.zarr") == value).all()
        assert os.listdir(tmp_path) == ["m.zarr"]


def test_large_masks_are_tiled(tmp_path: Path) -> None:
    values = (np.indices((3, 2100)).sum(0) % 250).astype(np.uint8)
    with sinks.open_sink(tmp_path / "m.tif", values.shape, np.uint8) as sink:
        sink.write((slice(0, 3), slice(0, 2100)), values)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert file.pages.first.is_tiled
    assert np.array_equal(read_mask(tmp_path / "m.tif"), values)


def test_a_closed_sink_takes_nothing(tmp_path: Path) -> None:
    with sinks.open_sink(tmp_path / "m.png", (1, 1), np.uint8) as sink:
        sink.write((slice(0, 1), slice(0, 1)), np.ones((1, 1)))
    with pytest.raises(OutputError, match=r"m\.png is closed"):
        sink.write((slice(0, 1), slice(0, 1)), np.ones((1, 1)))


def test_a_suffix_without_a_writer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"(?s)m\.jpg has a suffix.*\.png, \.tif, \.tiff, \.zarr"):
        sinks.open_sink(tmp_path / "m.jpg", (1, 1), np.uint8)


def test_a_folder_that_cannot_be_made_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / "file"
    for name in ("m.png", "m.tif"):
        with (
            pytest.raises(OutputError, match=rf"(?s)file/{name} cannot be written.*File exists|Not a directory"),
            sinks.open_sink(target / name, (1, 1), np.uint8),
        ):
            pass
    with (
        pytest.raises(OutputError, match=r"p\.npy cannot be written"),
        sinks.open_probabilities(target / "p.npy", (1, 1, 1)),
    ):
        pass
    with pytest.raises(OutputError, match=r"o\.png cannot be written"):
        sinks.write_picture(target / "o.png", np.zeros((1, 1, 3), np.uint8))


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with (
        pytest.raises(OutputError, match=r"(?s)cannot be written.*No space left"),
        sinks.open_sink(tmp_path / "m.tif", (1, 1), np.uint8) as sink,
    ):
        sink.write((slice(0, 1), slice(0, 1)), np.ones((1, 1)))
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        sinks.write_picture(tmp_path / "o.png", np.zeros((1, 1, 3), np.uint8))
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="No space left"), sinks.open_probabilities(tmp_path / "p.npy", (1, 1, 1)):
        pass
    assert not os.listdir(tmp_path)


def test_a_picture_is_written_as_it_is(tmp_path: Path) -> None:
    picture = RNG.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    sinks.write_picture(tmp_path / "new" / "o.png", picture)
    assert np.array_equal(np.array(Image.open(tmp_path / "new" / "o.png")), picture)
    assert os.listdir(tmp_path / "new") == ["o.png"]


def test_an_array_is_written_whole(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    sinks.write_array(tmp_path / "new" / "a.npy", array)
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "a.npy"), array)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.npy"]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".zarr"])
def test_values_of_colours_are_written_as_their_colours(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, COLOUR + 0xFF8000], [255, COLOUR + 0x010203]], np.uint32)
    path = tmp_path / f"m{suffix}"
    with sinks.open_sink(path, values.shape, values.dtype) as sink:
        sink.write((slice(0, 2), slice(0, 2)), values)
    if suffix != ".zarr":
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), unpack_colours(values))
    assert np.array_equal(read_mask(path), values)


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_large_masks_of_colours_are_unpacked_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    values = (np.indices((700, 2100)).sum(0) % 250 << 8 | COLOUR + 1).astype(np.uint32)
    sizes = []
    for module in (sinks, zarr_image):
        monkeypatch.setattr(module, "unpack_colours", lambda part: sizes.append(part.size) or unpack_colours(part))
    with sinks.open_sink(tmp_path / f"m{suffix}", values.shape, values.dtype) as sink:
        sink.write((slice(0, 700), slice(0, 2100)), values)
    assert np.array_equal(read_mask(tmp_path / f"m{suffix}"), values)
    assert max(sizes) <= 512 * 2100


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".zarr"])
def test_colours_keep_the_geometry_of_their_image(tmp_path: Path, suffix: str) -> None:
    values = np.array([[200, COLOUR + 0xFF8000, 0], [255, COLOUR + 0x010203, 0]], np.uint32)
    path = tmp_path / f"m{suffix}"
    geometry = Geometry((0.5, 0.25), "micrometer")
    with sinks.open_sink(path, values.shape, values.dtype, geometry, 255) as sink:
        sink.write((slice(0, 2), slice(0, 3)), values)
    assert np.array_equal(read_mask(path), values)
    found = open_image(path)
    assert found.shape == (3, 2, 3)
    height, width = found.geometry.spacing or (0, 0)
    assert (height * METRES[found.geometry.unit], width * METRES[found.geometry.unit]) == pytest.approx((5e-7, 2.5e-7))
    assert suffix == ".zarr" or declared_nodata(path) == 255
