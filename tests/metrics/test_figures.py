"""Numbers of counts against scikit-learn, and against themselves one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from keepmap.metrics import figures
from keepmap.metrics.figures import DATA_SET, IMAGE


def region_of(truth, prediction, classes):
    kept = truth >= 0
    matrix = metrics.confusion_matrix(truth[kept], prediction[kept], labels=range(classes))
    return np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)], axis=-1).astype(float)


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_region_numbers_are_those_of_scikit_learn(seed, classes) -> None:
    random = np.random.default_rng(seed)
    truth, prediction = random.integers(0, classes, 80), random.integers(0, classes, 80)
    region, labels = region_of(truth, prediction, classes), list(range(classes))
    of_each = {"average": None, "labels": labels}
    assert figures.iou(region) == pytest.approx(metrics.jaccard_score(truth, prediction, **of_each))
    assert figures.dice(region) == pytest.approx(metrics.f1_score(truth, prediction, **of_each))
    for number in ("precision", "recall"):
        theirs = getattr(metrics, f"{number}_score")(truth, prediction, **of_each, zero_division=np.nan)
        assert getattr(figures, number)(region) == pytest.approx(theirs, nan_ok=True)
    weighted = metrics.jaccard_score(truth, prediction, average="weighted", labels=labels)
    assert figures.frequency_weighted_iou(region) == pytest.approx(weighted)
    assert figures.pixel_accuracy(region) == pytest.approx(metrics.accuracy_score(truth, prediction))


def test_absent_is_not_available_and_leaves_means_alone() -> None:
    region = np.array([[2.0, 2, 3], [0, 1, 0], [0, 0, 0]])
    assert np.array_equal(figures.iou(region), [2 / 3, 0, np.nan], equal_nan=True)
    assert figures.mean_known(figures.iou(region)) == pytest.approx(1 / 3)
    assert figures.frequency_weighted_iou(region) == pytest.approx(2 / 3 * 2 / 3)
    assert np.array_equal(figures.precision(region), [2 / 3, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(figures.recall(region), [1, 0, np.nan], equal_nan=True)
    nothing = np.zeros((3, 3))
    for number in (figures.mean_known(figures.dice(nothing)), figures.pixel_accuracy(nothing)):
        assert np.isnan(number)


def test_precision_and_recall_worked_out_by_hand() -> None:
    """A class with 4 true pixels, 5 predicted ones and 3 hits; another with 6, 5 and 4."""
    region = np.array([[3.0, 4, 5], [4, 6, 5]])
    assert figures.precision(region) == pytest.approx([0.6, 0.8])
    assert figures.recall(region) == pytest.approx([0.75, 2 / 3])
    assert figures.mean_known(figures.recall(region)) == pytest.approx(17 / 24)


def test_error_of_the_count_is_not_available_without_objects() -> None:
    counts = np.array([[3.0, 5, 2], [5, 3, 0], [0, 0, 0]])
    assert np.array_equal(figures.count_error(counts), [2, 2, np.nan], equal_nan=True)


def test_every_number_of_a_data_set_and_of_images() -> None:
    random = np.random.default_rng(0)
    counts = {
        "region": np.sort(random.integers(0, 50, (6, 3, 3)), axis=-1).astype(float),
        "boundary": np.sort(random.integers(1, 9, (6, 3, 4)), axis=-1)[..., [1, 0, 3, 2]].astype(float),
        "distances": np.where(random.random((6, 3, 2)) < 0.3, np.nan, 2.5),
    }
    numbers = figures.columns(counts)
    sums = figures.with_values(counts, numbers)
    assert set(sums) == {"region", "boundary"} | {number.key for number in numbers if number.of == IMAGE}
    whole = {name: values.sum(axis=0, keepdims=True) for name, values in sums.items()}
    found = figures.statistic(numbers)(whole)
    assert found.shape == (1, len(numbers) + 3)
    for number, value in zip(numbers, found[0], strict=False):
        own = number.values[~np.isnan(number.values)]
        together = number.spec.score(counts[number.spec.family].sum(axis=0)) if number.of == DATA_SET else own.mean()
        assert value == pytest.approx(together), number.key
    assert {number.spec.name for number in numbers} == {s.name for s in figures.SPECS if s.family in counts}
