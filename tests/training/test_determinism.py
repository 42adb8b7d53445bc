"""Deterministic computing is scoped, refuses what it cannot do, and keeps the number of threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from keepmap.training.determinism import agreed_threads, deterministic


@pytest.mark.parametrize("on", [True, False])
def test_it_holds_within_the_block_only(on: bool) -> None:
    def fail() -> None:
        with deterministic(on):
            assert torch.are_deterministic_algorithms_enabled() is on
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_cannot_be_the_same_each_time_is_refused() -> None:
    x, where = torch.zeros(4), torch.tensor([0, 0])
    with deterministic(True), pytest.raises(RuntimeError, match="deterministic"):
        x.put_(where, torch.ones(2), accumulate=False)


def test_the_threads_of_before_come_back_or_are_said(lines: Any) -> None:
    now = torch.get_num_threads()
    try:
        assert agreed_threads(0, lines) == agreed_threads(now, lines) == now
        assert lines.said == []
        assert agreed_threads(now + 1, lines) == now
        assert len(lines.said) == 1 and f"before {now + 1}" in lines.said[0]
        with deterministic(True):
            assert agreed_threads(now + 1, lines) == torch.get_num_threads() == now + 1
        assert len(lines.said) == 1
    finally:
        torch.set_num_threads(now)
