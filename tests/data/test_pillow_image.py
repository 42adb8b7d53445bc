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

from keepmap.data.masks import read_mask
from keepmap.data.pillow_image import PillowImage
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Geometry

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
RGB = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
COLOUR_TYPES = ((0, 1), (2, 3), (4, 2), (6, 4))
"""Of PNG, with samples a pixel: grey, colour, grey with alpha, colour with alpha."""


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


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_png_of_any_bit_depth_and_colour_type_is_read_as_it_is_stored(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Written by hand: grey of less than 8 bits is stretched in an image and is not in a mask."""
    kinds = [(0, 1, 1), (0, 1, 2), (0, 1, 4), *((*kind, depth) for kind in COLOUR_TYPES for depth in (8, 16))]
    colour, samples, depth = data.draw(st.sampled_from(kinds))
    height, width = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    stored = random.integers(0, 2**depth, (height, width, samples), dtype=np.uint16)
    if colour >= 4:
        stored[..., -1] = 2**depth - 1
    bits = np.unpackbits(stored.astype(">u2").reshape(height, -1, 1).view(np.uint8), axis=2)[..., 16 - depth :]
    raw = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    path = png(tmp_path_factory.mktemp("depth") / "x.png", width, height, depth, colour, raw)
    pixels = stored[..., : 3 if colour in (2, 6) else 1]
    found = read(path)
    assert found.dtype == (np.uint16 if depth == 16 else np.uint8)
    assert np.array_equal(found, pixels.transpose(2, 0, 1) * (255 // (2**depth - 1) if depth < 8 else 1))
    if len(found) == 1:
        assert np.array_equal(read_mask(path), stored[..., 0])


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


@pytest.mark.parametrize("name", ["x.png", "x.apng", "x.gif", "x.webp"])
def test_an_animation_is_refused_with_its_frames_or_one_is_chosen(tmp_path: Path, name: str) -> None:
    first = np.where(RGB[..., :1] > 99, RGB[:1, :1], 255 - RGB[:1, :1])  # two colours, which a GIF holds exactly
    arrays = [first, 255 - first, first[::-1]]
    images = [Image.fromarray(array) for array in arrays]
    kind = {"format": "PNG"} if name == "x.apng" else {}
    lossless = {"lossless": True} if name == "x.webp" else {}
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], **kind, **lossless)
    with pytest.raises(DataError, match=rf"(?s){name} holds 3 frames.*--frame N with N from 0 to 2"):
        PillowImage(tmp_path / name, ImageOptions())
    for n, array in enumerate(arrays):
        assert np.array_equal(PillowImage(tmp_path / name, ImageOptions(frame=n)).read(), array.transpose(2, 0, 1))
    with pytest.raises(DataError, match="no frame 3"):
        PillowImage(tmp_path / name, ImageOptions(frame=3))


def test_a_frame_of_a_16_bit_animation_is_not_the_first_one_in_disguise(tmp_path: Path) -> None:
    plain = png(tmp_path / "16.png", 6, 4, 16, 2, (b"\0" + b"\x12\x34" * 18) * 4).read_bytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def control(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">5I2H2B", number, 6, 4, 0, 0, 1, 10, 0, 0))

    head, data, end = plain[:33], plain[33:-12], plain[-12:]
    second = chunk(b"fdAT", struct.pack(">I", 2) + data[8:-4])
    frames = chunk(b"acTL", struct.pack(">II", 2, 0)) + control(0) + data + control(1) + second
    (tmp_path / "16.png").write_bytes(head + frames + end)
    with pytest.raises(DataError, match=r"16\.png is an animation of 16 bits"):
        PillowImage(tmp_path / "16.png", ImageOptions(frame=1))


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_what_pillow_writes_without_loss_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name, modes = data.draw(st.sampled_from(
        [("x.png", ["1", "L", "P", "RGB", "I;16"]), ("x.bmp", ["1", "L", "P", "RGB"]), ("x.gif", ["L", "P"]),
         ("x.webp", ["RGB"])]
    ))  # fmt: skip
    mode = data.draw(st.sampled_from(modes))
    height, width = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (height, width), dtype=np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
    path = tmp_path_factory.mktemp("pillow") / name
    image.save(path, lossless=True) if name == "x.webp" else image.save(path)
    expected = np.array(image) if mode == "I;16" else np.array(image.convert("L" if mode in "1L" else "RGB"))
    expected = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    found = read(path)
    assert found.dtype == expected.dtype
    assert np.array_equal(*np.broadcast_arrays(found, expected))
    assert len(found) == (3 if name == "x.gif" else len(expected))
    part = PillowImage(path, ImageOptions()).read((slice(height // 2, height), slice(0, width)))
    assert np.array_equal(part, found[:, height // 2 :])


@pytest.mark.parametrize("name", ["x.webp", "x.bmp", "x.gif"])
def test_damage_in_the_other_formats_is_an_image_or_a_data_error(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    whole = (tmp_path / name).read_bytes()
    for length in range(1, len(whole), 7):
        (tmp_path / name).write_bytes(whole[:length])
        with contextlib.suppress(DataError):
            assert PillowImage(tmp_path / name, ImageOptions()).read().ndim == 3


@pytest.mark.parametrize("kind", ["VP8X", "VP8L", "VP8 "])
def test_the_size_of_a_webp_is_judged_before_its_decoder_sees_it(tmp_path: Path, kind: str) -> None:
    body = {
        "VP8X": b"\x02\0\0\0" + (15_999).to_bytes(3, "little") * 2,
        "VP8L": b"\x2f" + (15_999 | 15_999 << 14).to_bytes(4, "little") + bytes(5),
        "VP8 ": b"\0\0\0\x9d\x01\x2a" + (16_000).to_bytes(2, "little") * 2,
    }[kind]
    (tmp_path / "x.webp").write_bytes(b"RIFF\x64\0\0\0WEBP" + kind.encode() + b"\x0a\0\0\0" + body)
    with pytest.raises(DataError, match=r"(?s)x\.webp is too large.*16000 x 16000 px"):
        PillowImage(tmp_path / "x.webp", ImageOptions())


def test_the_pixel_size_is_read_where_it_is_stated(tmp_path: Path) -> None:
    for name in ("x.png", "x.bmp", "x.jpg"):
        geometry = PillowImage(save(tmp_path / name, RGB, dpi=(100, 200)), ImageOptions()).geometry
        assert geometry.unit == "inch"
        assert geometry.spacing == pytest.approx((1 / 200, 1 / 100), rel=1e-3)
    for name in ("x.webp", "x.jpg", "x.png"):
        assert PillowImage(save(tmp_path / name, RGB), ImageOptions()).geometry == Geometry()
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = PillowImage(save(tmp_path / "x.png", RGB, dpi=(100, 200), exif=exif), ImageOptions()).geometry
    assert turned.spacing == pytest.approx((1 / 100, 1 / 200), rel=1e-3)


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
