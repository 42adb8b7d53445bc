"""Only what a window touches is decoded, and it is decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from keepmap.data import headers, tiff_samples
from keepmap.data.tiff_plane import TiffPlane
from keepmap.errors import DataError
from keepmap.options import ImageOptions

RNG = np.random.default_rng(0)


def poison(path: Path, *, but: set[int]) -> None:
    """Overwrite the strips or tiles of a file, except those numbered in `but`."""
    with tifffile.TiffFile(path) as file:
        places = list(zip(file.pages.first.dataoffsets, file.pages.first.databytecounts, strict=True))
    with path.open("r+b") as raw:
        for number, (offset, size) in enumerate(places):
            if number not in but:
                raw.seek(offset)
                raw.write(b"\xff" * size)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    ("layout", "numbers"), [({"tile": (16, 16)}, {5, 6, 9, 10}), ({"rowsperstrip": 4}, set(range(4, 12)))]
)
def test_a_window_needs_only_the_strips_and_tiles_it_touches(
    tmp_path: Path, bigtiff: bool, layout: dict[str, object], numbers: set[int]
) -> None:
    array = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, array, compression="zlib", bigtiff=bigtiff, photometric="rgb", **layout)
    poison(path, but=numbers)
    plane = TiffPlane(path)
    assert np.array_equal(plane.read((slice(16, 48), slice(16, 48))), array[16:48, 16:48])
    with pytest.raises(DataError, match=r"x\.tif is damaged"):
        plane.read()


def test_an_ome_tiff_of_planes_decodes_those_of_the_frame_only(tmp_path: Path) -> None:
    array = RNG.integers(0, 60_000, (2, 3, 40, 50), dtype=np.uint16)
    path = tmp_path / "x.ome.tif"
    tifffile.imwrite(path, array, ome=True, metadata={"axes": "TCYX"}, compression="zlib", tile=(16, 16))
    with tifffile.TiffFile(path) as file:
        first = [file.pages[n].dataoffsets[0] for n in range(3)]
    with path.open("r+b") as raw:
        for offset in first:
            raw.seek(offset)
            raw.write(b"\xff" * 8)
    options = ImageOptions(frame=1)
    assert np.array_equal(TiffPlane(path, options).read(), array[1].transpose(1, 2, 0))
    with pytest.raises(DataError, match="is damaged"):
        TiffPlane(path, ImageOptions(frame=0)).read()


def test_decoded_tiles_are_kept_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, array, compression="zlib", tile=(16, 16))
    plane = TiffPlane(path)
    plane.read((slice(0, 16), slice(0, 64)))
    poison(path, but=set())
    assert np.array_equal(plane.read((slice(3, 9), slice(1, 60)))[..., 0], array[3:9, 1:60])
    monkeypatch.setattr(tiff_samples, "_KEPT_BYTES", 600)
    tifffile.imwrite(path, array, compression="zlib", tile=(16, 16))
    for most, kept in ((headers.KEPT_ROW_BYTES, 4), (0, 2)):
        monkeypatch.setattr(headers, "KEPT_ROW_BYTES", most)
        plane = TiffPlane(path)
        plane.read()
        assert len(plane._samples._kept) == kept


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_bands_decode_each_tile_once_however_large_a_row_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planar: str
) -> None:
    array = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    stored = array if planar == "contig" else array.transpose(2, 0, 1)
    options = {"photometric": "rgb", "planarconfig": planar, "compression": "zlib", "tile": (16, 16)}
    tifffile.imwrite(tmp_path / "x.tif", stored, **options)
    monkeypatch.setattr(tiff_samples, "_KEPT_BYTES", 600)
    plane = TiffPlane(tmp_path / "x.tif")
    decode, numbers = plane._samples._decode, []
    plane._samples._decode = lambda data, number, **given: numbers.append(number) or decode(data, number, **given)
    for top in range(0, 48, 6):
        assert np.array_equal(plane.read((slice(top, top + 6), slice(0, 64))), array[top : top + 6])
    assert len(numbers) == len(set(numbers)) == 12 * (1 if planar == "contig" else 3)


def test_a_missing_tile_is_zero(tmp_path: Path) -> None:
    array = np.ones((32, 32), np.uint8)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, array, compression="zlib", tile=(16, 16))
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = list(file.pages.first.databytecounts)
        file.pages.first.tags["TileByteCounts"].overwrite([counts[0], 0, *counts[2:]])
    expected = array.copy()
    expected[:16, 16:] = 0
    assert np.array_equal(TiffPlane(path).read()[..., 0], expected)
