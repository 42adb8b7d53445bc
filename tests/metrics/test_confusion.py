"""Scores against plain loops over pixels and classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.config import from_dict, to_dict
from keepmap.metrics import confusion
from keepmap.metrics.confusion import ConfusionMatrix, Scores


def by_loops(pairs, classes):
    """Per class (iou, dice, precision, recall), mean IoU and accuracy, written without a confusion matrix."""
    rows = []
    truth = np.concatenate([t[t >= 0].ravel() for t, _ in pairs])
    prediction = np.concatenate([p[t >= 0].ravel() for t, p in pairs])
    for k in range(classes):
        both = int(np.logical_and(truth == k, prediction == k).sum())
        either = int(np.logical_or(truth == k, prediction == k).sum())
        in_truth, in_prediction = int((truth == k).sum()), int((prediction == k).sum())
        rows.append((
            both / either if either else None,
            2 * both / (in_truth + in_prediction) if in_truth + in_prediction else None,
            both / in_prediction if in_prediction else None,
            both / in_truth if in_truth else None,
        ))
    known = [row[0] for row in rows if row[0] is not None]
    mean = sum(known) / len(known) if known else None
    accuracy = float((truth == prediction).mean()) if truth.size else None
    return rows, mean, accuracy


@given(
    seed=st.integers(0, 10**6), classes=st.integers(1, 6), images=st.integers(1, 3),
    truth_type=st.sampled_from(["int8", "int16", "int64"]), type_=st.sampled_from(["uint8", "int16", "int64"]),
)
@settings(max_examples=60, deadline=None)
def test_scores_equal_plain_loops(seed, classes, images, truth_type, type_) -> None:
    random = np.random.default_rng(seed)
    used = random.permutation(classes)[: random.integers(1, classes + 1)]
    pairs = []
    matrix = ConfusionMatrix(classes)
    for _ in range(images):
        shape = tuple(random.integers(1, 20, 2))
        truth = random.choice([-1, -2, *used], shape).astype(truth_type)
        prediction = random.choice(used, shape).astype(type_)
        pairs.append((truth, prediction))
        matrix.add(truth, prediction)
    scores = matrix.scores()
    rows, mean, accuracy = by_loops(pairs, classes)
    assert [(c.iou, c.dice, c.precision, c.recall) for c in scores.classes] == [pytest.approx(row) for row in rows]
    assert scores.mean_iou == pytest.approx(mean)
    assert scores.pixel_accuracy == pytest.approx(accuracy)


def test_counting_in_bands_changes_nothing(monkeypatch) -> None:
    random = np.random.default_rng(1)
    truth, prediction = random.integers(-1, 3, (37, 41)), random.integers(0, 3, (37, 41))
    whole, parts = ConfusionMatrix(3), ConfusionMatrix(3)
    whole.add(truth, prediction)
    monkeypatch.setattr(confusion, "_BAND", 100)
    parts.add(truth, prediction)
    assert np.array_equal(whole.matrix, parts.matrix)
    assert whole.matrix[2, 1] == ((truth == 2) & (prediction == 1)).sum()


def test_scores_are_over_all_pixels_not_over_images() -> None:
    large, small = ConfusionMatrix(2), ConfusionMatrix(2)
    large.add(np.ones((10, 10), int), np.ones((10, 10), int))
    small.add(np.ones((1, 1), int), np.zeros((1, 1), int))
    both = ConfusionMatrix(2)
    both.add(np.ones((10, 10), int), np.ones((10, 10), int))
    both.add(np.ones((1, 1), int), np.zeros((1, 1), int))
    mean_of_images = (large.scores()["1"].iou + small.scores()["1"].iou) / 2
    assert both.scores()["1"].iou == pytest.approx(100 / 101)
    assert mean_of_images == 0.5


def test_worked_out_by_hand() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.array([0, 0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 0, 0, 0]))
    ground, tree = matrix.scores().classes
    assert (ground.iou, ground.dice, ground.precision, ground.recall) == pytest.approx((3 / 7, 6 / 10, 1 / 2, 3 / 4))
    assert (tree.iou, tree.dice, tree.precision, tree.recall) == pytest.approx((2 / 6, 4 / 8, 2 / 3, 2 / 5))
    scores = matrix.scores()
    assert (scores.pixel_accuracy, scores.mean_iou) == pytest.approx((5 / 9, 8 / 21))
    assert scores.frequency_weighted_iou == pytest.approx((4 * 3 / 7 + 5 / 3) / 9)


def test_absent_classes_are_not_available_and_leave_the_mean_alone() -> None:
    matrix = ConfusionMatrix(4)
    matrix.add(np.array([0, 0, 1, -1]), np.array([0, 0, 3, 2]))
    scores = matrix.scores(["ground", "tree", "car", "pole"])
    assert scores["car"].iou is scores["car"].dice is scores["car"].precision is scores["car"].recall is None
    assert (scores["tree"].iou, scores["tree"].precision, scores["tree"].recall) == (0, None, 0)
    assert (scores["pole"].iou, scores["pole"].precision, scores["pole"].recall) == (0, 0, None)
    assert scores.mean_iou == pytest.approx(1 / 3)
    assert scores["ground"].pixels == 2
    with pytest.raises(KeyError, match="ground, tree, car, pole"):
        scores["cat"]


def test_all_ignored_is_not_available_everywhere() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.full((3, 3), -1), np.full((3, 3), -1))
    matrix.add(np.zeros((0, 4), int), np.zeros((0, 4), int))
    scores = matrix.scores()
    assert scores.mean_iou is scores.mean_dice is scores.pixel_accuracy is None


def test_what_is_predicted_at_ignored_pixels_does_not_matter() -> None:
    truth, prediction = np.array([0, 1, -1, -1]), np.array([0, 1, 1, 0])
    one, other = ConfusionMatrix(2), ConfusionMatrix(2)
    one.add(truth, prediction)
    other.add(np.array([0, 1, -2, -65_536]), np.array([0, 1, 0, -65_536]))
    assert one.scores() == other.scores()
    assert one.scores().mean_iou == 1


def test_scores_survive_json() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 1, 1]), np.array([0, 1, 0]))
    scores = matrix.scores(["a", "b", "c"])
    text = json.dumps(to_dict(scores), allow_nan=False)
    assert from_dict(Scores, json.loads(text), "scores") == scores
    assert scores.matrix == ((1, 0, 0), (1, 1, 0), (0, 0, 0))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), r"\(2, 2\).*\(2, 3\)"),
        (np.array([3]), np.array([0]), "index 3 of 3"),
        (np.array([0]), np.array([7]), "index 7 of 3"),
        (np.array([0]), np.array([-1]), "negative"),
    ],
)
def test_impossible_indices_are_refused_and_leave_the_counts_alone(truth, prediction, message) -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        matrix.add(truth, prediction)
    assert matrix.matrix.sum() == 0
