"""TIFF layouts, windows from disk, and each refusal by its message."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keepmap.data.tiff_image import TiffImage
from keepmap.errors import DataError
from keepmap.options import ImageOptions

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)


def write(path: Path, array: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, array, **options)
    return path


def read(path: Path) -> np.ndarray:
    source = TiffImage(path, ImageOptions())
    array = source.read()
    assert array.shape == source.shape
    assert array.dtype == source.dtype
    assert array.dtype.isnative
    assert all(stride >= 0 for stride in array.strides)
    window = slice(3, 9), slice(5, 25)
    assert np.array_equal(source.read(window), array[:, window[0], window[1]])
    return array


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16), "compression": "lzw"}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_layouts_and_byte_orders(tmp_path: Path, options: dict[str, object], byteorder: str, bigtiff: bool) -> None:
    common = dict(byteorder=byteorder, bigtiff=bigtiff, **options)
    planar = RGB.transpose(2, 0, 1)
    five = RNG.integers(0, 65536, (20, 30, 5), dtype=np.uint16)
    assert np.array_equal(read(write(tmp_path / "a.tif", RGB, photometric="rgb", **common)), planar)
    assert np.array_equal(read(write(tmp_path / "b.tif", DEEP, **common)), DEEP[None])
    rows = write(tmp_path / "c.tif", np.ascontiguousarray(planar), photometric="rgb", planarconfig="separate", **common)
    assert np.array_equal(read(rows), planar)
    bands = write(tmp_path / "d.tif", five, photometric="minisblack", planarconfig="contig", **common)
    assert np.array_equal(read(bands), five.transpose(2, 0, 1))


def test_a_window_of_a_plain_file_leaves_the_rest_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    stored = tifffile.memmap(path, shape=(20_000, 20_000), dtype=np.uint8)  # 400 MB, a hole but for a corner
    stored[-3:, -2:] = 7
    stored.flush()
    del stored
    source = TiffImage(path, ImageOptions())
    assert source.shape == (1, 20_000, 20_000)
    assert (source.read((slice(19_997, 20_000), slice(19_998, 20_000))) == 7).all()


def test_a_giant_in_one_compressed_strip_is_refused_from_its_header(tmp_path: Path) -> None:
    small = write(tmp_path / "x.tif", np.zeros((16, 16), np.uint8), compression="zlib", rowsperstrip=16)
    with tifffile.TiffFile(small, mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(60_000)
        file.pages[0].tags["ImageLength"].overwrite(60_000)
        file.pages[0].tags["RowsPerStrip"].overwrite(60_000)
    with pytest.raises(DataError, match=r"(?s)x\.tif is too large to be decoded whole.*60000 x 60000"):
        TiffImage(small, ImageOptions())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_orientation_tag_is_applied(tmp_path: Path, orientation: int, compression: str | None) -> None:
    extra = [(274, "H", 1, orientation, False)]
    path = write(tmp_path / "x.tif", RGB, photometric="rgb", compression=compression, extratags=extra)
    image = Image.fromarray(RGB)
    image.getexif()[274] = orientation
    expected = np.array(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    source = TiffImage(path, ImageOptions())
    assert np.array_equal(source.read(), expected)
    assert source.shape == expected.shape
    assert np.array_equal(source.read((slice(2, 9), slice(5, 17))), expected[:, 2:9, 5:17])


def test_one_bit_and_palette(tmp_path: Path) -> None:
    bits = RGB[..., 0] > 99
    Image.fromarray(bits).save(tmp_path / "bits.tif")
    assert np.array_equal(read(tmp_path / "bits.tif"), np.where(bits, 255, 0)[None])
    palette = Image.fromarray(RGB).quantize(16)
    palette.save(tmp_path / "palette.tif")
    assert np.array_equal(read(tmp_path / "palette.tif"), np.array(palette.convert("RGB")).transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_dropped_only_where_all_is_opaque(tmp_path: Path, dtype: type) -> None:
    array = np.full((20, 30, 4), np.iinfo(dtype).max, dtype)
    array[..., :3] = RGB
    path = write(tmp_path / "x.tif", array, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read(path), RGB.transpose(2, 0, 1))
    array[3, 4, 3] = 9
    write(path, array, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(DataError, match=r"(?s)x\.tif has transparent pixels.*1 px"):
        TiffImage(path, ImageOptions()).read()


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int8", "int16", "int32", "uint32", "int64", "uint64"]
)
def test_all_other_numbers_become_float32(tmp_path: Path, dtype: str, byteorder: str) -> None:
    array = RNG.integers(0, 100, (20, 30)).astype(dtype)
    found = read(write(tmp_path / "x.tif", array, byteorder=byteorder, photometric="minisblack"))
    assert found.dtype == np.float32
    assert np.array_equal(found[0], array)


def test_complex_numbers_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.tif holds complex64 samples, which are not read"):
        TiffImage(write(tmp_path / "x.tif", np.zeros((4, 5), "complex64")), ImageOptions())


@pytest.mark.parametrize(
    "options",
    [{}, {"imagej": True, "metadata": {"axes": "TYX"}}, {"compression": "zlib"}, {"metadata": {"axes": "ZYX"}}],
)
def test_frames_are_counted_refused_and_chosen(tmp_path: Path, options: dict[str, object]) -> None:
    frames = RNG.integers(0, 256, (7, 16, 18), dtype=np.uint8)
    path = write(tmp_path / "x.tif", frames, photometric="minisblack", **options)
    with pytest.raises(DataError, match=r"(?s)x\.tif holds 7 frames.*--frame N with N from 0 to 6"):
        TiffImage(path, ImageOptions())
    for n in range(7):
        assert np.array_equal(TiffImage(path, ImageOptions(frame=n)).read(), frames[n][None])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("axes", "shape", "options"),
    [
        ("CYX", (5, 16, 18), {"ome": True}),
        ("TCYX", (3, 2, 16, 18), {"ome": True}),
        ("ZCYX", (2, 3, 16, 18), {"imagej": True}),
        ("CYX", (2, 16, 18), {}),
        ("TCYXS", (2, 2, 16, 18, 3), {"ome": True}),
    ],
)
def test_pages_of_channels_are_channels_and_of_anything_else_frames(
    tmp_path: Path, axes: str, shape: tuple[int, ...], options: dict[str, object], compression: str | None
) -> None:
    array = RNG.integers(0, 65536, shape, dtype=np.uint16)
    colour = "rgb" if "S" in axes else "minisblack"
    path = write(
        tmp_path / "x.tif", array, photometric=colour, metadata={"axes": axes}, compression=compression, **options
    )
    frames = array if axes[0] in "TZ" else array[None]
    for n, frame in enumerate(frames):
        expected = frame.transpose(0, 3, 1, 2).reshape(-1, 16, 18) if "S" in axes else frame
        assert np.array_equal(TiffImage(path, ImageOptions(frame=n)).read(), expected)


def test_a_thumbnail_is_no_second_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(DEEP)
        writer.write(DEEP[::2, ::2], subfiletype=1)
    assert np.array_equal(read(tmp_path / "x.tif"), DEEP[None])


@pytest.mark.parametrize(("photometric", "samples"), [("separated", 4), ("miniswhite", 1)])
def test_other_colour_models_are_refused_by_name(tmp_path: Path, photometric: str, samples: int) -> None:
    path = write(tmp_path / "x.tif", np.zeros((4, 5, samples), np.uint8).squeeze(), photometric=photometric)
    with pytest.raises(DataError, match=rf"x\.tif has the colour model {photometric.upper()}, which is not read"):
        TiffImage(path, ImageOptions())


def test_a_png_named_tif_is_told(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"(?s)x\.tif is not the TIFF file.*a PNG file"):
        TiffImage(tmp_path / "x.tif", ImageOptions())


@pytest.mark.parametrize("compression", [None, "zlib"])
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4), st.integers(8, 700))
@settings(max_examples=60, deadline=None)
def test_damage_of_any_kind_is_an_image_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, compression: str | None, flips: list[tuple[int, int]], length: int
) -> None:
    path = write(tmp_path_factory.mktemp("damage") / "x.tif", RGB[:6, :7], photometric="rgb", compression=compression)
    content = bytearray(path.read_bytes()[:length])
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert TiffImage(path, ImageOptions()).read().ndim == 3


def test_nodata_is_nan_in_floats_and_as_stored_in_bytes(tmp_path: Path) -> None:
    def nodata(text: str) -> list[tuple[object, ...]]:
        return [(42113, "s", 0, text, True)]

    for dtype, value in (("int16", -9999), ("float32", -9999), ("float64", -1.7976931348623157e308)):
        array = np.full((4, 5), 7, dtype)
        array[1, 2] = value
        source = TiffImage(write(tmp_path / "x.tif", array, extratags=nodata(str(value))), ImageOptions())
        pixels = source.read()
        assert np.isnan(source.nodata)
        assert np.isnan(pixels[0, 1, 2])
        assert np.count_nonzero(pixels == 7) == 19
    for text, found in (("0", 0.0), ("-9999", None), ("none", None), ("0.5", None)):
        path = write(tmp_path / "x.tif", RGB, photometric="rgb", extratags=nodata(text))
        assert TiffImage(path, ImageOptions()).nodata == found


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_layout_is_read_whole_and_by_window(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """tifffile writes, and reads whole; windows are compared with that."""
    dtype = data.draw(st.sampled_from(["bool", "uint8", "uint16", "int16", "int32", "float32", "float64"]))
    height, width, channels = (data.draw(st.integers(1, most)) for most in (70, 70, 6))
    planar = data.draw(st.booleans()) and dtype != "bool"
    shape = (height, width) if channels == 1 else (channels, height, width) if planar else (height, width, channels)
    if dtype == "bool":
        shape = (height, width)
    array = RNG.integers(0, 2 if dtype == "bool" else 120, shape).astype(dtype)
    options = {
        "planarconfig": None if len(shape) == 2 else "separate" if planar else "contig",
        "compression": data.draw(st.sampled_from([None] if dtype == "bool" else [None, "zlib", "lzw", "zstd"])),
        "bigtiff": data.draw(st.booleans()),
        "byteorder": data.draw(st.sampled_from("<>")),
    }
    if data.draw(st.booleans()):
        options |= {"tile": (16, 32)}
    else:
        options |= {"rowsperstrip": data.draw(st.integers(1, 80))}
    if options["compression"] and data.draw(st.booleans()):
        options |= {"predictor": True}
    path = tmp_path_factory.mktemp("tiff") / "x.tif"
    tifffile.imwrite(path, array, photometric="minisblack", metadata=None, **options)
    source = TiffImage(path, ImageOptions())
    expected = array[None] if array.ndim == 2 else array if planar else array.transpose(2, 0, 1)
    expected = expected * 255 if dtype == "bool" else expected
    assert np.array_equal(source.read(), expected)
    for _ in range(2):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        rows, columns = (
            slice(top, data.draw(st.integers(top + 1, height))), slice(left, data.draw(st.integers(left + 1, width))),
        )  # fmt: skip
        assert np.array_equal(source.read((rows, columns)), expected[:, rows, columns])
