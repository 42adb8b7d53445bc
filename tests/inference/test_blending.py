"""Blended tiles: as the mean over the whole image says, in the memory of one row of tiles."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.geometry.tiles import cover
from keepmap.inference import blending
from keepmap.inference.blending import blend_bytes, blended, overlap_of, shares


def logits(window: tuple[slice, slice]) -> np.ndarray:
    """Other values in each tile, as a network that sees all of it gives them."""
    shape = tuple(part.stop - part.start for part in window)
    return np.random.default_rng([window[0].start, window[1].start]).normal(0, 9, (3, *shape)).astype(np.float32)


def whole(size: tuple[int, int], window: tuple[int, int], stride: int) -> np.ndarray:
    """The mean of all tiles weighted by a Gaussian around their middle, in arrays as large as the image."""
    bells = [np.exp(-(((np.arange(side) - (side - 1) / 2) / (side / 8)) ** 2) / 2) for side in window]
    weighted, weights = np.zeros((3, *size)), np.zeros(size)
    halo = overlap_of(window[0], stride), overlap_of(window[1], stride)
    for tile in cover(size, window, halo, (stride, stride)):
        rows, columns = tile.read
        bell = np.outer(bells[0][: rows.stop - rows.start], bells[1][: columns.stop - columns.start])
        weighted[:, rows, columns] += bell * logits((rows, columns))
        weights[rows, columns] += bell
    return weighted / weights


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], int]:
    stride = draw(st.sampled_from([1, 4, 8]))
    size = draw(st.integers(1, 90)), draw(st.integers(1, 60))
    sides = [min(stride * draw(st.integers(2, 9)), -(-extent // stride) * stride) for extent in size]
    return size, (sides[0], sides[1]), stride


@given(tilings(), st.data())
@settings(max_examples=60, deadline=None)
def test_the_rolling_band_is_the_mean_over_the_whole_image(tiling, data) -> None:
    size, window, stride = tiling
    halo = overlap_of(window[0], stride), overlap_of(window[1], stride)
    parts = list(blended(size, window, halo, stride, logits))
    assert [rows.start for rows, _ in parts] == [0, *(rows.stop for rows, _ in parts[:-1])]
    found = np.concatenate([part for _, part in parts], axis=1)
    want = whole(size, window, stride)
    assert found.dtype == np.float32 and found.shape == want.shape
    assert np.abs(found - want).max() <= 1e-5 * np.abs(want).max()
    begun = data.draw(st.sampled_from([rows.stop for rows, _ in parts]))
    rest = [part for _, part in blended(size, window, halo, stride, logits, begun)]
    assert np.array_equal(np.concatenate([np.zeros((3, 0, size[1])), *rest], axis=1), found[:, begun:])


def test_one_tile_is_the_image_itself_and_a_constant_stays_one(monkeypatch) -> None:
    monkeypatch.setattr(blending, "_HANDED_ON", 4 * 3 * 50 * 7)
    one = list(blended((40, 50), (40, 52), ((0, 12), (0, 16)), 4, logits))
    assert [rows.stop for rows, _ in one] == [7, 14, 21, 28, 35, 40]
    assert np.array_equal(np.concatenate([part for _, part in one], axis=1), logits((slice(0, 40), slice(0, 50))))
    flat = blended((100, 90), (32, 24), ((0, 8), (0, 8)), 8, lambda window: np.full_like(logits(window), 3.7))
    assert all(part == pytest.approx(3.7, rel=1e-6) for _, part in flat)


@pytest.mark.parametrize("window", [2, 3, 64, 5000])
def test_no_share_is_nothing(window) -> None:
    parts = [tile.read[0] for tile in cover((3 * window + 1,), (window,), (overlap_of(window, 1),), (1,))]
    found = shares(parts, window)
    assert min(share.min() for share in found) > 1e-7
    total = np.zeros(3 * window + 1)
    for part, share in zip(parts, found, strict=True):
        total[part] += share
    assert total == pytest.approx(np.ones(3 * window + 1), abs=1e-6)


def test_memory_follows_the_width_and_not_the_height(monkeypatch) -> None:
    monkeypatch.setattr(blending, "_HANDED_ON", 1 << 14)
    held = []

    def compute(window: tuple[slice, slice]) -> np.ndarray:
        return np.zeros((3, *(part.stop - part.start for part in window)), np.float32)

    for height in (64, 6400):
        tracemalloc.start()
        for _ in blended((height, 300), (64, 64), ((0, 16), (0, 16)), 16, compute):
            pass
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(held) < 2 * blend_bytes(3, (64, 64), 300)
