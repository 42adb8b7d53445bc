"""Calibration against scikit-learn, MONAI, scipy's minimiser and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss

from keepmap.metrics.calibration import (
    BINS,
    TEMPERATURES,
    Calibration,
    calibration_error,
    expected_dice,
    fit_temperature,
    rank_correlation,
    tempered,
)


def draw(seed: int, classes: int = 3, shape: tuple[int, int] = (11, 13), sharpness: float = 2.0):
    random = np.random.default_rng(seed)
    logits = random.normal(scale=sharpness, size=(classes, *shape))
    return softmax(logits, axis=0).astype(np.float32), random.integers(-1, classes, shape)


def count(probabilities, truth) -> Calibration:
    calibration = Calibration(len(probabilities))
    calibration.add(probabilities, truth)
    return calibration


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5))
@settings(max_examples=25, deadline=None)
def test_errors_equal_loops_and_parts_equal_the_whole(seed, classes) -> None:
    probabilities, truth = draw(seed, classes)
    whole, parts = count(probabilities, truth), Calibration(classes)
    for rows in (slice(0, 4), slice(4, 11)):
        parts.add(probabilities[:, rows], truth[rows])
    for name in ("bins", "brier", "expected"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))
    known = truth >= 0
    winner, confidence = probabilities.argmax(0)[known], probabilities.max(0)[known]
    error = 0.0
    for place in range(BINS):
        inside = (confidence >= place / BINS) & (confidence < (place + 1) / BINS + (place == BINS - 1))
        if inside.any():
            error += abs((winner == truth[known])[inside].mean() - confidence[inside].mean()) * inside.mean()
    assert calibration_error(whole.bins) == pytest.approx(error, abs=1e-6)


def test_brier_score_is_that_of_scikit_learn() -> None:
    probabilities, truth = draw(5, 4)
    known = truth >= 0
    total, pixels = count(probabilities, truth).brier
    expected = brier_score_loss(
        truth[known], probabilities[:, known].T, labels=[0, 1, 2, 3], scale_by_half=False
    )  # fmt: skip
    assert total / pixels == pytest.approx(expected, rel=1e-5)


def test_bins_and_their_error_are_those_of_monai() -> None:
    """Its bins of one channel that holds the winner's probability, against whether the winner is right."""
    metrics, torch = pytest.importorskip("monai.metrics"), pytest.importorskip("torch")
    probabilities, truth = draw(7, 4, (30, 40))
    bins = count(probabilities, truth).bins
    known = truth >= 0
    confidence, right = probabilities.max(0)[known], probabilities.argmax(0)[known] == truth[known]
    planes = (torch.from_numpy(values.astype(np.float32))[None, None] for values in (confidence, right))
    means, shares, pixels = (part.numpy()[0, 0] for part in metrics.calibration_binning(*planes, num_bins=BINS))
    assert bins[:, 0] == pytest.approx(pixels)
    used = pixels > 0
    assert bins[used, 1] / pixels[used] == pytest.approx(means[used], rel=1e-5)
    assert bins[used, 2] / pixels[used] == pytest.approx(shares[used], rel=1e-5)
    error = (np.abs(means - shares) * pixels)[used].sum() / pixels.sum()
    assert calibration_error(bins) == pytest.approx(error, rel=1e-4)


def test_ignored_pixels_change_nothing() -> None:
    probabilities, truth = draw(1)
    other = np.where(truth < 0, probabilities[::-1], probabilities)
    one, two = count(probabilities, truth), count(other, truth)
    assert np.array_equal(one.bins, two.bins) and np.array_equal(one.brier, two.brier)
    nothing = count(probabilities, np.full_like(truth, -1))
    assert np.isnan(calibration_error(nothing.bins)) and nothing.brier.tolist() == [0, 0]


def test_worked_out_by_hand() -> None:
    probabilities = np.array([[0.9, 0.6], [0.1, 0.4]])[:, np.newaxis]
    calibration = count(probabilities, np.array([[0, 1]]))
    assert calibration_error(calibration.bins) == pytest.approx((0.1 + 0.6) / 2)
    assert calibration.brier == pytest.approx([0.01 + 0.01 + 0.36 + 0.36, 2])
    assert expected_dice(calibration.expected) == pytest.approx(2 * 1.5 / (2 + 1.5))


def test_certain_probabilities_expect_a_dice_of_one_and_none_expects_none() -> None:
    certain = np.eye(3)[:, [0, 1, 1, 2]][:, np.newaxis]
    assert expected_dice(count(certain, np.full((1, 4), -1)).expected) == 1
    assert expected_dice(np.zeros((3, 3))) is None


@given(seed=st.integers(0, 10**6), factor=st.floats(0.4, 3))
@settings(max_examples=15, deadline=None)
def test_temperature_is_where_the_likelihood_is_highest(seed, factor) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(400, 3))
    truth = np.array([random.choice(3, p=row) for row in softmax(logits, axis=1)])
    truth[:10] = -1

    def loss(log_temperature: float) -> float:
        values = log_softmax(factor * logits[10:] / np.exp(log_temperature), axis=1)
        return -float(values[np.arange(390), truth[10:]].mean())

    best = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-8})
    temperature = fit_temperature(factor * logits, truth)
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-4)
    shifted = fit_temperature(log_softmax(factor * logits, axis=1), truth)
    assert shifted == pytest.approx(temperature, rel=1e-6)


def test_temperature_has_ends() -> None:
    logits = np.array([[3.0, 0.0]] * 4)
    assert fit_temperature(logits, np.zeros(4, int)) == TEMPERATURES[0]
    assert fit_temperature(logits, np.ones(4, int)) == TEMPERATURES[1]
    with pytest.raises(ValueError, match="not ignored"):
        fit_temperature(logits, np.full(4, -1))


def test_tempered_probabilities_are_those_of_divided_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert tempered(softmax(logits, axis=0), 2.5) == pytest.approx(softmax(logits / 2.5, axis=0))
    assert tempered(np.array([1.0, 0.0]), 2.0).sum() == pytest.approx(1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
@settings(max_examples=40, deadline=None)
def test_rank_correlation_is_that_of_scipy(pairs) -> None:
    first, second = zip(*pairs, strict=True)
    found = rank_correlation([*first, None], [*second, 1])
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(first, second).statistic)
    assert rank_correlation(first[:2], second[:2]) is None
