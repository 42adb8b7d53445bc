"""Cross-entropy plus Dice over the labelled pixels of a batch, of one map of logits or of several heads.

Knows logits and class indices only; negative indices are ignored, and a batch of nothing else costs zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SMOOTH = 1.0


def cross_entropy_dice(logits: Tensor, classes: Tensor, whole: Tensor | None = None) -> Tensor:
    """Mean cross-entropy plus one minus the mean Dice of the classes in the batch, a float32 scalar.

    logits (N, K, *S), any floating type, computed in float32; classes (N, *S) int64, 0..K-1, negative = ignored.
    Dice is taken over all crops, 2 sum(p t) + 1 over sum(p) + sum(t) + 1, softmax p, as in V-Net
    (Milletari 2016) without the squares.
    whole: classes (M, *S) of the batch that these crops are a part of. Its losses are to be added up over the parts:
    cross-entropy is then that of the whole, by the labelled pixels; Dice is that of each part, by the crops.
    """
    whole = classes if whole is None else whole
    log_p = F.log_softmax(logits.float(), dim=1)
    valid = classes >= 0
    count = (whole >= 0).sum().clamp(min=1)
    targets = classes.clamp(min=0).unsqueeze(1)
    weight = valid.unsqueeze(1).to(log_p.dtype)
    entropy = -(log_p.gather(1, targets) * weight).sum() / count
    return entropy + len(classes) / len(whole) * _dice(log_p.exp() * weight, targets, weight)


def _dice(p: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """One minus the mean Dice of the classes that occur. p (N, K, *S); targets, weight (N, 1, *S), 0 where ignored."""
    truth = torch.zeros_like(p).scatter_(1, targets, weight)
    axes = (0, *range(2, p.ndim))
    seen = truth.sum(axes)
    dice = (2 * (p * truth).sum(axes) + _SMOOTH) / (p.sum(axes) + seen + _SMOOTH)
    present = (seen > 0).to(dice.dtype)
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def loss_of_heads(
    logits: Sequence[Tensor], classes: Tensor, heads: Sequence[tuple[int, float]], whole: Tensor | None = None
) -> Tensor:
    """The weighted sum of the losses of several heads, a float32 scalar; a head of weight 0 takes no part.

    logits: of each head (N, K, *T); classes and whole as in `cross_entropy_dice`. heads: (stride, weight) of each:
    row i of its logits lies on the pixel rows from stride * i on, and is held against the class in their middle.
    """
    whole = classes if whole is None else whole
    losses = []
    for found, (stride, weight) in zip(logits, heads, strict=True):
        if weight:
            mine, all_of_them = (_at_stride(labels, stride, found.shape[2:]) for labels in (classes, whole))
            losses.append(weight * cross_entropy_dice(found, mine, all_of_them))
    return torch.stack(losses).sum()


def _at_stride(classes: Tensor, stride: int, size: Sequence[int]) -> Tensor:
    """The classes (N, *size) in the middle of each cell of `stride` pixels, or in the last row of one cut short."""
    for axis, extent in enumerate(size, start=1):
        middle = torch.arange(extent, device=classes.device) * stride + stride // 2
        classes = classes.index_select(axis, middle.clamp(max=classes.shape[axis] - 1))
    return classes
