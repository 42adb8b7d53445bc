"""Sampling is a function of (seed, step, i): every image once an epoch, a stated share around a class, and no state."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.sampling import Sampler, area_weights, rare_first

small = st.integers(1, 20)


@given(images=small, batch=small, seed=st.integers(0, 3), epoch=st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_every_image_is_drawn_once_an_epoch(images: int, batch: int, seed: int, epoch: int) -> None:
    sampler = Sampler(images, batch, seed)
    places = range(epoch * images, (epoch + 1) * images)
    assert sorted(sampler.image(*divmod(place, batch)) for place in places) == list(range(images))


def test_the_order_differs_between_epochs_and_seeds() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [Sampler(50, 1, seed).image(epoch * 50 + i, 0) for i in range(50)]

    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) == order(0, 0)


def test_the_random_numbers_depend_on_seed_step_and_place_only() -> None:
    sampler = Sampler(10, 4, 7)
    draws = {(s, i): sampler.generator(s, i).random() for s in range(5) for i in range(4)}
    assert len(set(draws.values())) == 20
    assert draws[3, 2] == Sampler(99, 4, 7).generator(3, 2).random()
    assert draws[3, 2] != Sampler(10, 4, 8).generator(3, 2).random()


# Images by their area.


@given(
    sides=st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=2, max_size=30),
    power=st.floats(0, 1), batch=small, seed=st.integers(0, 3),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_an_image_comes_as_often_as_its_area_to_the_power_says(
    sides: list[tuple[int, int]], power: float, batch: int, seed: int
) -> None:
    facts = [SimpleNamespace(height=height, width=width) for height, width in sides]
    weights = area_weights(facts, power)  # type: ignore[arg-type]
    areas = np.prod(np.array(sides, float), axis=1) ** power
    expected = areas / areas.mean()
    np.testing.assert_allclose(weights or [1] * len(sides), expected, rtol=1e-12)
    sampler = Sampler(len(sides), batch, seed, weights=weights)
    for epoch in range(4):
        places = range(epoch * len(sides), (epoch + 1) * len(sides))
        count = Counter(sampler.image(*divmod(place, batch)) for place in places)
        assert all(abs(count[image] - times) < 1 + 1e-9 for image, times in enumerate(expected))


def test_on_average_a_small_image_comes_too_and_nothing_in_the_order_follows_from_the_area() -> None:
    sampler = Sampler(4, 1, 0, weights=(0.1, 0.4, 0.5, 3.0))
    drawn = np.array([sampler.image(step, 0) for step in range(4 * 2000)])
    np.testing.assert_allclose(np.bincount(drawn) / 2000, sampler.weights or (), atol=0.04)
    first = np.bincount(drawn[::4], minlength=4) / 2000
    np.testing.assert_allclose(first, np.array(sampler.weights) / 4, atol=0.04)


def test_images_of_one_size_are_drawn_as_without_weights() -> None:
    facts = [SimpleNamespace(height=3, width=4), SimpleNamespace(height=2, width=6)]
    assert area_weights(facts, 1.0) is None  # type: ignore[arg-type]
    facts[1].width = 7
    assert area_weights(facts, 0.0) is None  # type: ignore[arg-type]
    assert area_weights(facts, 1.0) is not None  # type: ignore[arg-type]


# Crops around a class.

LABELS = LabelSet((0, 7, 9, 12), ("ground", "many", "few", "none"), None, default_colours(4))
COUNTS = [{0: 900, 7: 100}, {0: 1000}, {0: 980, 7: 10, 9: 10}, {7: 500, 0: 500}, {0: 990, 9: 10}]
FACTS = [SimpleNamespace(counts=counts) for counts in COUNTS]


@given(rate=st.floats(0.01, 0.95), batch=small, seed=st.integers(0, 3))
@settings(deadline=None, max_examples=20)
def test_the_stated_share_is_exact_and_every_image_still_comes(rate: float, batch: int, seed: int) -> None:
    sampler = Sampler(5, batch, seed, rare_first(FACTS, LABELS, rate=rate))  # type: ignore[arg-type]
    places = [divmod(n, batch) for n in range(120)]
    drawn = [(sampler.image(*place), sampler.wanted(*place)) for place in places]
    for n in range(1, 121):
        assert abs(sum(wanted is not None for _, wanted in drawn[:n]) - rate * n) < 1
    others = [image for image, wanted in drawn if wanted is None]
    epochs = [sorted(others[start : start + 5]) for start in range(0, len(others) - 4, 5)]
    assert epochs == [[0, 1, 2, 3, 4]] * len(epochs)
    again = Sampler(5, batch, seed, sampler.focus)
    assert [(again.image(*place), again.wanted(*place)) for place in reversed(places)] == drawn[::-1]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_classes_come_with_their_chances_in_images_that_have_them(power: float) -> None:
    focus = rare_first(FACTS, LABELS, rate=0.5, power=power)  # type: ignore[arg-type]
    assert focus is not None
    weights = [4370**-power, 610**-power, 20**-power, 0]
    expected = [weight / sum(weights) for weight in weights]
    np.testing.assert_allclose(focus.chances, expected)
    sampler, count = Sampler(5, 4, 1, focus), Counter[tuple[int, int]]()
    for n in range(3000):
        wanted = sampler.wanted(*divmod(n, 4))
        if wanted is not None:
            count[wanted, sampler.image(*divmod(n, 4))] += 1
    assert count.total() == 1500
    assert all(LABELS.values[wanted] in COUNTS[image] for wanted, image in count)
    for wanted, chance in enumerate(expected):
        found = sum(n for (one, _), n in count.items() if one == wanted)
        assert abs(found - 1500 * chance) <= 4 * (1500 * chance * (1 - chance)) ** 0.5
    few = [count[2, image] for image in (2, 4)]
    assert abs(few[0] - few[1]) < 4 * sum(few) ** 0.5


def test_what_cannot_be_focused_on() -> None:
    assert rare_first(FACTS, LABELS, rate=0.0) is None  # type: ignore[arg-type]
    assert rare_first([SimpleNamespace(counts={})], LABELS, rate=0.5) is None  # type: ignore[list-item]
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="below 1"):
            rare_first(FACTS, LABELS, rate=rate)  # type: ignore[arg-type]
