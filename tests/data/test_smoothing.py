"""Compressed and smoothed masks are recognised and undone; what is no damage is left alone."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keepmap.data import smoothing
from keepmap.data.drawn import draw_pair
from keepmap.data.values import COLOUR, pack_colours

VALUES = {
    "two": (0, 255, 255),
    "three": (0, 128, 255),
    "colours": ((16, 18, 24), (64, 176, 255), (255, 150, 60)),
}


def jpeg(mask: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=75)
    return np.array(Image.open(file))


def antialiased(mask: np.ndarray) -> np.ndarray:
    image = Image.fromarray(mask)
    big = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    return np.array(big.resize(image.size, Image.Resampling.BILINEAR))


def packed(mask: np.ndarray) -> np.ndarray:
    return pack_colours(mask) if mask.ndim == 3 else mask


def looks_smoothed(mask: np.ndarray) -> bool:
    counts = dict(zip(*(array.tolist() for array in np.unique(mask, return_counts=True)), strict=True))
    return smoothing.is_smoothed(counts, smoothing.solid_values(mask, counts))


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("damage", [jpeg, antialiased])
def test_damage_is_undone_but_for_a_pixel_in_a_thousand(kind: str, damage: object) -> None:
    wrong = pixels = 0
    for index in range(3):
        _, classes = draw_pair(seed=0, index=index)
        truth = np.array(VALUES[kind], np.uint8)[classes]
        colours = truth.ndim == 3
        mask = packed(damage(truth))  # type: ignore[operator]
        mains = smoothing.merge_values(smoothing.main_values(packed(truth)), colours)
        snapped = np.array(mains)[smoothing.snap(mask, mains, colours, all_pixels=True)]
        wrong += int((snapped != packed(truth)).sum())
        pixels += classes.size
    assert wrong <= pixels / 1000


def test_a_border_between_black_and_white_is_no_line_of_grey() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 255
    mask[:8, 9:11] = (120, 230)
    mask[15:, :5] = 128
    places = smoothing.snap(mask, (0, 128, 255), False, all_pixels=True)
    assert set(places[:12].ravel()) == {0, 2}
    assert (places[15:, :5] == 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6), st.booleans())
def test_what_holds_main_values_only_stays(seed: int, count: int, colours: bool) -> None:
    random = np.random.default_rng(seed)
    mains = packed(random.integers(0, 256, (1, count, 3), np.uint8)) if colours else random.integers(0, 256, (1, count))
    mains = tuple(sorted({*mains.ravel().tolist(), 0, 255}))
    mask = np.array(mains)[random.integers(0, len(mains), (9, 11))]
    places = smoothing.snap(mask, mains, colours, all_pixels=False)
    assert (np.array(mains)[places] == mask).all()


def test_damaged_masks_are_told_from_instances_and_ids() -> None:
    _, classes = draw_pair(seed=0, index=0)
    for damage in (jpeg, antialiased):
        for kind in ("three", "colours"):
            assert looks_smoothed(packed(damage(np.array(VALUES[kind], np.uint8)[classes])))
    instances = np.arange(100).reshape(10, 10).repeat(6, axis=0).repeat(6, axis=1)
    for mask in (instances, classes, classes * np.uint8(100), np.arange(900).reshape(30, 30) % 3):
        assert not looks_smoothed(mask)


def test_blocks_of_four() -> None:
    mask = np.array([[1, 1, 2], [1, 1, 3], [4, 5, 6]])
    expected = np.zeros((3, 3), bool)
    expected[:2, :2] = True
    assert (smoothing.blocks(mask) == expected).all()


def test_distances_are_those_of_the_furthest_channel() -> None:
    colours = (COLOUR | 0x100000, COLOUR | 0x0A1400)
    assert smoothing.distances(colours, (0, 255), True).tolist() == [[16, 255], [20, 255]]
    assert smoothing.merge_values({0: 5, 10: 50, 200: 4, 255: 9}, False) == (10, 200, 255)
    assert smoothing.closest((0, 40, 255), False) == 40
