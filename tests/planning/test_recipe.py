"""Recipes: what they refuse, the shape of the schedules, class weights by hand and by their laws."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.config import from_dict, to_dict
from keepmap.errors import OptionError
from keepmap.planning.recipe import LossConfig, OptimiserConfig, effective_number, learning_rate, median_frequency


@pytest.mark.parametrize(
    "config",
    [LossConfig(terms={"focal": 0.5}, class_weights=(1.0, 2.0)), OptimiserConfig(optimiser="sgd", clipping=1.0)],
    ids=["loss", "optimiser"],
)
def test_a_recipe_goes_through_json_and_comes_back(config: Any) -> None:
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config))), "plan.json") == config


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (LossConfig, {"terms": {"tverski": 1.0}}, "did you mean tversky?"),
        (LossConfig, {"terms": {}}, "one of cross_entropy, dice"),
        (LossConfig, {"terms": {"dice": 0.0}}, "at least"),
        (LossConfig, {"class_weights": (0.0, 0.0)}, "must count"),
        (LossConfig, {"class_weights": (1.0, float("nan"))}, "nan cannot be"),
        (LossConfig, {"smoothing": 1.5}, "at least 0 and at most 1"),
        (LossConfig, {"border": -1.0}, "border -1"),
        (OptimiserConfig, {"optimiser": "adam"}, "did you mean adamw?"),
        (OptimiserConfig, {"schedule": "cosin"}, "did you mean cosine?"),
        (OptimiserConfig, {"averaging": 1.0}, "averaging 1"),
        (OptimiserConfig, {"clipping": 0.0}, "clipping 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind: type, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        kind(**wrong)
    assert said in str(caught.value)


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_learning_rate_rises_then_falls_to_nothing(schedule: Any) -> None:
    config = OptimiserConfig(schedule=schedule, warm_up=10)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == pytest.approx(2e-3, rel=0.1)
    assert rates.index(max(rates)) in (8, 9, 10)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[50] == pytest.approx(2e-3 * (0.5 if schedule == "cosine" else 0.5**0.9))
    assert rates[-1] < 4e-5
    assert learning_rate(0, 100, dataclasses.replace(config, warm_up=0)) == pytest.approx(2e-3)


def test_median_frequency_by_hand() -> None:
    """Class 1 only in the first image; 2 of its 10 pixels. Class 3 nowhere."""
    pixels = np.array([[8, 2, 0, 0], [5, 0, 5, 0]])
    frequency = np.array([13 / 20, 2 / 10, 5 / 10])
    assert median_frequency(pixels) == pytest.approx([*(0.5 / frequency), 1.0])


@given(st.lists(st.integers(0, 10**7), min_size=2, max_size=6), st.sampled_from([0.0, 0.9, 0.9999, 1 - 1e-9]))
@settings(deadline=None, max_examples=30)
def test_effective_numbers_lie_between_all_alike_and_inverse_counts(samples: list[int], beta: float) -> None:
    weights = np.array(effective_number(np.array(samples), beta))
    counts = np.array(samples, float)
    present = counts > 0
    assert np.isfinite(weights).all() and (weights[~present] == 1).all()
    if present.any():
        assert weights[present].mean() == pytest.approx(1.0)
        inverse = 1 / counts[present] / (1 / counts[present]).mean()
        assert weights[present].max() <= max(inverse.max(), 1.0) * (1 + 1e-6)
        order = np.argsort(counts[present])
        assert (np.diff(weights[present][order]) <= 1e-9).all()
    numbers = (1 - 0.9 ** np.array([1, 2])) / (1 - 0.9)
    assert numbers.tolist() == pytest.approx([1.0, 1.9])
    assert effective_number(np.array([1, 2]), 0.9) == pytest.approx(2 * (1 / numbers) / (1 / numbers).sum())
