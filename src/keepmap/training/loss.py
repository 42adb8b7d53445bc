"""Losses over the labelled pixels of a batch, of one map of logits or of several heads: terms and their weighted sum.

Knows logits, class indices and weights of pixels only; negative indices are ignored, and nothing else costs zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.planning.recipe import LossConfig
from keepmap.training.ranks import Ranks

_SMOOTH = 0.5
"""Pixels added to both sides of a fraction, so that a class of few is no jump."""
_LEAST = 1e-6
"""What 1 - p of focal is at the least: below, the slope of a power under 1 would be no number."""


@dataclass(frozen=True)
class Truth:
    """What crops should come out as.

    classes (N, *S) int64, 0..K-1, negative = ignored. weights (N, *S) floating, what each pixel counts, none below 0;
    None: all count 1.
    """

    classes: Tensor
    weights: Tensor | None = None

    def __getitem__(self, crops: slice) -> Truth:
        """Those of some of the crops."""
        return Truth(self.classes[crops], None if self.weights is None else self.weights[crops])

    def at_stride(self, stride: int, size: Sequence[int]) -> Truth:
        """(N, *size): the middle of each cell of `stride` pixels, or the last row of one cut short."""
        picked = [self.classes] if self.weights is None else [self.classes, self.weights]
        for axis, extent in enumerate(size, start=1):
            middle = torch.arange(extent, device=self.classes.device) * stride + stride // 2
            picked = [values.index_select(axis, middle.clamp(max=values.shape[axis] - 1)) for values in picked]
        return Truth(*picked)


Loss = Callable[[Tensor, Truth, Truth], Tensor]
"""(logits (N, K, *S), what they should be, the same of the whole batch that these crops are a part of) -> scalar.

What it returns for the parts of a batch, and in all processes, is to be added up. A mean over pixels is then that of
the whole batch; what is no such mean is that of each part of all processes, weighted by its crops.
"""


def loss_of(config: LossConfig, ranks: Ranks = Ranks()) -> Loss:  # noqa: B008
    """The weighted sum of the terms that `config` names, a scalar of float32, or of float64 for logits of float64.

    ranks: the processes that the crops of a batch are divided among, equally, and call it together.
    Zero, with a gradient of zero, where no pixel is labelled. Raises ValueError, when it is called, where the classes
    are not as many as the class weights, and where a weight map is asked for and the truth has no weights.
    """
    terms = [(TERMS[name], weight) for name, weight in config.terms.items()]

    def loss(logits: Tensor, truth: Truth, whole: Truth) -> Tensor:
        seen = _look(logits, truth, whole, config, ranks)
        return torch.stack([weight * term(seen, config) for term, weight in terms]).sum()

    return loss


def loss_of_heads(
    loss: Loss, logits: Sequence[Tensor], truth: Truth, whole: Truth, heads: Sequence[tuple[int, float]]
) -> Tensor:
    """The weighted sum of the losses of several heads, a scalar; a head of weight 0 takes no part.

    logits: of each head (N, K, *T). heads: (stride, weight) of each: row i of its logits lies on the pixel rows from
    stride * i on, and is held against the pixel in their middle. truth (N, *S), whole: as for `loss`.
    """
    losses = []
    for found, (stride, weight) in zip(logits, heads, strict=True):
        if weight:
            mine, all_of_them = (pixels.at_stride(stride, found.shape[2:]) for pixels in (truth, whole))
            losses.append(weight * loss(found, mine, all_of_them))
    return torch.stack(losses).sum()


@dataclass(frozen=True)
class _Seen:
    """What the terms share. The tensors (N, 1, *S) are 0 where a pixel is ignored.

    log_p (N, K, *S); targets (N, 1, *S) int64; labelled (N, 1, *S) 1 elsewhere; weights (N, 1, *S) of the pixels, and
    without those of their own class in plain. total: sum of the weights over the whole batch, never 0.
    class_weights (K,) for smoothing. share: of the crops of the whole batch, in all processes.
    """

    log_p: Tensor
    targets: Tensor
    labelled: Tensor
    plain: Tensor
    weights: Tensor
    total: Tensor
    class_weights: Tensor
    share: float
    ranks: Ranks


def _look(logits: Tensor, truth: Truth, whole: Truth, config: LossConfig, ranks: Ranks) -> _Seen:
    classes = logits.shape[1]
    if config.border and truth.weights is None:
        raise ValueError("the loss is to be weighted by a map of borders, and there is none")
    given = None if config.border else config.class_weights
    if given is not None and len(given) != classes:
        raise ValueError(f"{len(given)} class weights for {classes} classes")
    log_p = F.log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
    by_class = torch.ones(classes) if given is None else torch.tensor(given)
    by_class = by_class.to(log_p)
    targets, labelled, plain, weights = _weights(truth, by_class, weighted=given is not None)
    total = ranks.summed(_weights(whole, by_class, weighted=given is not None)[-1].sum())
    total = torch.where(total > 0, total, 1)
    share = len(truth.classes) / (len(whole.classes) * ranks.size)
    return _Seen(log_p, targets, labelled, plain, weights, total, by_class, share, ranks)


def _weights(truth: Truth, by_class: Tensor, *, weighted: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """targets, labelled, plain and weights of `_Seen`."""
    classes = truth.classes.unsqueeze(1)
    labelled, targets = (classes >= 0).to(by_class.dtype), classes.clamp(min=0)
    plain = labelled if truth.weights is None else labelled * truth.weights.unsqueeze(1)
    return targets, labelled, plain, plain * by_class[targets] if weighted else plain


def _cross_entropy(seen: _Seen, config: LossConfig) -> Tensor:
    """The weighted mean over the pixels, torch's own definition of smoothing and class weights."""
    entropy = -(seen.log_p.gather(1, seen.targets) * seen.weights).sum()
    if config.smoothing:
        by_class = seen.class_weights.view(-1, *[1] * (seen.log_p.ndim - 2))
        spread = -((seen.log_p * by_class).mean(1, keepdim=True) * seen.plain).sum()
        entropy = (1 - config.smoothing) * entropy + config.smoothing * spread
    return entropy / seen.total


