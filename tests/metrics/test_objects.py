"""Objects against labelling of the whole, loops over all pairs and MONAI, and on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from keepmap.metrics.objects import average_precision, match_objects, object_f1


def by_loops(truth, prediction, classes):
    """Counts from one labelling of each class, without bands."""
    rows = []
    around = np.ones((3,) * truth.ndim)
    for k in range(classes):
        true, n = ndimage.label(truth == k, around)
        found, m = ndimage.label((prediction == k) & (truth >= 0), around)
        hits = 0
        for i in range(1, n + 1):
            for j in range(1, m + 1):
                both, either = ((true == i) & (found == j)).sum(), ((true == i) | (found == j)).sum()
                hits += bool(both > either / 2)
        rows.append((n, m, hits))
    return rows


@given(
    seed=st.integers(0, 10**6), classes=st.integers(1, 4), share=st.floats(0, 0.5), band=st.integers(1, 60),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
@example(seed=1, classes=2, share=0.2, band=20, shape=(5, 4, 5))
def test_bands_equal_the_whole(seed, classes, share, band, shape) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(-1, classes, shape)
    prediction = np.where(random.random(shape) < share, random.integers(0, classes, shape), np.maximum(truth, 0))
    counts = match_objects(truth, prediction, classes, band=band)
    assert counts.tolist() == [list(row) for row in by_loops(truth, prediction, classes)]
    order = random.permutation(classes)
    moved = match_objects(np.where(truth < 0, -1, order[truth]), order[prediction], classes)
    assert np.array_equal(moved[order], counts)
    swapped = match_objects(np.maximum(prediction, 0), np.where(truth < 0, 0, truth), classes)
    again = match_objects(np.where(truth < 0, 0, truth), prediction, classes)
    assert np.array_equal(swapped[:, [1, 0, 2]], again)


@pytest.mark.parametrize("seed", range(3))
def test_objects_are_those_of_monai(seed) -> None:
    """Its recognition quality of panoptic segmentation is our F1."""
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    random = np.random.default_rng(seed)
    scene = ndimage.gaussian_filter(random.normal(size=(40, 50)), 1.5)
    moved = scene + 0.5 * ndimage.gaussian_filter(random.normal(size=(40, 50)), 1.5)
    truth, prediction = ((field > 0.15).astype(int) for field in (scene, moved))
    counts = match_objects(truth, prediction, 2, band=200)[1]
    numbers = [torch.from_numpy(ndimage.label(plane, np.ones((3, 3)))[0]) for plane in (prediction, truth)]
    hits, invented, missed, _ = metrics.compute_panoptic_quality(*numbers, output_confusion_matrix=True).tolist()
    assert hits > 0 and invented > 0 and missed > 0
    assert counts.tolist() == [hits + missed, hits + invented, hits]
    theirs = float(metrics.compute_panoptic_quality(*numbers, metric_name="rq", smooth_numerator=0))
    assert object_f1(counts) == pytest.approx(theirs, rel=1e-6)
    assert average_precision(counts) == pytest.approx(hits / (hits + invented + missed))


def test_a_ring_is_one_object_whatever_the_bands() -> None:
    ring = np.zeros((9, 9), int)
    ring[1:8, 1:8] = 1
    ring[3:6, 3:6] = 0
    assert match_objects(ring, ring, 2, band=9).tolist() == [[2, 2, 2], [1, 1, 1]]


def test_corners_touch() -> None:
    assert match_objects(np.eye(4, dtype=int), np.eye(4, dtype=int), 2, band=4).tolist() == [[1, 1, 1]] * 2


def test_scores_of_counts() -> None:
    counts = np.array([[4, 3, 2], [0, 0, 0], [2, 0, 0]])
    assert np.array_equal(object_f1(counts), [4 / 7, np.nan, 0], equal_nan=True)
    assert np.array_equal(average_precision(counts), [2 / 5, np.nan, 0], equal_nan=True)


def test_half_is_no_match_and_more_is_one() -> None:
    truth = np.array([[1, 1, 0, 1, 1, 1]])
    assert match_objects(truth, np.array([[1, 0, 0, 1, 1, 0]]), 2)[1].tolist() == [2, 2, 1]


def test_numbers_tell_touching_objects_apart() -> None:
    truth = np.ones((2, 6), int)
    numbers = np.array([[1, 1, 2, 2, 7, 7]] * 2)
    assert match_objects(truth, truth, 2, truth_numbers=numbers)[1].tolist() == [3, 1, 0]
    both = match_objects(truth, truth, 2, truth_numbers=numbers, prediction_numbers=numbers, band=6)
    assert both.tolist() == [[0, 0, 0], [3, 3, 3]]
    truth[:, 4:] = -1
    kept = match_objects(truth, np.ones((2, 6), int), 2, truth_numbers=numbers, prediction_numbers=numbers)
    assert kept[1].tolist() == [2, 2, 2]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_no_pixel_no_object(shape) -> None:
    assert not match_objects(np.zeros(shape, int), np.zeros(shape, int), 2).any()
