"""The facts of a pair agree with plain numpy, and equal pixels have one digest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from keepmap.data.facts import FileFacts, bands, measure
from keepmap.data.images import open_image
from keepmap.data.pairing import Pair
from keepmap.options import ImageOptions

RNG = np.random.default_rng(0)


def facts_of(folder: Path, name: str, image: np.ndarray, mask: np.ndarray, **words: object) -> FileFacts:
    Image.fromarray(image).save(folder / name, **words)
    Image.fromarray(mask.astype(np.uint8)).save(folder / "mask.png")
    pair = Pair(name, folder / name, folder / "mask.png")
    return measure(pair, open_image(pair.image), mask.astype(np.int32), ImageOptions())


@pytest.mark.parametrize("shape", [(9, 12), (1, 1), (1, 500), (500, 1), (1500, 1100)])
@pytest.mark.parametrize("kind", ["uint8 rgb", "uint8 grey", "uint16 grey"])
def test_facts_agree_with_plain_numpy(tmp_path: Path, shape: tuple[int, int], kind: str) -> None:
    dtype, colour = kind.split()
    top = np.iinfo(dtype).max
    image = RNG.integers(0, top, (*shape, 3) if colour == "rgb" else shape, dtype=dtype, endpoint=True)
    mask = RNG.choice([0, 3, 255], shape)
    fact = facts_of(tmp_path, "x.png", image, mask)
    planes = image.reshape(*shape, -1).astype(np.float64)
    assert (fact.height, fact.width, fact.channels, fact.dtype) == (*shape, planes.shape[2], dtype)
    assert np.allclose(fact.sums, planes.sum(axis=(0, 1)), rtol=1e-12)
    assert (fact.low, fact.high) == (image.min(), image.max())
    assert np.allclose(fact.squares, (planes**2).sum(axis=(0, 1)), rtol=1e-6)
    rows = np.arange(shape[0])[:, None].repeat(shape[1], 1)
    for value in np.unique(mask).tolist():
        chosen = mask == value
        assert fact.counts[value] == chosen.sum()
        assert fact.row_centres[value] == pytest.approx((rows[chosen] + 0.5).mean() / shape[0])
        assert fact.brightness[value] == pytest.approx(planes.mean(axis=2)[chosen].mean())
    assert set(fact.counts) == set(fact.row_centres) == set(fact.brightness) == set(np.unique(mask).tolist())


def test_bands_are_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepmap.data.facts._BAND", 24)
    monkeypatch.setattr("keepmap.data.facts._ROWS", 1)
    image = RNG.integers(0, 256, (9, 12), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    parts = list(bands(open_image(tmp_path / "x.png")))
    assert [(rows.start, rows.stop) for rows, _ in parts] == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 9)]
    assert np.array_equal(np.concatenate([part[0] for _, part in parts]), image)


def test_equal_images_have_one_digest_and_plain_ones_none(tmp_path: Path) -> None:
    image, mask = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8), np.zeros((30, 40))
    one = facts_of(tmp_path, "a.png", image, mask)
    assert one.digest
    assert facts_of(tmp_path, "b.png", image, mask, compress_level=0).digest == one.digest
    assert facts_of(tmp_path, "c.png", image.reshape(40, 30, 3), mask.T).digest != one.digest
    image[3, 4, 1] ^= 1
    assert facts_of(tmp_path, "d.png", image, mask).digest != one.digest
    plain = np.full((30, 40, 3), (7, 8, 9), np.uint8)
    assert facts_of(tmp_path, "e.png", plain, mask).digest == ""


def test_an_image_of_two_colours_has_a_digest_wherever_its_bands_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((8, 12), np.uint8)
    image[4:] = 9
    assert facts_of(tmp_path, "a.png", image, np.zeros((8, 12))).digest
    monkeypatch.setattr("keepmap.data.facts._BAND", 24)
    monkeypatch.setattr("keepmap.data.facts._ROWS", 1)
    assert facts_of(tmp_path, "a.png", image, np.zeros((8, 12))).digest


def test_a_rotation_is_remembered(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.zeros((4, 6, 3), np.uint8)
    assert facts_of(tmp_path, "a.png", image, np.zeros((6, 4)), exif=exif).orientation == 6
    assert facts_of(tmp_path, "b.png", image, np.zeros((4, 6))).orientation == 1


def test_a_pair_of_which_nothing_was_measured_counts_nothing(tmp_path: Path) -> None:
    extra = [(42113, "s", 0, "7", True)]
    tifffile.imwrite(tmp_path / "x.tif", np.full((9, 12), 7, np.uint8), photometric="minisblack", extratags=extra)
    mask = RNG.choice([0, 70_000], (9, 12)).astype(np.int32)
    Image.fromarray(mask).save(tmp_path / "m.tif")
    fact = measure(Pair("x", tmp_path / "x.tif", tmp_path / "m.tif"), open_image(tmp_path / "x.tif"), mask,
                   ImageOptions())  # fmt: skip
    assert (fact.measured, fact.counts, fact.digest, fact.solid) == (0, {}, "", ())