def _focal(seen: _Seen, config: LossConfig) -> Tensor:
    """Mean of (1 - p)^gamma times the cross-entropy of each pixel, p of its class (Lin 2017, equation 4)."""
    log_p = seen.log_p.gather(1, seen.targets)
    missing = (-torch.expm1(log_p)).clamp(min=_LEAST)
    return -(missing**config.gamma * log_p * seen.weights).sum() / seen.total


def _dice(seen: _Seen, config: LossConfig) -> Tensor:
    """One minus the mean Dice, 2 sum(p t) + 1 over sum(p) + sum(t) + 1 (Milletari 2016, without the squares)."""
    return _overlap(seen, 0.5, 0.5)


def _tversky(seen: _Seen, config: LossConfig) -> Tensor:
    """One minus the mean index of Tversky (Salehi 2017)."""
    return _overlap(seen, config.alpha, config.beta)


def _overlap(seen: _Seen, alpha: float, beta: float) -> Tensor:
    """One minus the mean of sum(p t) + 0.5 over sum(p t) + alpha sum(p (1 - t)) + beta sum((1 - p) t) + 0.5, softmax p.

    Sums run over the labelled pixels of all crops in all processes, the mean over the classes that occur in them.
    """
    p = seen.log_p.exp() * seen.labelled
    truth = torch.zeros_like(p).scatter_(1, seen.targets, seen.labelled)
    axes = (0, *range(2, p.ndim))
    sums = seen.ranks.summed(torch.stack([(p * truth).sum(axes), p.sum(axes), truth.sum(axes)]))
    both, found, wanted = sums.unbind()
    wrong = alpha * (found - both) + beta * (wanted - both)
    index = (both + _SMOOTH) / (both + wrong + _SMOOTH)
    present = (wanted > 0).to(index.dtype)
    return seen.share * ((1 - index) * present).sum() / present.sum().clamp(min=1)


TERMS: dict[str, Callable[[_Seen, LossConfig], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "dice": _dice,
    "focal": _focal,
    "tversky": _tversky,
}
"""Name in a LossConfig -> the term."""
