"""What goes wrong in a training, told from its losses and from the scores of the held-out images, and what may help.

Knows numbers only: it neither stops nor changes a training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from keepmap.errors import first_few
from keepmap.metrics.confusion import Scores

_EVERYWHERE = 0.999
"""Share of the pixels from which a class is predicted everywhere."""
_RARE = 0.02
"""Share of the pixels up to which everything but one class is rare."""
_WINDOW = 10
"""Losses whose median is compared: one alone jumps."""
_MOVED, _GREW = 0.9, 1.5
"""A loss that is above these shares of the first ones has not moved, or has grown."""
_GOOD = 0.7
"""Mean IoU from which a loss need not fall any more: a training may begin with good weights."""
_SETTLED = 0.5
"""Share of the training after which a class that is never predicted is worth a word; before, rare ones often are."""
_FALL = 0.05
"""How far the mean IoU of two validations in a row must be below the best."""


@dataclass(frozen=True)
class Remark:
    """kind: a word for metrics.jsonl; found: what was seen, with figures; do: the likely cause and the remedy."""

    kind: str
    found: str
    do: str


@dataclass
class History:
    """What a training has seen so far in this process.

    losses: of every step that had one; scores: of every validation, and at which step it was.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[tuple[int, Scores]] = field(default_factory=list)

    def remarks(self, steps: int, warm_up: int) -> Iterator[Remark]:
        """What the last validation, with what was before it, gives reason to say.

        steps: of the plan; warm_up: those that the learning rate rises over.
        """
        if not self.scores:
            return
        step, last = self.scores[-1]
        loss = _of_loss(self.losses, warm_up)
        if loss is not None and (last.mean_iou or 0.0) < _GOOD:
            yield loss
        alone = _alone(last)
        if alone is not None and step > warm_up:
            yield _everywhere(last, alone, moved=loss is None)
        elif alone is None and step >= _SETTLED * steps:
            yield from _never(last)
        yield from _falling(self.losses, [scores.mean_iou for _, scores in self.scores])


def _of_loss(losses: list[float], warm_up: int) -> Remark | None:
    """Whether the loss has not moved, or has grown, since the first steps."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < warm_up + 2 * _WINDOW:
        return None
    before, now = statistics.median(finite[:_WINDOW]), statistics.median(finite[-_WINDOW:])
    figures = f"{before:.3g} in the first steps, {now:.3g} now"
    if now > _GREW * before:
        do = "the learning rate is too high: --set learning_rate, a third of it"
        return Remark("loss grows", f"the loss grows: {figures}", do)
    if now > _MOVED * before:
        return Remark(
            "loss does not move", f"the loss does not move: {figures}",
            "do images and masks belong together (keepmap train --preview)? Else --set learning_rate, three times "
            "or a third of it",
        )  # fmt: skip
    return None


def _shares(scores: Scores) -> tuple[list[float], list[float]]:
    """The share of each class in the truth and in the predictions."""
    total = max(1, sum(map(sum, scores.matrix)))
    columns = zip(*scores.matrix, strict=True)
    return [sum(row) / total for row in scores.matrix], [sum(column) / total for column in columns]


def _alone(scores: Scores) -> int | None:
    """The class that is predicted everywhere though the truth has others, if there is one."""
    truth, found = _shares(scores)
    most = max(range(len(found)), key=found.__getitem__)
    return most if found[most] >= _EVERYWHERE and truth[most] < _EVERYWHERE else None


def _everywhere(scores: Scores, alone: int, *, moved: bool) -> Remark:
    truth, _ = _shares(scores)
    rest = 1 - truth[alone]
    found = f"{scores.classes[alone].name} is predicted everywhere; {rest:.1%} of the pixels are something else"
    if rest < _RARE:
        do = "the others are rare: --set class_rate=0.5, --set weighting=median_frequency"
    elif moved:
        do = "it may need more time; or objects are too large for the crop or too small to be seen (keepmap plan)"
    else:
        do = "nothing is learnt: look at keepmap train --preview for wrong masks, then try another --set learning_rate"
    return Remark("one class everywhere", found, do)


def _never(scores: Scores) -> Iterator[Remark]:
    truth, predicted = _shares(scores)
    names = [
        f"{scores.classes[k].name} ({share:.2%} of the pixels)"
        for k, share in enumerate(truth)
        if share and not predicted[k]
    ]
    if names:
        yield Remark(
            "class never predicted", f"never predicted: {first_few(names)}",
            "--set class_rate=0.5 or --set weighting=median_frequency shows rare classes more often; or train longer",
        )  # fmt: skip


def _falling(losses: list[float], means: list[float | None]) -> Iterator[Remark]:
    """Whether the held-out images are scored worse and worse while the loss of the training images still falls."""
    known = [mean for mean in means if mean is not None]
    if len(known) < 3 or max(known[-2:]) > max(known[:-2]) - _FALL or len(losses) < 3 * _WINDOW:
        return
    middle = len(losses) // 2
    before, now = statistics.median(losses[middle : middle + _WINDOW]), statistics.median(losses[-_WINDOW:])
    if now < _MOVED * before:
        yield Remark(
            "held-out images fall behind",
            f"mean IoU of held-out images fell from {max(known[:-2]):.3f} to {known[-1]:.3f} while the loss fell from "
            f"{before:.3g} to {now:.3g}",
            "the training images are learnt by heart: more images, stronger augmentation (--set rotation=0.5,30), or "
            "a shorter training",
        )  # fmt: skip
