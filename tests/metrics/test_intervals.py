"""Bootstrap intervals against plain draws, theory and themselves."""

from __future__ import annotations

import numpy as np
import pytest

from keepmap.metrics import intervals
from keepmap.metrics.intervals import draw, group_sums, interval, resample


def mean(sums):
    return sums["x"][:, 0] / sums["x"][:, 1]


def sums_of(values):
    return {"x": np.stack([values, np.ones(len(values))], axis=-1)}


def test_draws_are_of_whole_groups_and_the_same_for_the_same_seed(monkeypatch) -> None:
    times = np.concatenate(list(draw(7, 100)))
    assert times.shape == (100, 7) and (times.sum(axis=1) == 7).all()
    assert np.array_equal(times, np.concatenate(list(draw(7, 100))))
    assert not np.array_equal(times, np.concatenate(list(draw(7, 100, seed=1))))
    monkeypatch.setattr(intervals, "_AT_ONCE", 7 * 9)
    assert np.array_equal(times, np.concatenate(list(draw(7, 100))))


def test_sums_of_groups() -> None:
    counts = {"a": np.arange(6.0).reshape(3, 2), "b": np.array([1.0, 2, 4])}
    sums = group_sums(counts, ["y", "x", "y"])
    assert sums["a"].tolist() == [[2, 3], [4, 6]]
    assert sums["b"].tolist() == [2, 5]


def test_each_draw_is_the_score_of_the_drawn_images() -> None:
    values = np.random.default_rng(0).normal(size=12)
    times = np.concatenate(list(draw(12, 50)))
    expected = [np.repeat(values, row.astype(int)).mean() for row in times]
    assert resample(sums_of(values), mean, draws=50) == pytest.approx(expected)


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = interval(resample(sums_of(values), mean))
    error = 1.96 * values.std() / 20
    assert found == pytest.approx((values.mean() - error, values.mean() + error), abs=0.012)


def test_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = interval(resample(sums_of(random.normal(size=40)), mean, draws=300)) or (1, 0)
        covered += low <= 0 <= high
    assert 180 <= covered <= 199


def test_few_scores_that_are_not_available_are_left_out_and_many_are_not() -> None:
    scores = np.linspace(0, 1, 101)
    scores[:3] = np.nan
    assert interval(scores) == pytest.approx((0.05425, 0.97575))
    scores[:20] = np.nan
    assert interval(scores) is None
