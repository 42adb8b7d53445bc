"""The worst region is the square of the grid with the most wrong pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.metrics import regions
from keepmap.metrics.regions import worst_region


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1))
def test_equals_counting_each_square(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    truth, prediction = random.integers(-1, 2, (height, width)), random.integers(0, 2, (height, width))
    found = worst_region(truth, prediction)
    wrong = (truth != prediction) & (truth >= 0)
    side = max(32, -(-max(height, width) // 4))
    squares = [
        wrong[row : row + side, column : column + side] for row in range(0, height, side)
        for column in range(0, width, side)
    ]  # fmt: skip
    most = max(int(square.sum()) for square in squares)
    if found is None:
        assert most == 0
        return
    shown = wrong[found.row : found.row + found.height, found.column : found.column + found.width]
    assert (found.wrong, shown.shape) == (most, (found.height, found.width))
    assert shown.sum() == most


@pytest.mark.parametrize("ignored", [False, True])
def test_nothing_wrong_is_no_region(ignored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "_LEAST", 4)
    truth = np.full((9, 5), -1 if ignored else 1)
    assert worst_region(truth, np.ones((9, 5), int)) is None
