"""The temperature is that of the pixels that are looked at, and leaves out the ignored ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from keepmap.metrics.calibration import BINS
from keepmap.training.calibrating import calibrate


class Overconfident:
    """Logits of two classes that are `factor` times what the truth was drawn from."""

    classes = 2

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def run(self, x: np.ndarray, output: str) -> np.ndarray:
        assert output == "logits"
        assert x.shape[2:] <= (40, 40)
        return np.concatenate([np.zeros_like(x), self.factor * x], axis=1)


class Store:
    """Images of logits, and truth drawn from them."""

    def __init__(self, count: int, ignored: bool = False) -> None:
        self.count, self.ignored = count, ignored

    def __len__(self) -> int:
        return self.count

    def get(self, index: int) -> Any:
        random = np.random.default_rng(index)
        logits = random.normal(0, 2, (1, 50, 45)).astype(np.float32)
        truth = (random.random((50, 45)) < 1 / (1 + np.exp(-logits[0]))).astype(np.int16)
        truth[:10] = -1
        return logits, np.full_like(truth, -1) if self.ignored else truth


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_temperature_undoes_what_was_multiplied(factor: float) -> None:
    temperature, bins = calibrate(Overconfident(factor), Store(40), 40)  # type: ignore[arg-type]
    assert_allclose(temperature, factor, rtol=0.06)
    assert len(bins) == BINS
    assert sum(one.pixels for one in bins) <= 12 * 2000
    gaps = [abs(one.accuracy - one.confidence) for one in bins if one.pixels > 500]  # type: ignore[operator]
    assert len(gaps) > 3 and max(gaps) < 0.04
    assert calibrate(Overconfident(factor), Store(40), 40)[0] == temperature  # type: ignore[arg-type]


def test_nothing_to_look_at_is_temperature_one() -> None:
    assert calibrate(Overconfident(3.0), Store(2, ignored=True), 40) == (1.0, ())  # type: ignore[arg-type]


def test_what_is_no_number_is_temperature_one() -> None:
    class Broken(Overconfident):
        def run(self, x: np.ndarray, output: str) -> np.ndarray:
            return super().run(x, output) * np.nan

    with np.errstate(all="ignore"):
        assert calibrate(Broken(1.0), Store(1), 40) == (1.0, ())  # type: ignore[arg-type]
