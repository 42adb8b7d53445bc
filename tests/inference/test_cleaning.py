"""Small regions and holes against labelling the whole map, whatever the bands; and maps worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from scipy import ndimage

from keepmap.inference.cleaning import small_holes, small_regions

MAPS = drawn.arrays(np.int16, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 2))
CROSS = ndimage.generate_binary_structure(2, 1)


def changed(indices: np.ndarray, changes) -> np.ndarray:
    made = indices.copy()
    for rows, where, new in changes:
        made[rows][where] = new
    return made


def by_loops(indices: np.ndarray, of: int, limit: int, holes: bool) -> np.ndarray:
    """Each region by itself: the classes on the other side of its sides, 3 for none."""
    padded = np.pad(indices, 1, constant_values=-1)
    numbers, count = ndimage.label(padded == of, CROSS if holes else np.ones((3, 3)))
    made = padded.copy()
    for region in (numbers == n for n in range(1, count + 1)):
        touched = np.zeros(4, int)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            beside = padded[np.roll(region, step, axis) & (padded != of)]
            touched += np.bincount(np.where(beside < 0, 3, beside), minlength=4)
        if holes:
            if region.sum() <= limit and (touched > 0).sum() == 1 and not touched[3]:
                made[region] = touched.argmax()
        elif region.sum() < limit and touched[:3].any():
            made[region] = touched[:3].argmax()
    return made[1:-1, 1:-1]


@given(MAPS, st.integers(0, 2), st.integers(1, 8), st.integers(1, 60))
@settings(max_examples=80, deadline=None)
def test_bands_equal_loops_over_regions(indices: np.ndarray, of: int, limit: int, band: int) -> None:
    small = changed(indices, small_regions(indices, of, 3, limit, band=band))
    assert np.array_equal(small, by_loops(indices, of, limit, False))
    filled = changed(indices, small_holes(indices, of, 3, limit, band=band))
    assert np.array_equal(filled, by_loops(indices, of, limit, True))
    again = changed(small, small_regions(small, of, 3, limit, band=band))
    assert np.array_equal(again, small)


@pytest.mark.parametrize("band", [1, 100])
def test_a_speck_goes_to_what_surrounds_it_most_and_the_rest_stays(band: int) -> None:
    indices = np.zeros((5, 6), np.int16)
    indices[:, 3:] = 2
    indices[2, 2] = 1
    indices[0, 0] = 1
    small = changed(indices, small_regions(indices, 1, 3, 2, band=band))
    assert (small != indices).sum() == 2
    assert small[2, 2] == small[0, 0] == 0
    ring = np.ones((5, 5), np.int16)
    ring[2, 1:4] = 0
    assert changed(ring, small_holes(ring, 0, 2, 2, band=band)).tolist() == ring.tolist()
    assert (changed(ring, small_holes(ring, 0, 2, 3, band=band)) == 1).all()
    ring[2, 0] = 0
    assert changed(ring, small_holes(ring, 0, 2, 9, band=band)).tolist() == ring.tolist()
