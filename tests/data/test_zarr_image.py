"""Zarr of both versions and OME-Zarr: axes, windows, geometry, and no code from a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap import external
from keepmap.data import headers
from keepmap.data.zarr_image import is_zarr_folder, open_zarr, write_zarr
from keepmap.errors import DataError, MissingPackage
from keepmap.options import ImageOptions
from keepmap.protocols import Geometry

zarr = pytest.importorskip("zarr")
RNG = np.random.default_rng(0)


def ome(path: Path, array: np.ndarray, axes: str, *, version: int = 3, **level: object) -> Path:
    """An OME-Zarr image of two levels, 0.4 or 0.5."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    for name, values in (("full", array), ("half", array[..., ::2, ::2])):
        group.create_array(name, data=values, chunks=tuple(min(16, n) for n in values.shape))
    named = [{"name": a, "type": "space", **({"unit": "micrometer"} if a in "zyx" else {})} for a in axes]
    image = {"axes": named, "datasets": [{"path": "full", **level}, {"path": "half"}]}
    group.attrs.update({"ome": {"multiscales": [image]}} if version == 3 else {"multiscales": [image]})
    return path


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_what_zarr_writes_is_read_whole_and_by_window(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32", "float64"]))
    height, width, channels = (data.draw(st.integers(least, 40)) for least in (6, 6, 1))
    channels = channels % 5 + 1
    array = RNG.integers(0, 250, (channels, height, width)).astype(dtype)
    path = tmp_path_factory.mktemp("zarr") / "x.zarr"
    options: dict[str, object] = {"zarr_format": data.draw(st.sampled_from([2, 3]))}
    if options["zarr_format"] == 3 and data.draw(st.booleans()):
        options |= {"chunks": (1, 4, 8), "shards": (1, 8, 16)}
    else:
        options |= {"chunks": (channels, 7, 9)}
    zarr.create_array(path, data=array, **options)
    source = open_zarr(path, ImageOptions())
    assert np.array_equal(source.read(), array)
    window = slice(2, height), slice(1, width - 2)
    assert np.array_equal(source.read(window), array[:, window[0], window[1]])
    step = data.draw(st.integers(1, 12))
    for top in range(data.draw(st.integers(0, 5)), height, step):
        rows = slice(top, min(top + step, height))
        assert np.array_equal(source.read((rows, window[1])), array[:, rows, window[1]])


@pytest.mark.parametrize("version", [2, 3])
def test_level_0_its_axes_and_its_scales(tmp_path: Path, version: int) -> None:
    array = RNG.integers(0, 250, (1, 3, 1, 20, 30)).astype(np.uint16)
    steps = [
        {"type": "scale", "scale": [1, 1, 5, 0.25, 0.5]},
        {"type": "translation", "translation": [0, 0, 0, 10, 20]},
    ]
    source = open_zarr(ome(tmp_path / "x.ome.zarr", array, "tczyx", version=version, coordinateTransformations=steps),
                       ImageOptions())  # fmt: skip
    assert np.array_equal(source.read(), array[0, :, 0])
    assert source.geometry == Geometry((0.25, 0.5), "micrometer", (10.0, 20.0))


def test_times_and_depths_are_frames(tmp_path: Path) -> None:
    array = RNG.integers(0, 250, (2, 3, 20, 30)).astype(np.uint8)
    path = ome(tmp_path / "x.zarr", array, "tzyx")
    with pytest.raises(DataError, match=r"x\.zarr holds 6 frames"):
        open_zarr(path, ImageOptions())
    assert np.array_equal(open_zarr(path, ImageOptions(frame=4)).read(), array[1, 1][None])


def test_named_dimensions_say_which_are_channels(tmp_path: Path) -> None:
    array = RNG.integers(0, 250, (20, 5, 30)).astype(np.uint8)
    zarr.create_array(tmp_path / "x.zarr", data=array, dimension_names=["y", "c", "x"])
    assert np.array_equal(open_zarr(tmp_path / "x.zarr", ImageOptions()).read(), array.transpose(1, 0, 2))


def test_a_window_needs_no_other_chunk(tmp_path: Path) -> None:
    array = RNG.integers(0, 250, (64, 64)).astype(np.uint8)
    zarr.create_array(tmp_path / "x.zarr", data=array, chunks=(16, 16), zarr_format=2)
    for chunk in (tmp_path / "x.zarr").glob("[0-9]*"):
        if chunk.name != "2.1":
            chunk.write_bytes(b"rubbish")
    source = open_zarr(tmp_path / "x.zarr", ImageOptions())
    assert np.array_equal(source.read((slice(32, 48), slice(16, 32)))[0], array[32:48, 16:32])
    with pytest.raises(DataError, match=r"x\.zarr is damaged"):
        source.read()


@pytest.mark.parametrize(("axes", "bytes_", "times"), [("yxc", 10**6, 1), ("cyx", 10**6, 1), ("yxc", 0, 3)])
def test_bands_decode_each_chunk_once(tmp_path: Path, monkeypatch, axes: str, bytes_: int, times: int) -> None:
    array = RNG.integers(0, 250, (40, 20, 3)).astype(np.uint8)
    stored = array if axes == "yxc" else array.transpose(2, 0, 1)
    chunks = tuple({"y": 16, "x": 8, "c": 3}[axis] for axis in axes)
    zarr.create_array(tmp_path / "x.zarr", data=stored, chunks=chunks, dimension_names=list(axes))
    monkeypatch.setattr(headers, "KEPT_ROW_BYTES", bytes_)
    read: list[str] = []
    get = zarr.storage.LocalStore.get
    monkeypatch.setattr(zarr.storage.LocalStore, "get", lambda self, key, **o: read.append(key) or get(self, key, **o))
    source = open_zarr(tmp_path / "x.zarr", ImageOptions())
    read.clear()
    for top in range(0, 40, 10):
        rows = slice(top, top + 10), slice(0, 20)
        assert np.array_equal(source.read(rows), array[rows].transpose(2, 0, 1))
    assert max(read.count(key) for key in read) == times
    assert len(set(read)) == 9


def test_a_giant_is_read_by_window_and_a_giant_chunk_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x.zarr", shape=(10**6, 10**6), chunks=(512, 512), dtype="uint8", fill_value=3)
    assert (open_zarr(tmp_path / "x.zarr", ImageOptions()).read((slice(10, 12), slice(0, 3))) == 3).all()
    zarr.create_array(tmp_path / "y.zarr", shape=(10**6, 10**6), chunks=(10**5, 10**5), dtype="uint8")
    with pytest.raises(DataError, match=r"(?s)y\.zarr is too large.*100000 x 100000"):
        open_zarr(tmp_path / "y.zarr", ImageOptions())


PICKLE = {"id": "pickle", "protocol": 5}


@pytest.mark.parametrize("dtype", ["|u1", "|O"])
@pytest.mark.parametrize("codecs", [{"compressor": PICKLE}, {"filters": [PICKLE]}])
def test_a_codec_that_unpickles_is_refused(tmp_path: Path, dtype: str, codecs: dict[str, object]) -> None:
    path = tmp_path / "x.zarr"
    zarr.create_array(path, data=np.zeros((4, 4), np.uint8), zarr_format=2, compressors=None)
    codecs = codecs | {"dtype": dtype}
    header = path / ".zarray"
    header.write_text(json.dumps(json.loads(header.read_text()) | codecs))
    for chunk in path.glob("0*"):  # a call of os.mkdir as `pickle` writes it
        chunk.write_bytes(b"cos\nmkdir\n(V" + str(tmp_path / "mark").encode() + b"\ntR.")
    with pytest.raises(DataError, match=r"(?s)x\.zarr .*pickle"):
        open_zarr(path, ImageOptions()).read()
    assert not (tmp_path / "mark").exists()


def test_only_codecs_of_the_list_are_run(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "x.zarr", data=np.zeros((4, 4), np.uint8), zarr_format=2)
    header = tmp_path / "x.zarr" / ".zarray"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"filters": [{"id": "base64"}]}))
    with pytest.raises(DataError, match=r"(?s)x\.zarr is compressed in a way that is not read.*base64"):
        open_zarr(tmp_path / "x.zarr", ImageOptions())


