"""Masks by mode: what is stored is what is read, and what carries no label values is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from PIL import Image

from keepmap.data.masks import mask_mode, read_mask
from keepmap.data.values import COLOUR
from keepmap.errors import DataError
from keepmap.options import ImageOptions

VALUES = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 3, 3]], np.uint8)


def read(path: Path) -> np.ndarray:
    values = read_mask(path)
    assert values.dtype == np.int32
    return values


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_label_values_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    suffix, dtype = data.draw(
        st.sampled_from([(".png", "uint8"), (".png", "uint16")])
        | st.tuples(st.just(".tif"), st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "uint32"]))
    )
    elements = st.integers(0, min(np.iinfo(dtype).max, 70_000))
    values = data.draw(drawn.arrays(dtype, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=elements))
    path = tmp_path_factory.mktemp("mask") / f"m{suffix}"
    if suffix == ".png":
        Image.fromarray(values).save(path)
    else:
        tifffile.imwrite(path, values, photometric="minisblack", compression=data.draw(st.sampled_from([None, "zlib"])))
    assert np.array_equal(read(path), values)


def test_a_palette_gives_its_indices_not_its_colours(tmp_path: Path) -> None:
    mask = Image.fromarray(VALUES).convert("P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    for name, options in (("m.png", {}), ("t.png", {"transparency": 0}), ("m.tif", {})):
        mask.save(tmp_path / name, **options)
        assert np.array_equal(read(tmp_path / name), VALUES)


def test_one_bit_is_zero_and_one(tmp_path: Path) -> None:
    for name in ("m.png", "m.tif"):
        Image.fromarray(VALUES > 1).save(tmp_path / name)
        assert np.array_equal(read(tmp_path / name), VALUES > 1)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_stretched(tmp_path: Path, bits: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = [np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel() for row in VALUES]
    raw = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 4, 3, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    (tmp_path / "m.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.array_equal(read(tmp_path / "m.png"), VALUES)


def test_equal_channels_are_one(tmp_path: Path) -> None:
    colour = np.stack([VALUES] * 3, axis=2)
    opaque = np.concatenate([colour, np.full((3, 4, 1), 255, np.uint8)], axis=2)
    for array in (colour, opaque, opaque[..., 2:]):
        Image.fromarray(np.ascontiguousarray(array)).save(tmp_path / "m.png")
        assert np.array_equal(read(tmp_path / "m.png"), VALUES)
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(colour.astype(np.uint16) * 300))
    assert np.array_equal(read(tmp_path / "deep.png"), VALUES.astype(int) * 300)
    tifffile.imwrite(tmp_path / "m.tif", colour, photometric="rgb")
    assert np.array_equal(read(tmp_path / "m.tif"), VALUES)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_colour_code_gives_the_values_of_its_colours(tmp_path: Path, suffix: str) -> None:
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [9, 9, 9]], np.uint8)[VALUES]
    Image.fromarray(colours).save(tmp_path / f"m.{suffix}")
    expected = np.array([0, COLOUR + 0x800000, COLOUR + 0x008000, 9])[VALUES]
    assert np.array_equal(read(tmp_path / f"m.{suffix}"), expected)
    assert "RGB" in mask_mode(tmp_path / f"m.{suffix}")


def test_channels_that_are_no_colours_are_refused(tmp_path: Path) -> None:
    deep = np.stack([VALUES, VALUES * 2, VALUES * 3], axis=2).astype(np.uint16) * 300
    (tmp_path / "m.png").write_bytes(imagecodecs.png_encode(deep))
    tifffile.imwrite(tmp_path / "m.tif", np.concatenate([deep, deep[..., :2]], axis=2), photometric="minisblack",
                     planarconfig="contig")  # fmt: skip
    for name, found in (("m.png", "3 channels of uint16"), ("m.tif", "5 channels of uint16")):
        with pytest.raises(DataError, match=rf"(?s){name} has several channels that are no colours.*{found}"):
            read_mask(tmp_path / name)


def test_transparency_is_refused(tmp_path: Path) -> None:
    array = np.stack([VALUES] * 3 + [VALUES * 80], axis=2)
    for name in ("m.png", "m.tif"):
        Image.fromarray(array).save(tmp_path / name)
        with pytest.raises(DataError, match=rf"{name} has transparent pixels, whose label is unknown"):
            read_mask(tmp_path / name)


@pytest.mark.parametrize("name", ["m.jpg", "m.jpeg", "m.png"])
def test_a_lossy_mask_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    Image.fromarray(VALUES).save(tmp_path / name, format="JPEG")
    with pytest.raises(DataError, match=rf"{name} is a JPEG file, whose compression changes label values"):
        read_mask(tmp_path / name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_that_are_no_labels_are_refused(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", VALUES.astype(dtype))
    with pytest.raises(DataError, match=rf"m\.tif holds {dtype} samples, which are no label values"):
        read_mask(tmp_path / "m.tif")


def test_two_channels_of_one_bit_are_a_label_and_an_alpha(tmp_path: Path) -> None:
    bits = np.stack([VALUES > 1, VALUES >= 0])
    tifffile.imwrite(tmp_path / "m.tif", bits, photometric="minisblack", planarconfig="separate", metadata=None)
    assert np.array_equal(read(tmp_path / "m.tif"), VALUES > 1)


def test_values_beyond_32_bits_are_refused(tmp_path: Path) -> None:
    for dtype in (np.uint32, np.int64):
        tifffile.imwrite(tmp_path / "m.tif", np.full((2, 2), 2**24, dtype))
        with pytest.raises(DataError, match=r"(?s)m\.tif holds label values that are too large.*16777216"):
            read_mask(tmp_path / "m.tif")


def test_a_lossy_tiff_and_a_lossy_webp_are_refused(tmp_path: Path) -> None:
    big = VALUES.repeat(16, 0).repeat(16, 1)
    tifffile.imwrite(tmp_path / "m.tif", big, compression="jpeg")
    for options in ({}, {"save_all": True, "append_images": [Image.fromarray(255 - big)]}):
        Image.fromarray(big).save(tmp_path / "m.webp", **options)
        for name, kind in (("m.tif", "TIFF"), ("m.webp", "WebP")):
            with pytest.raises(DataError, match=rf"{name} is a {kind} file, whose compression changes label values"):
                read_mask(tmp_path / name, ImageOptions(frame=0))


def test_lossless_formats_of_any_kind(tmp_path: Path) -> None:
    Image.fromarray(VALUES).save(tmp_path / "m.bmp")
    Image.fromarray(VALUES).save(tmp_path / "m.webp", lossless=True)
    palette = Image.fromarray(VALUES).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    palette.save(tmp_path / "m.gif", optimize=False)
    np.save(tmp_path / "m.npy", VALUES.astype(np.int64))
    modes = {"bmp": "8-bit grey", "webp": "RGB", "gif": "palette", "npy": "NumPy int64"}
    for suffix, mode in modes.items():
        assert np.array_equal(read(tmp_path / f"m.{suffix}"), VALUES)
        assert mask_mode(tmp_path / f"m.{suffix}") == mode


def test_a_frame_of_a_stack_is_a_mask(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.stack([VALUES, 3 - VALUES]), photometric="minisblack")
    with pytest.raises(DataError, match=r"m\.tif holds 2 frames"):
        read_mask(tmp_path / "m.tif")
    assert np.array_equal(read_mask(tmp_path / "m.tif", ImageOptions(frame=1)), 3 - VALUES)


def test_a_later_frame_of_a_gif_is_indices_or_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(VALUES), Image.fromarray(VALUES[::-1].copy())]
    frames[0].save(tmp_path / "grey.gif", save_all=True, append_images=frames[1:], optimize=False)
    assert np.array_equal(read_mask(tmp_path / "grey.gif", ImageOptions(frame=1)), VALUES[::-1])
    for frame in frames:
        frame.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    frames[0].save(tmp_path / "m.gif", save_all=True, append_images=frames[1:], optimize=False)
    assert np.array_equal(read_mask(tmp_path / "m.gif", ImageOptions(frame=0)), VALUES)
    with pytest.raises(DataError, match=r"(?s)m\.gif: only the first frame of a GIF .*frame 1, .*as a PNG"):
        read_mask(tmp_path / "m.gif", ImageOptions(frame=1))


@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
def test_a_mask_is_decoded_whole_and_has_the_pixel_limit(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m.{suffix}"
    np.save(path, VALUES) if suffix == "npy" else Image.fromarray(VALUES).save(path)
    assert np.array_equal(read_mask(path, ImageOptions(max_pixels=12)), VALUES)
    with pytest.raises(DataError, match=rf"(?s)m\.{suffix} is too large.*4 x 3 px"):
        read_mask(path, ImageOptions(max_pixels=11))


def test_other_formats_and_broken_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.tga").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"(?s)m\.tga is of a format that is not read as a mask.*grey, palette"):
        read_mask(tmp_path / "m.tga")
    Image.fromarray(VALUES).save(tmp_path / "m.png")
    (tmp_path / "m.png").write_bytes((tmp_path / "m.png").read_bytes()[:-24])
    with pytest.raises(DataError, match=r"m\.png is damaged and cannot be decoded"):
        read_mask(tmp_path / "m.png")


def test_a_mask_is_turned_like_its_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(VALUES).save(tmp_path / "m.png", exif=exif)
    assert np.array_equal(read(tmp_path / "m.png"), np.rot90(VALUES, -1))
    tifffile.imwrite(tmp_path / "m.tif", VALUES, extratags=[(274, "H", 1, 6, False)])
    assert np.array_equal(read(tmp_path / "m.tif"), np.rot90(VALUES, -1))


@pytest.mark.parametrize(
    ("mode", "name"), [("1", "1-bit"), ("L", "8-bit grey"), ("P", "palette"), ("I;16", "16-bit grey"), ("RGB", "RGB")]
)
def test_the_mode_is_named_as_people_name_it(mode: str, name: str, tmp_path: Path) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "mask.png")
    assert mask_mode(tmp_path / "mask.png") == name
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((3, 4), np.uint16))
    assert mask_mode(tmp_path / "mask.tif") == "TIFF uint16"
