"""PNG and JPEG by mode, and each kind of damage and surprise by its message."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keepmap.data.pillow_image import PillowImage
from keepmap.errors import DataError
from keepmap.options import ImageOptions

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
RGB = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


def png(path: Path, width: int, height: int, depth: int, colour: int, raw: bytes) -> Path:
    """A PNG file made by hand: any size in the header, any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    source = PillowImage(path, ImageOptions())
    array = source.read()
    assert array.shape == source.shape
    assert array.dtype == source.dtype
    assert all(stride >= 0 for stride in array.strides)
    return array


def test_grey_one_bit_palette_and_colour(tmp_path: Path) -> None:
    assert np.array_equal(read(save(tmp_path / "l.png", GREY)), GREY[None])
    bits = read(save(tmp_path / "1.png", GREY > 99))
    assert np.array_equal(bits, np.where(GREY > 99, 255, 0)[None])
    palette = Image.fromarray(RGB).quantize(4)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read(tmp_path / "p.png"), np.array(palette.convert("RGB")).transpose(2, 0, 1))
    assert np.array_equal(read(save(tmp_path / "rgb.png", RGB)), RGB.transpose(2, 0, 1))


def test_16_bits_are_kept_in_grey_and_in_colour(tmp_path: Path) -> None:
    grey = np.array([[0, 256], [1000, 65535]], np.uint16)
    assert np.array_equal(read(save(tmp_path / "grey.png", grey)), grey[None])
    colour = RNG.integers(0, 65536, (3, 5, 3), dtype=np.uint16)
    (tmp_path / "colour.png").write_bytes(imagecodecs.png_encode(colour))
    assert np.array_equal(read(tmp_path / "colour.png"), colour.transpose(2, 0, 1))
    opaque = np.concatenate([colour, np.full((3, 5, 1), 65535, np.uint16)], axis=2)
    (tmp_path / "alpha.png").write_bytes(imagecodecs.png_encode(opaque))
    assert np.array_equal(read(tmp_path / "alpha.png"), colour.transpose(2, 0, 1))


@pytest.mark.parametrize("colours", [1, 3])
def test_alpha_is_dropped_only_where_all_is_opaque(tmp_path: Path, colours: int) -> None:
    base = (GREY[..., None] if colours == 1 else RGB)
    alpha = np.full((4, 6, 1), 255, np.uint8)
    path = save(tmp_path / "opaque.png", np.concatenate([base, alpha], axis=2))
    assert np.array_equal(read(path), base.transpose(2, 0, 1))
    alpha[1, 2] = 254
    path = save(tmp_path / "clear.png", np.concatenate([base, alpha], axis=2))
    with pytest.raises(DataError, match=r"(?s)clear\.png has transparent pixels.*1 of 24 px are not fully opaque"):
        read(path)


@pytest.mark.parametrize(("mode", "key"), [("P", 0), ("L", 255), ("RGB", (255, 255, 255)), ("I;16", 255)])
def test_a_transparent_colour_counts_as_transparency(tmp_path: Path, mode: str, key: object) -> None:
    array = np.array([[0, 255, 255]], np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(array) if mode == "I;16" else Image.fromarray(array).convert(mode)
    image.save(tmp_path / "key.png", transparency=key)
    with pytest.raises(DataError, match=r"key\.png has transparent pixels"):
        read(tmp_path / "key.png")


@pytest.mark.parametrize(("mode", "key"), [("P", 7), ("L", 7), ("RGB", (7, 7, 7)), ("I;16", 7)])
def test_a_transparent_colour_that_no_pixel_has_does_no_harm(tmp_path: Path, mode: str, key: object) -> None:
    array = np.array([[0, 255, 255]], np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(array) if mode == "I;16" else Image.fromarray(array).convert(mode)
    image.save(tmp_path / "key.png", transparency=key)
    assert (read(tmp_path / "key.png") == array).all()


def test_a_jpeg_is_close_to_what_was_saved_and_cmyk_is_refused(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(8, 0)
    assert np.abs(read(save(tmp_path / "x.jpg", smooth, quality=95)).astype(int) - smooth).max() < 8
    save(tmp_path / "cmyk.jpg", RGB, "CMYK")
    with pytest.raises(DataError, match=r"cmyk\.jpg has the colour mode CMYK, which is not read"):
        PillowImage(tmp_path / "cmyk.jpg", ImageOptions())


def test_a_jpeg_named_png_is_read_by_what_it_is(tmp_path: Path) -> None:
    save(tmp_path / "x.jpg", RGB).rename(tmp_path / "x.png")
    assert read(tmp_path / "x.png").shape == (3, 4, 6)


def test_a_jpeg_with_further_pictures_is_its_main_one(tmp_path: Path) -> None:
    first, second = Image.fromarray(RGB), Image.fromarray(255 - RGB)
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "plain.jpg", format="JPEG")
    assert np.array_equal(read(tmp_path / "phone.jpg"), read(tmp_path / "plain.jpg"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"x.{suffix}", RGB, exif=exif)
    with Image.open(path) as image:
        oracle = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(read(path), oracle.transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"x.{suffix}", RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=rf"(?s)x\.{suffix} is damaged and cannot be decoded.*truncated"):
        read(path)


def test_flipped_bytes_are_named(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[3000:3010] = b"\0" * 10
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.png is damaged and cannot be decoded"):
        read(path)


@pytest.mark.parametrize("source", ["png", "jpg", "png16"])
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4), st.integers(20, 500))
@settings(max_examples=60, deadline=None)
def test_damage_of_any_kind_is_an_image_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, source: str, flips: list[tuple[int, int]], length: int
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"x.{source[:3]}"
    if source == "png16":
        path.write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16)))
    else:
        save(path, RGB)
    content = bytearray(path.read_bytes()[:length])
    for place, value in flips:
        content[place % len(content)] = value
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert PillowImage(path, ImageOptions()).read().ndim == 3


def test_text_named_png_is_shown(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("<!DOCTYPE html>\n<html>")
    with pytest.raises(DataError, match=r"(?s)x\.png is not the PNG file.*text that starts with “<!DOCTYPE"):
        PillowImage(tmp_path / "x.png", ImageOptions())


def test_an_animation_is_refused_with_its_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"x\.png holds 2 frames"):
        PillowImage(tmp_path / "x.png", ImageOptions())


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = png(tmp_path / "bomb.png", 30_000, 30_000, 8, 0, b"")
    with pytest.raises(DataError, match=r"(?s)bomb\.png is too large.*30000 x 30000 px, 900 million.*100 million"):
        PillowImage(path, ImageOptions())


def test_a_size_that_pillow_only_warns_about_passes_in_silence(tmp_path: Path) -> None:
    assert PillowImage(png(tmp_path / "x.png", 9_500, 9_500, 1, 0, b""), ImageOptions()).shape == (1, 9_500, 9_500)


def test_a_header_without_pixels_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.png"):
        PillowImage(png(tmp_path / "x.png", 0, 0, 8, 0, b""), ImageOptions())


def test_pixels_are_decoded_once(tmp_path: Path) -> None:
    source = PillowImage(save(tmp_path / "x.png", RGB), ImageOptions())
    first = source.read()
    (tmp_path / "x.png").unlink()
    assert np.array_equal(source.read((slice(1, 3), slice(2, 5))), first[:, 1:3, 2:5])
