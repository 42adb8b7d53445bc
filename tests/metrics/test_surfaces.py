"""Distances of outlines against all pairs of pixels, distance transforms and MONAI, and on shapes drawn by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from keepmap.metrics.surfaces import (
    ClassDistances,
    boundary_f,
    boundary_tolerance,
    hausdorff95,
    near_counts,
    outline,
    outline_distances,
    streamed_counts,
    surface_dice,
    surface_distance,
)

ANY = {
    "seed": st.integers(0, 10**6),
    "classes": st.integers(1, 4),
    "shape": st.tuples(st.integers(1, 14), st.integers(1, 14)),
}


def draw_pair(seed: int, classes: int, shape: tuple[int, ...], ignored: float = 0.1):
    """Patchy truth and prediction; some pixels are ignored."""
    random = np.random.default_rng(seed)
    planes = [ndimage.median_filter(random.integers(0, classes, shape), 3) for _ in range(2)]
    planes[0][random.random(shape) < ignored] = -1
    return planes[0], planes[1]


def line_of(classes, k):
    """The outline by its definition, pixel by pixel."""
    points = []
    for place in np.ndindex(*classes.shape):
        if classes[place] != k:
            continue
        for axis in range(classes.ndim):
            for step in (-1, 1):
                near = list(place)
                near[axis] += step
                inside = 0 <= near[axis] < classes.shape[axis]
                if inside and classes[tuple(near)] >= 0 and classes[tuple(near)] != k and place not in points:
                    points.append(place)
    return points


def ways_of(points, others):
    return [min((math.dist(a, b) for b in others), default=math.inf) for a in points]


@given(**ANY, tolerance=st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.6]), block=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
@example(seed=0, classes=3, shape=(3, 4, 5), tolerance=1.5, block=2)
def test_distances_equal_all_pairs_and_blocks_equal_the_whole(seed, classes, shape, tolerance, block) -> None:
    truth, prediction = draw_pair(seed, classes, shape)
    found = outline_distances(truth, prediction, classes)
    seen = np.where(truth < 0, -1, prediction)
    for k, pair in enumerate(found):
        lines = line_of(truth, k), line_of(seen, k)
        assert sorted(pair.from_truth) == pytest.approx(sorted(ways_of(*lines)))
        assert sorted(pair.from_prediction) == pytest.approx(sorted(ways_of(*lines[::-1])))
    counts = near_counts(found, tolerance)
    streamed = streamed_counts(truth, prediction, classes, [tolerance, 2.0], block)
    assert np.array_equal(streamed[0], counts)
    assert np.array_equal(streamed[1], near_counts(found, 2.0))


@given(**ANY)
@settings(max_examples=20, deadline=None)
def test_properties(seed, classes, shape) -> None:
    """What is predicted at ignored pixels changes nothing, classes may change places, and so may the two maps."""
    truth, prediction = draw_pair(seed, classes, shape)
    counts = near_counts(outline_distances(truth, prediction, classes), 1.0)
    other = np.where(truth < 0, (prediction + 1) % classes, prediction)
    assert np.array_equal(near_counts(outline_distances(truth, other, classes), 1.0), counts)
    order = np.random.default_rng(seed).permutation(classes)
    moved = near_counts(outline_distances(np.where(truth < 0, -1, order[truth]), order[prediction], classes), 1.0)
    assert np.array_equal(moved[order], counts)
    truth = np.maximum(truth, 0)
    there, back = (outline_distances(*pair, classes) for pair in ((truth, prediction), (prediction, truth)))
    for a, b in zip(there, back, strict=True):
        for measure in (hausdorff95, surface_distance):
            assert measure(a) == pytest.approx(measure(b), nan_ok=True)
    for measure in (boundary_f, surface_dice):
        assert np.array_equal(measure(near_counts(there, 1.0)), measure(near_counts(back, 1.0)), equal_nan=True)


def test_distances_equal_those_of_distance_transforms() -> None:
    truth, prediction = draw_pair(3, 3, (40, 50), ignored=0)
    spacing = (2.0, 0.5)
    for k, pair in enumerate(outline_distances(truth, prediction, 3, spacing)):
        lines = [outline(plane) & (plane == k) for plane in (truth, prediction)]
        away = [ndimage.distance_transform_edt(~line, sampling=spacing) for line in lines]
        ways = away[1][lines[0]], away[0][lines[1]]
        assert hausdorff95(pair) == pytest.approx(max(np.percentile(way, 95) for way in ways))
        assert surface_distance(pair) == pytest.approx(np.concatenate(ways).mean())


@pytest.mark.filterwarnings("ignore:monai.metrics:FutureWarning")
@pytest.mark.parametrize("spacing", [None, (2.0, 0.5)])
def test_surface_numbers_are_those_of_monai(spacing) -> None:
    """In a frame of a class of its own: MONAI takes the border of an image for an outline."""
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    truth, prediction = (np.pad(plane, 1, constant_values=3) for plane in draw_pair(5, 3, (24, 31), ignored=0))
    found = outline_distances(truth, prediction, 4, spacing)
    ours = [[measure(pair) for pair in found] for measure in (hausdorff95, surface_distance)]
    ours.append(surface_dice(near_counts(found, 1.5)))
    masks = [torch.from_numpy(plane == np.arange(4)[:, None, None])[None].float() for plane in (prediction, truth)]
    options = {"include_background": True, "spacing": spacing}
    theirs = (
        metrics.compute_hausdorff_distance(*masks, percentile=95, **options),
        metrics.compute_average_surface_distance(*masks, symmetric=True, **options),
        metrics.compute_surface_dice(*masks, class_thresholds=[1.5] * 4, **options),
    )
    assert np.array(ours)[:, :3] == pytest.approx(np.concatenate(theirs)[:, :3], rel=1e-5)


def test_a_square_that_moved() -> None:
    truth, prediction = np.zeros((2, 20, 20), np.int8)
    truth[5:9, 5:9] = prediction[5:9, 7:11] = 1
    distances = outline_distances(truth, prediction, 2)[1]
    assert sorted(distances.from_truth) == [0] * 4 + [1] * 4 + [2] * 4
    assert (hausdorff95(distances), surface_distance(distances)) == (2, 1)
    counts = near_counts([distances], 1.0)
    assert counts.tolist() == [[12, 8, 12, 8]]
    assert boundary_f(counts) == surface_dice(counts) == [pytest.approx(2 / 3)]


def test_a_square_that_moved_over_long_pixels() -> None:
    """Rows are 0.5 apart, columns 3: inside the other square the nearest outline is above or below."""
    truth, prediction = np.zeros((2, 20, 20), np.int8)
    truth[5:9, 5:9] = prediction[5:9, 7:11] = 1
    distances = outline_distances(truth, prediction, 2, (0.5, 3.0))[1]
    assert sorted(distances.from_truth) == [0] * 4 + [0.5] * 2 + [3] * 2 + [6] * 4
    assert surface_distance(distances) == pytest.approx(31 / 12)
    assert hausdorff95(distances) == 6


def test_the_percentile_is_linear_between_ranks_and_of_each_way_alone() -> None:
    assert hausdorff95(ClassDistances(np.array([0.0, 9.0]), np.arange(11.0))) == pytest.approx(9.5)
    assert hausdorff95(ClassDistances(np.arange(11.0), np.zeros(99))) == pytest.approx(9.5)
    assert hausdorff95(ClassDistances(np.array([0.0, 1.0, 4.0]), np.zeros(3))) == pytest.approx(1 + 0.9 * 3)


def test_f_is_harmonic_and_surface_dice_is_pooled() -> None:
    counts = np.array([[10, 10, 30, 15]])
    assert boundary_f(counts) == [pytest.approx(2 * 1 * 0.5 / 1.5)]
    assert surface_dice(counts) == [pytest.approx(25 / 40)]


def test_absent_classes_are_not_available_and_missed_ones_are_zero() -> None:
    truth, prediction = np.zeros((2, 6, 6), int)
    truth[2:4, 2:4] = 1
    found = outline_distances(truth, prediction, 3)
    counts = near_counts(found, 1.0)
    assert np.array_equal(boundary_f(counts), [0, 0, np.nan], equal_nan=True)
    assert np.array_equal(surface_dice(counts), [0, 0, np.nan], equal_nan=True)
    assert np.isnan([hausdorff95(pair) for pair in found]).all()
    assert np.isnan([surface_distance(pair) for pair in found]).all()


def test_borders_of_the_image_and_of_what_is_ignored_are_no_outlines() -> None:
    classes = np.zeros((5, 6), int)
    assert not outline(classes).any()
    classes[:, 2] = -1
    classes[:, 3:] = 1
    assert not outline(classes).any()


def test_tolerance_is_a_share_of_the_diagonal_and_a_pixel_at_least() -> None:
    assert boundary_tolerance((300, 400)) == pytest.approx(3.75)
    assert boundary_tolerance((30, 40)) == 1
