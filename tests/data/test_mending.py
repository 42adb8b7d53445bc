"""What one damaged file becomes, and what is refused because it would have to be guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from keepmap.data import pillow_image
from keepmap.data.mending import Mended, look, mend_mask, read_raw_mask
from keepmap.data.mending import mend_image as mend
from keepmap.data.settling import Key
from keepmap.data.values import COLOUR as PACKED
from keepmap.errors import DataError
from keepmap.options import ImageOptions

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)
BINARY = Key(False, (0, 255), (0, 255))
READING = ImageOptions()


def mend_image(path: Path, channels: int, dtype: str) -> Mended:
    return mend(path, channels, dtype, READING)


def saved(path: Path, pixels: np.ndarray, **words: object) -> Path:
    Image.fromarray(pixels).save(path, **words)
    return path


def test_a_sound_image_stays_as_it_is(tmp_path: Path) -> None:
    mended = mend_image(saved(tmp_path / "a.png", COLOUR), 3, "uint8")
    assert mended.pixels is None
    assert (mended.size, mended.done) == ((12, 17), ())


def test_alpha_is_laid_on_black(tmp_path: Path) -> None:
    alpha = RNG.integers(0, 256, (12, 17), dtype=np.uint8)
    mended = mend_image(saved(tmp_path / "a.png", np.dstack([COLOUR, alpha])), 3, "uint8")
    expected = np.rint(COLOUR * (alpha[..., None] / 255))
    assert mended.pixels is not None
    assert np.abs(mended.pixels - expected).max() <= 1
    assert [done[:2] for done in mended.done] == [("transparent pixels", "laid on black")]


def test_sixteen_bits_with_alpha_keep_sixteen_bits(tmp_path: Path) -> None:
    import imagecodecs

    pixels = RNG.integers(0, 65536, (12, 17, 4), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    mended = mend_image(tmp_path / "a.png", 3, "uint16").pixels
    assert mended is not None
    assert mended.dtype == np.uint16
    assert np.abs(mended - pixels[..., :3] * (pixels[..., 3:] / 65535)).max() <= 1


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    mended = mend_image(tmp_path / "a.jpg", 3, "uint8").pixels
    assert mended is not None
    assert np.abs(mended.astype(int) - COLOUR).mean() < 3


@pytest.mark.parametrize(
    ("pixels", "channels", "expected"),
    [
        (COLOUR[..., 0], 3, np.dstack([COLOUR[..., 0]] * 3)),
        (np.dstack([COLOUR[..., 0]] * 3), 1, COLOUR[..., :1]),
        (COLOUR, 1, np.asarray(Image.fromarray(COLOUR).convert("L"))[..., None]),
    ],
)
def test_grey_and_colour_as_the_others_have_it(
    tmp_path: Path, pixels: np.ndarray, channels: int, expected: np.ndarray
) -> None:
    mended = mend_image(saved(tmp_path / "a.png", pixels), channels, "uint8").pixels
    assert mended is not None
    assert np.abs(mended.astype(int) - expected).max() <= 1


def test_bits_are_cut_only_where_they_are_empty(tmp_path: Path) -> None:
    small, large = (saved(tmp_path / f"{n}.png", (COLOUR[..., 0].astype(np.uint16) * n)) for n in (1, 9))
    mended = mend_image(small, 1, "uint8").pixels
    assert mended is not None
    assert (mended[..., 0] == COLOUR[..., 0]).all()
    with pytest.raises(DataError, match="cannot be repaired"):
        mend_image(large, 1, "uint8")
    with pytest.raises(DataError, match="cannot be repaired"):
        mend_image(saved(tmp_path / "x.png", COLOUR), 3, "uint16")


def test_a_tiff_of_another_name_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.png", COLOUR, photometric="rgb")
    mended = mend_image(tmp_path / "a.png", 3, "uint8").pixels
    assert (mended == COLOUR).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_and_mask_are_turned_alike(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = (COLOUR[..., 0] > 99).astype(np.uint8) * 255
    image = mend_image(saved(tmp_path / "a.png", np.dstack([mask] * 3), exif=exif), 3, "uint8")
    mended = mend_mask(saved(tmp_path / "m.png", mask), BINARY, image.size, orientation, READING)
    if orientation >= 5:
        assert image.pixels is not None
        assert (mended.pixels == image.pixels[..., 0]).all()
    else:
        assert mended.pixels is None


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be repaired") as caught:
        mend_mask(saved(tmp_path / "m.png", np.zeros((5, 9), np.uint8)), BINARY, (9, 5), 1, READING)
    assert (caught.value.found, caught.value.expected) == ("9 x 5 px", "5 x 9 px, as its image")


def test_areas_of_a_strange_value_are_refused_and_specks_are_snapped(tmp_path: Path) -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 255
    mask[5, 15] = 7
    mended = mend_mask(saved(tmp_path / "a.png", mask), BINARY, (20, 20), 1, READING)
    assert [(problem, pixels) for problem, _, pixels in mended.done] == [("stray values: 7", 1)]
    mask[3:9, 3:9] = 7
    with pytest.raises(DataError, match="cannot be repaired") as caught:
        mend_mask(saved(tmp_path / "b.png", mask), BINARY, (20, 20), 1, READING)
    assert caught.value.found == "areas of 7"


def test_compressed_ids_are_refused(tmp_path: Path) -> None:
    mask = np.kron(RNG.integers(0, 3, (4, 4)), np.ones((8, 8))).astype(np.uint8)
    mask[0, 0] = 9
    path = saved(tmp_path / "a.jpg", mask, quality=50)
    with pytest.raises(DataError, match="cannot be repaired") as caught:
        mend_mask(path, Key(False, (0, 1, 2), (0, 1, 2)), (32, 32), 1, READING)
    assert "further apart" in caught.value.expected


def test_colours_become_ids(tmp_path: Path) -> None:
    ids = np.kron(RNG.integers(0, 3, (4, 4)), np.ones((8, 8))).astype(int)
    colours = np.array([(0, 0, 0), (0, 90, 255), (255, 0, 0)], np.uint8)[ids]
    key = Key(True, (0, PACKED | 0x005AFF, PACKED | 0xFF0000), (0, 1, 2))
    mended = mend_mask(saved(tmp_path / "a.png", colours), key, (32, 32), 1, READING)
    assert (mended.pixels == ids).all()
    assert not look(tmp_path / "a.png", READING).lossy
    with pytest.raises(DataError, match="cannot be repaired") as caught:
        mend_mask(saved(tmp_path / "b.png", ids.astype(np.uint8)), key, (32, 32), 1, READING)
    assert caught.value.found == "numbers"


def test_grey_jpegs_in_colour_are_grey(tmp_path: Path) -> None:
    mask = np.kron(RNG.integers(0, 2, (4, 4)), np.ones((8, 8))).astype(np.uint8) * 255
    raw = read_raw_mask(saved(tmp_path / "a.jpg", np.dstack([mask] * 3)))
    assert (raw.lossy, raw.rgb) == (True, False)
    assert raw.values.max() < 256


def test_a_transparent_mask_is_refused(tmp_path: Path) -> None:
    alpha = np.full((12, 17), 200, np.uint8)
    with pytest.raises(DataError, match="transparent"):
        read_raw_mask(saved(tmp_path / "a.png", np.dstack([COLOUR, alpha])))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("words", [{}, {"compress_level": 0}, {"optimize": True}])
def test_both_decoders_of_png_agree(tmp_path: Path, mode: str, words: dict[str, object]) -> None:
    Image.fromarray(COLOUR).convert(mode).save(tmp_path / "a.png", **words)
    with pillow_image.opened(tmp_path / "a.png") as file:
        expected = np.array(file.image).reshape(12, 17, -1)
    assert (pillow_image.decode_png(tmp_path / "a.png").reshape(12, 17, -1) == expected).all()
