"""Values change as they are told to, channel by channel, and what stays the same stays the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data import light
from keepmap.data.light import Planes

WAYS: dict[str, Callable[[Planes, float], Planes]] = {
    "scaled": lambda x, a: light.scaled(x, np.full(len(x), a), 3.0),
    "contrasted": light.contrasted,
    "bent": light.bent,
    "noisy": lambda x, a: light.noisy(x, a - 1, np.random.default_rng(0)),
    "blurred": lambda x, a: light.blurred(x, a - 1),
    "coarse": light.coarse,
}
"""Each as a function of one amount, which changes nothing at 1."""


def planes(channels: int, height: int, width: int, seed: int = 0) -> Planes:
    return np.random.default_rng(seed).uniform(-20, 3000, (channels, height, width)).astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@given(channels=st.integers(1, 7), height=st.integers(1, 40), width=st.integers(1, 40), amount=st.floats(1, 4))
@settings(deadline=None, max_examples=10)
def test_any_shape_and_no_change_in_place(way: str, channels: int, height: int, width: int, amount: float) -> None:
    x = planes(channels, height, width)
    before = x.copy()
    y = WAYS[way](x, amount)
    assert (y.shape, y.dtype) == (x.shape, np.float32)
    assert y is not x
    assert np.isfinite(y).all()
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(WAYS[way](x, 1.0), x, rtol=1e-4, atol=0.01)


@pytest.mark.parametrize("way", ["scaled", "contrasted", "blurred", "coarse"])
def test_a_channel_knows_nothing_of_the_others(way: str) -> None:
    x = planes(3, 20, 30)
    alone = np.concatenate([WAYS[way](channel[None], 1.7) for channel in x])
    np.testing.assert_allclose(WAYS[way](x, 1.7), alone, rtol=1e-6)


def test_every_channel_has_a_factor_of_its_own() -> None:
    x = planes(2, 5, 5)
    y = light.scaled(x, np.array([0.5, 2.0]), 10.0)
    np.testing.assert_allclose(y[0], (x[0] - 10) * 0.5 + 10, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(y[1], (x[1] - 10) * 2 + 10, rtol=1e-4, atol=1e-3)


def test_contrast_keeps_means_and_scales_deviations() -> None:
    x = planes(3, 40, 40)
    y = light.contrasted(x, 0.6)
    np.testing.assert_allclose(y.mean(axis=(1, 2)), x.mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(y.std(axis=(1, 2)), 0.6 * x.std(axis=(1, 2)), rtol=1e-4)


@given(exponent=st.floats(0.3, 3.0))
@settings(deadline=None, max_examples=10)
def test_gamma_keeps_ends_and_order_and_has_an_inverse(exponent: float) -> None:
    x = planes(2, 15, 15)
    y = light.bent(x, exponent)
    assert (y.min(), y.max()) == (x.min(), pytest.approx(x.max(), rel=1e-6))
    order = np.argsort(x, axis=None)
    assert (np.diff(y.ravel()[order]) >= 0).all()
    np.testing.assert_allclose(light.bent(y, 1 / exponent), x, atol=5)
    assert (light.bent(np.full((1, 3, 3), 7, np.float32), exponent) == 7).all()


def test_noise_has_its_deviation_and_no_bias() -> None:
    x = np.full((3, 100, 100), 50, np.float32)
    y = light.noisy(x, 4.0, np.random.default_rng(1)) - 50
    assert y.std() == pytest.approx(4, rel=0.02)
    assert abs(y.mean()) < 0.1
    assert abs(np.corrcoef(y[0].ravel(), y[1].ravel())[0, 1]) < 0.05


def test_blur_spreads_a_point_by_its_deviation() -> None:
    x = np.zeros((1, 41, 41), np.float32)
    x[0, 20, 20] = 1
    y = light.blurred(x, 2.0)[0]
    offsets = np.arange(41) - 20
    assert y.sum() == pytest.approx(1, rel=1e-4)
    assert (y.sum(axis=0) * offsets**2).sum() == pytest.approx(4, rel=0.1)


def test_coarse_pixels_hide_what_is_finer() -> None:
    rows, columns = np.mgrid[:60, :60]
    board = np.where((rows + columns) % 2, 100, 0).astype(np.float32)[None]
    assert np.abs(light.coarse(board, 2.0) - 50).max() < 1
    ramp = columns.astype(np.float32)[None]
    inner = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(light.coarse(ramp, 2.0)[inner], ramp[inner], atol=0.01)
