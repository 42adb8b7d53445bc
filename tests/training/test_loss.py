"""Cross-entropy + Dice: against plain torch, ignored pixels, all-ignored batches, gradients in double precision."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.training.loss import cross_entropy_dice, loss_of_heads


def plain(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same by loops over classes."""
    keep = y >= 0
    entropy = F.cross_entropy(logits, y, ignore_index=-1)
    p = logits.softmax(1)
    dices = []
    for k in range(logits.shape[1]):
        t = (y == k) & keep
        if t.any():
            inter = p[:, k][t].sum()
            dices.append((2 * inter + 1) / (p[:, k][keep].sum() + t.sum() + 1))
    return entropy + 1 - torch.stack(dices).mean()


@given(seed=st.integers(0, 1000), classes=st.integers(2, 5))
@settings(deadline=None, max_examples=40)
def test_equals_the_loop_over_classes(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 7, 5, generator=generator)
    y = torch.randint(-1, classes, (2, 7, 5), generator=generator)
    torch.testing.assert_close(cross_entropy_dice(logits, y), plain(logits, y))


def test_ignored_pixels_change_nothing() -> None:
    logits = torch.randn(1, 3, 4, 4)
    y = torch.randint(0, 3, (1, 4, 4))
    y[0, 1] = -1
    changed = logits.clone()
    changed[:, :, 1] = 100 * torch.randn(1, 3, 4)
    torch.testing.assert_close(cross_entropy_dice(logits, y), cross_entropy_dice(changed, y))


def test_nothing_but_ignored_pixels_costs_nothing_and_moves_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = cross_entropy_dice(logits, torch.full((2, 4, 4), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_gradient() -> None:
    logits = torch.randn(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[[0, 1, -1], [2, 2, 0], [1, -1, 0]]])
    loss = cross_entropy_dice(logits, y)
    loss.backward()
    assert logits.grad is not None
    step = 1e-3
    for index in ((0, 0, 0, 0), (0, 2, 1, 0), (0, 1, 0, 2)):
        moved = [logits.detach().clone() for _ in range(2)]
        moved[0][index] += step
        moved[1][index] -= step
        slope = (plain(moved[0], y) - plain(moved[1], y)) / (2 * step)
        torch.testing.assert_close(slope, logits.grad[index], atol=1e-5, rtol=1e-3)


def test_bfloat16_logits_are_computed_in_float32() -> None:
    logits = torch.randn(1, 2, 8, 8).bfloat16()
    loss = cross_entropy_dice(logits, torch.zeros(1, 8, 8, dtype=torch.int64))
    assert loss.dtype == torch.float32


@given(seed=st.integers(0, 1000), rows=st.integers(1, 40), columns=st.integers(1, 40), up=st.booleans())
@settings(deadline=None, max_examples=30)
def test_heads_are_held_against_the_class_in_the_middle_of_each_cell(
    seed: int, rows: int, columns: int, up: bool
) -> None:
    """Extents of a level, rounded up or down; the pixels are picked by loops."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(-1, 3, (2, rows, columns), generator=generator)
    heads = ((1, 0.5), (2, 0.25), (4, 0.125))
    logits, expected = [], torch.tensor(0.0)
    for stride, weight in heads:
        size = tuple(max(1, -(-extent // stride) if up else extent // stride) for extent in (rows, columns))
        logits.append(torch.randn(2, 3, *size, generator=generator))
        small = torch.stack([
            y[:, min(i * stride + stride // 2, rows - 1), min(j * stride + stride // 2, columns - 1)]
            for i in range(size[0]) for j in range(size[1])
        ], 1).view(2, *size)  # fmt: skip
        expected = expected + weight * cross_entropy_dice(logits[-1], small)
    torch.testing.assert_close(loss_of_heads(logits, y, heads), expected)


def test_a_head_without_weight_takes_no_part_and_none_may_be_missing() -> None:
    y = torch.zeros(1, 4, 4, dtype=torch.int64)
    first, broken = torch.randn(1, 2, 4, 4), torch.full((1, 2, 2, 2), float("nan"))
    torch.testing.assert_close(loss_of_heads([first, broken], y, ((1, 1.0), (2, 0.0))), cross_entropy_dice(first, y))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        loss_of_heads([first], y, ((1, 1.0), (2, 0.5)))