def test_what_is_no_zarr_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_bytes(b"x")
    (tmp_path / "empty.zarr").mkdir()
    group = zarr.open_group(tmp_path / "group.zarr", mode="w")
    group.create_array("some", data=np.zeros((2, 2)))
    for name, text in (
        ("file", "is no Zarr folder"), ("empty", "is damaged"), ("group", r"(?s)does not say which is the image.*some"),
        ("absent", "cannot be opened"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=rf"{name}\.zarr {text}" if "(?s)" not in text else text):
            open_zarr(tmp_path / f"{name}.zarr", ImageOptions())
    assert not is_zarr_folder(tmp_path / "empty.zarr")


def test_a_mask_keeps_scale_origin_and_unit(tmp_path: Path) -> None:
    mask = RNG.integers(0, 9, (700, 40)).astype(np.uint16)
    geometry = Geometry((0.25, 0.5), "micrometer", (1.0, 2.0))
    write_zarr(mask, tmp_path / "m.zarr", geometry)
    source = open_zarr(tmp_path / "m.zarr", ImageOptions())
    assert source.geometry == geometry
    assert np.array_equal(source.read()[0], mask)
    assert is_zarr_folder(tmp_path / "m.zarr")
    group = zarr.open(tmp_path / "m.zarr", mode="r")
    assert group.attrs["multiscales"][0]["axes"][0] == {"name": "y", "type": "space", "unit": "micrometer"}


def test_without_the_package_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "available", lambda name: False)
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(MissingPackage, match="pip install"):
        open_zarr(tmp_path / "x.zarr", ImageOptions())
    shutil.rmtree(tmp_path / "x.zarr")
