"""Mirrored borders against numpy's, at any extent and width."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keepmap.networks.mirror import mirror

sides = st.integers(1, 9)
margins = st.integers(0, 40)


@settings(max_examples=80, deadline=None)
@given(height=sides, width=sides, before=margins, below=margins, right=margins)
@example(height=1, width=1, before=92, below=95, right=92)
@example(height=2, width=1, before=3, below=0, right=7)
def test_equals_numpys_reflection(height: int, width: int, before: int, below: int, right: int) -> None:
    x = torch.arange(2.0 * 3 * height * width).view(2, 3, height, width)
    found = mirror(x, before, (before + height + below, before + width + right))
    want = np.pad(x.numpy(), ((0, 0), (0, 0), (before, below), (before, right)), mode="reflect")
    assert np.array_equal(found.numpy(), want)


def test_memory_stays_channels_last_and_any_rank_will_do() -> None:
    x = torch.rand(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
    assert mirror(x, 2, (9, 14)).is_contiguous(memory_format=torch.channels_last)
    assert mirror(torch.rand(1, 2, 3, 4, 5), 1, (5, 6, 7)).shape == (1, 2, 5, 6, 7)


def test_gradients_add_up_over_the_mirror_images() -> None:
    x = torch.rand(1, 1, 3, 1, requires_grad=True)
    mirror(x, 2, (7, 1 + 2)).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [2 * 3, 3 * 3, 2 * 3]
