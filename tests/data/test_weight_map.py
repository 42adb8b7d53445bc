"""The weight map against the formula over all pairs of pixels, and a gap worked out by hand."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from keepmap.data.weight_map import weight_map


def slow(classes: np.ndarray, objects: np.ndarray, sigma: float, w: np.ndarray) -> np.ndarray:
    """The formula as it is written: every pixel against every pixel of every object."""
    found = np.where(classes >= 0, w[classes], 1.0)
    places = [np.argwhere(objects == n) for n in np.unique(objects[objects > 0])]
    for at in np.argwhere(classes == 0):
        distances = sorted(np.sqrt(((place - at) ** 2).sum(1)).min() for place in places)
        if len(distances) > 1:
            found[tuple(at)] += 10 * math.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return found


@given(seed=st.integers(0, 10**6), numbered=st.booleans(), sigma=st.sampled_from([0.7, 1.5, 5.0]))
@settings(deadline=None, max_examples=30)
def test_equals_the_formula(seed: int, numbered: bool, sigma: float) -> None:
    """Objects of random classes anywhere, two of which may be of one class and apart; some pixels ignored."""
    random = np.random.default_rng(seed)
    classes = np.zeros(random.integers(1, 24, 2), int)
    instances = np.zeros_like(classes)
    for number in range(random.integers(0, 6)):
        y, x = random.integers(0, classes.shape)
        place = np.s_[y : y + random.integers(1, 5), x : x + random.integers(1, 5)]
        classes[place], instances[place] = random.integers(1, 3), 3 * number + 5
    classes[random.random(classes.shape) < 0.05] = -1
    regions = [ndimage.label(classes == value, np.ones((3, 3)))[0] for value in (1, 2)]
    by_class = np.where(regions[1] > 0, regions[1] + 1000, regions[0])
    w = np.array([0.5, 2.0, 3.0])
    found = weight_map(classes, instances if numbered else None, sigma=sigma, class_weights=w)
    assert found.dtype == np.float32 and found.shape == classes.shape
    np.testing.assert_allclose(found, slow(classes, instances if numbered else by_class, sigma, w), rtol=1e-5)


def test_a_gap_of_three_pixels_by_hand() -> None:
    """Distances 1 + 3, 2 + 2, 3 + 1; with the paper's numbers, and 1 for all else."""
    row = np.array([[1, 1, 0, 0, 0, 1]])
    gap = 1 + 10 * math.exp(-(4**2) / 50)
    np.testing.assert_allclose(weight_map(row), [[1, 1, gap, gap, gap, 1]], rtol=1e-6)
    assert (weight_map(np.array([[0, 1, 0, -1]])) == 1).all(), "one object has no gap"
    touching = weight_map(np.array([[1, 1]]), np.array([[1, 2]]))
    assert touching.tolist() == [[1.0, 1.0]], "there is no background between objects that touch"


    assert (weight_map(np.zeros((1, 1), np.int16)) == 1).all(), "there may be none at all"
