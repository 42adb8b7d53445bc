"""Which frame of a TIFF file is read, and what is refused before a pixel is decoded."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from keepmap.data.tiff_plane import TiffPlane
from keepmap.errors import DataError
from keepmap.options import ImageOptions

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)


def test_pages_of_several_sizes_are_frames_in_order(tmp_path: Path) -> None:
    pages = [GREY, GREY[:7, :9], GREY[::2]]
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        for page in pages:
            writer.write(page, metadata=None)
    with pytest.raises(DataError, match=r"x\.tif holds 3 frames"):
        TiffPlane(tmp_path / "x.tif")
    for n, page in enumerate(pages):
        assert np.array_equal(TiffPlane(tmp_path / "x.tif", ImageOptions(frame=n)).read()[..., 0], page)


def test_neither_pyramid_levels_nor_transparency_masks_are_frames(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(GREY, subifds=1, tile=(16, 16), compression="zlib", metadata=None)
        writer.write(GREY[::2, ::2], subfiletype=1, tile=(16, 16), metadata=None)
        writer.write(GREY > 9, subfiletype=4, photometric="minisblack", metadata=None)
    plane = TiffPlane(tmp_path / "x.tif")
    assert (plane.shape, plane.channels, plane.dtype) == ((20, 30), 1, np.uint8)
    assert np.array_equal(plane.read()[..., 0], GREY)


def test_a_file_alone_is_read_whatever_neighbours_its_description_names(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.ome.tif", GREY, ome=True, metadata={"axes": "YX"})
    raw = (tmp_path / "x.ome.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "x.ome.tif") as file:
        text = file.ome_metadata
    start = text.index("<TiffData")
    elsewhere = '<TiffData IFD="0"><UUID FileName="y.tif">urn:uuid:1</UUID></TiffData>'
    stop = text.index("</TiffData>") + len("</TiffData>") if "</TiffData>" in text else text.index("/>", start) + 2
    changed = text[:start] + elsewhere + text[stop:]
    (tmp_path / "x.ome.tif").write_bytes(raw)
    tifffile.imwrite(tmp_path / "z.ome.tif", GREY, description=changed, metadata=None)
    (tmp_path / "y.tif").mkdir()
    assert np.array_equal(TiffPlane(tmp_path / "z.ome.tif").read()[..., 0], GREY)


def test_the_limit_holds_for_one_strip_or_tile_and_counts_channels(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    bands = np.zeros((64, 64, 8), np.uint8)
    tifffile.imwrite(
        path, bands, compression="zlib", tile=(32, 32), photometric="minisblack", planarconfig="contig"
    )
    assert TiffPlane(path, ImageOptions(max_pixels=2 * 32 * 32)).channels == 8
    with pytest.raises(DataError, match=r"(?s)x\.tif is too large to be decoded whole.*32 x 32 px of 8 channels"):
        TiffPlane(path, ImageOptions(max_pixels=2 * 32 * 32 - 1))


def test_a_georeferenced_file_stands_upright(tmp_path: Path) -> None:
    tags = [(33550, "d", 3, (1.0, 1.0, 0.0), True), (274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "x.tif", GREY, extratags=tags)
    with pytest.raises(DataError, match=r"(?s)x\.tif is georeferenced and has an orientation tag.*orientation 6"):
        TiffPlane(tmp_path / "x.tif")


def test_depth_inside_a_page_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((32, 32, 32), np.uint8), volumetric=True, tile=(16, 16, 16))
    with pytest.raises(DataError, match=r"x\.tif is no flat image"):
        TiffPlane(tmp_path / "x.tif")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_in_a_circle_do_not_hang(tmp_path: Path, bigtiff: bool) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.stack([GREY] * 3), photometric="minisblack", bigtiff=bigtiff, metadata=None)
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[2].offset
    size, entry, kind = (8, 20, "<Q") if bigtiff else (2, 12, "<I")
    content = bytearray(path.read_bytes())
    place = last + size + entry * int.from_bytes(content[last : last + size], "little")
    struct.pack_into(kind, content, place, first)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"(?s)x\.tif has pages that follow each other in a circle.*3 pages"):
        TiffPlane(path)
