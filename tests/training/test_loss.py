"""Losses: against plain torch and by hand, ignored pixels, all-ignored batches, gradients in double precision."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from keepmap.planning.recipe import LOSSES, LossConfig
from keepmap.training.loss import TERMS, Truth, loss_of, loss_of_heads


def value_of(config: LossConfig, logits: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    truth = Truth(y, weights)
    return loss_of(config)(logits, truth, truth)


def cross_entropy_dice(logits: Tensor, y: Tensor) -> Tensor:
    return value_of(LossConfig(), logits, y)


def plain(logits: Tensor, y: Tensor) -> Tensor:
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


VARIED = [
    *(LossConfig(terms={name: 1.0}) for name in LOSSES),
    LossConfig(terms={"cross_entropy": 0.5, "dice": 2.0}, smoothing=0.1, class_weights=(1.0, 3.0, 0.5)),
    LossConfig(terms={"focal": 1.0, "tversky": 1.0}, gamma=0.5, class_weights=(1.0, 3.0, 0.5)),
]


@pytest.mark.parametrize("config", VARIED, ids=str)
def test_every_loss_in_double_precision_and_where_there_is_nothing_to_learn(config: LossConfig) -> None:
    """The gradient by differences; zero where all is ignored; finite and falling where all is background."""
    torch.manual_seed(0)
    y = torch.tensor([[[0, 1, -1], [2, 2, 0], [1, -1, 0]]])
    weights = torch.rand(y.shape, dtype=torch.float64)
    logits = torch.randn(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: value_of(config, z, y, weights), (logits,))
    ignored = value_of(config, logits, torch.full_like(y, -1))
    assert ignored.item() == 0
    assert not torch.autograd.grad(ignored, logits)[0].any()
    background = value_of(config, logits, torch.zeros_like(y))
    (slope,) = torch.autograd.grad(background, logits)
    assert torch.isfinite(slope).all() and slope[:, 0].max() < 0 < slope[:, 1:].min()
    certain = torch.tensor([80.0, -80.0, -80.0]).view(1, 3, 1, 1).expand(1, 3, 3, 3).clone().requires_grad_()
    for truth in (torch.zeros_like(y), torch.ones_like(y)):
        value = value_of(config, certain, truth)
        assert torch.isfinite(value) and torch.isfinite(torch.autograd.grad(value, certain)[0]).all()


@given(seed=st.integers(0, 1000), smoothing=st.floats(0, 1), weighted=st.booleans(), mapped=st.booleans())
@settings(deadline=None, max_examples=40)
def test_cross_entropy_is_that_of_torch(seed: int, smoothing: float, weighted: bool, mapped: bool) -> None:
    """With smoothing, class weights and ignored pixels; a pixel of weight 3 is three of weight 1."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 5, 3, generator=generator)
    y = torch.randint(-1, 4, (2, 5, 3), generator=generator)
    class_weights = tuple((torch.rand(4, generator=generator) + 0.1).tolist()) if weighted else None
    counts = torch.randint(0, 4, y.shape, generator=generator) if mapped else torch.ones_like(y)
    counts[0, 0, 0], y[0, 0, 0] = 1, 0
    config = LossConfig(terms={"cross_entropy": 1.0}, smoothing=smoothing, class_weights=class_weights)
    rows = logits.movedim(1, -1).reshape(-1, 4).repeat_interleave(counts.flatten(), 0)
    given = None if class_weights is None else torch.tensor(class_weights)
    expected = F.cross_entropy(
        rows, y.flatten().repeat_interleave(counts.flatten()), given, ignore_index=-1, label_smoothing=smoothing
    )
    found = value_of(config, logits, y, counts.float() if mapped else None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_focal_and_tversky_by_hand() -> None:
    """Two pixels with p = 1/4 and 3/4 for their own class of two; alpha 0.3 for what is wrongly found."""
    p = torch.tensor([0.25, 0.75])
    logits = torch.stack([torch.stack([p[0], 1 - p[0]]), torch.stack([1 - p[1], p[1]])], 1).log().view(1, 2, 1, 2)
    y = torch.tensor([[[0, 1]]])
    focal = LossConfig(terms={"focal": 1.0}, gamma=2.0)
    expected = (0.75**2 * -math.log(0.25) + 0.25**2 * -math.log(0.75)) / 2
    assert value_of(focal, logits, y).item() == pytest.approx(expected, rel=1e-5)
    # class 0: 0.25 right, 0.25 of the other pixel wrongly found, 0.75 missed; class 1: 0.75, 0.75, 0.25
    tversky = LossConfig(terms={"tversky": 1.0}, alpha=0.3, beta=0.7)
    first, second = 0.25 + 0.3 * 0.25 + 0.7 * 0.75, 0.75 + 0.3 * 0.75 + 0.7 * 0.25
    expected = 1 - (0.75 / (first + 0.5) + 1.25 / (second + 0.5)) / 2
    assert value_of(tversky, logits, y).item() == pytest.approx(expected, rel=1e-5)


def test_losses_that_are_others_in_disguise() -> None:
    logits, y = torch.randn(2, 3, 4, 4), torch.randint(-1, 3, (2, 4, 4))
    alike = LossConfig(gamma=0.0, alpha=0.5, beta=0.5)
    alone = {name: value_of(replace(alike, terms={name: 1.0}), logits, y) for name in LOSSES}
    torch.testing.assert_close(alone["focal"], alone["cross_entropy"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(alone["tversky"], alone["dice"])
    both = value_of(LossConfig(terms={"dice": 0.5, "focal": 2.0}, gamma=0.0), logits, y)
    torch.testing.assert_close(both, 0.5 * alone["dice"] + 2 * alone["focal"])
    assert tuple(TERMS) == LOSSES


def test_a_map_of_borders_holds_the_class_weights_and_may_not_be_missing() -> None:
    logits, y, weights = torch.randn(1, 2, 4, 4), torch.randint(0, 2, (1, 4, 4)), torch.rand(1, 4, 4)
    config = LossConfig(class_weights=(1.0, 5.0), border=10.0)
    expected = value_of(LossConfig(), logits, y, weights)
    torch.testing.assert_close(value_of(config, logits, y, weights), expected)
    with pytest.raises(ValueError, match="a map of borders"):
        value_of(config, logits, y)
    with pytest.raises(ValueError, match="3 class weights for 2 classes"):
        value_of(LossConfig(class_weights=(1.0, 1.0, 1.0)), logits, y)


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
    torch.testing.assert_close(loss_of_heads(loss_of(LossConfig()), logits, Truth(y), Truth(y), heads), expected)


def test_a_head_without_weight_takes_no_part_and_none_may_be_missing() -> None:
    y = torch.zeros(1, 4, 4, dtype=torch.int64)
    first, broken = torch.randn(1, 2, 4, 4), torch.full((1, 2, 2, 2), float("nan"))
    loss, truth = loss_of(LossConfig()), Truth(y)
    found = loss_of_heads(loss, [first, broken], truth, truth, ((1, 1.0), (2, 0.0)))
    torch.testing.assert_close(found, cross_entropy_dice(first, y))
    with pytest.raises(ValueError, match="argument 2 is longer"):
        loss_of_heads(loss, [first], truth, truth, ((1, 1.0), (2, 0.5)))
