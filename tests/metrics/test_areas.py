"""Areas and objects against labelling of the whole map, and on a map worked out by hand."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from scipy import ndimage

from keepmap.metrics.areas import ClassArea, class_areas

MAPS = drawn.arrays(np.int16, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 2))


@given(MAPS, st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_bands_equal_labelling_the_whole(indices: np.ndarray, band: int) -> None:
    for k, found in enumerate(class_areas(indices, 3, band=band)):
        numbers, count = ndimage.label(indices == k, np.ones((3, 3)))
        sizes = np.bincount(numbers.ravel())[1:]
        assert (found.pixels, found.objects) == (sizes.sum(), count)
        if count:
            figures = sizes.min(), np.median(sizes), sizes.mean(), sizes.max()
            assert (found.smallest, found.median, found.mean, found.largest) == figures
            assert found.percent == 100 * sizes.sum() / (indices >= 0).sum()


def test_a_class_that_is_absent_has_no_sizes() -> None:
    one, two = class_areas(np.array([[0, 0, -1], [-1, -1, 0]], np.int16), 2)
    assert one == ClassArea(3, 100.0, 1, 3.0, 3.0, 3.0, 3.0)
    assert (two.pixels, two.percent, two.objects) == (0, 0.0, 0)
    assert math.isnan(two.mean)
    assert math.isnan(class_areas(np.full((1, 1), -1, np.int16), 1)[0].percent)
