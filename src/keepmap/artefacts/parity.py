"""Whether an exported network computes what the original computes: measured, and held against a tolerance.

Knows two runtimes and images, not how either was made.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keepmap.artefacts.pictures import Pictures
from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet
from keepmap.data.masks import read_mask
from keepmap.inference.predictor import MEGAPIXEL, Predictor
from keepmap.metrics.confusion import ConfusionMatrix
from keepmap.protocols import Array, Progress, Runtime
from keepmap.resources import Stopwatch

SIZES = ((96, 128), (97, 131), (131, 33), (1, 1))
"""Images (H, W) in pixels on which original and export are compared."""
TOLERANCE = 1e-4
"""Of the largest absolute logit: by how much a float32 export may differ from the original in float32."""
IOU_LOST = 0.005
"""Mean IoU that int8 may lose on the held-out images."""
AGREEMENT = 0.95
"""Share of pixels of equal label that int8 must keep where there are no held-out images."""
_MOST_SCORED = 16
_TIMED = (256, 256)
_ROUNDS = 3


@dataclass(frozen=True)
class Comparison:
    """One image of `size` (H, W). difference: of the logits, at most, as a share of the largest one of the original.

    agreement: share of the pixels that have the same label.
    """

    size: tuple[int, int]
    difference: float
    agreement: float


@dataclass(frozen=True)
class Parity:
    """How an export compares with the original, which computes in float32.

    exact:     in float32 on both sides; of an int8 export the arithmetic between its integers.
    used:      in the precision that the export is computed in on this machine.
    mean_iou:  of the original and of the export as used, over `images` held-out images; None where there are none.
    rates:     megapixels per second of the original and of the export, each in the precision it uses here.
    tolerance: what it is held against, in words; within: whether it is.
    """

    exact: tuple[Comparison, ...]
    used: tuple[Comparison, ...]
    precision: str
    original_precision: str
    mean_iou: tuple[float, float] | None
    images: int
    rates: tuple[float, float]
    tolerance: str
    within: bool

    @property
    def difference(self) -> float:
        """The largest of the float32 comparison."""
        return max(row.difference for row in self.exact)

    @property
    def agreement(self) -> float:
        """Share of all compared pixels that have the same label, in the precision that is used."""
        pixels = [row.size[0] * row.size[1] for row in self.used]
        return sum(n * row.agreement for n, row in zip(pixels, self.used, strict=True)) / sum(pixels)


@dataclass(frozen=True)
class Sides:
    """The four runtimes: the original in float32 and as it is used, the export in float32 and as it is used."""

    original: Runtime
    original_used: Runtime
    export: Runtime
    export_used: Runtime


def measure_parity(
    sides: Sides, precisions: tuple[str, str], images: Sequence[Array], pictures: Pictures, labels: LabelSet,
    *, int8: bool, progress: Progress,
) -> Parity:  # fmt: skip
    """Compare on `images`, raw values (1, C, h, w), and score both on the held-out images.

    precisions: of the original and of the export as they are used, in words.
    """
    exact = tuple(_compare(sides.original, sides.export, x) for x in images)
    used = tuple(_compare(sides.original, sides.export_used, x) for x in images)
    pairs = pictures.pairs[:_MOST_SCORED]
    scored = None
    if pairs:
        with progress.track("score", 2 * len(pairs), "images") as tracker:
            both = [_mean_iou(r, pictures, labels, tracker.advance) for r in (sides.original, sides.export_used)]
        scored = None if None in both else (float(both[0] or 0), float(both[1] or 0))
    found = Parity(
        exact, used, precisions[1], precisions[0], scored, len(pairs), _rates(sides), "", False,
    )  # fmt: skip
    tolerance, within = _judged(found, int8)
    return Parity(exact, used, precisions[1], precisions[0], scored, len(pairs), found.rates, tolerance, within)


def _judged(found: Parity, int8: bool) -> tuple[str, bool]:
    if not int8:
        return f"logits within {TOLERANCE:g} of the largest, in float32", found.difference <= TOLERANCE
    if found.mean_iou is not None:
        lost = found.mean_iou[0] - found.mean_iou[1]
        return f"at most {IOU_LOST} of the mean IoU lost on {found.images} held-out images", lost <= IOU_LOST
    return f"{AGREEMENT:.0%} of the labels equal", found.agreement >= AGREEMENT


def _compare(original: Runtime, export: Runtime, x: Array) -> Comparison:
    want, got = original.run(x, "logits"), export.run(x, "logits")
    scale = float(np.abs(want).max()) or 1.0
    difference = float(np.abs(got - want).max()) / scale if np.isfinite(got).all() else float("inf")
    equal = float((want.argmax(1) == got.argmax(1)).mean())
    return Comparison((x.shape[2], x.shape[3]), difference, equal)


def _mean_iou(runtime: Runtime, pictures: Pictures, labels: LabelSet, done: Callable[[], None]) -> float | None:
    predictor, matrix = Predictor(runtime, labels), ConfusionMatrix(labels.count)
    for pair in pictures.pairs[:_MOST_SCORED]:
        image = predictor.read(open_image(pair.image, pictures.reading))
        truth = labels.encode(read_mask(pair.mask, pictures.reading), pair.mask)
        matrix.add(truth, predictor.indices(image, str(pair.image)))
        done()
    return matrix.scores().mean_iou


def _rates(sides: Sides) -> tuple[float, float]:
    x = np.zeros((1, sides.original.channels, *_TIMED), np.float32)
    rates = []
    for runtime in (sides.original_used, sides.export_used):
        runtime.run(x)
        seconds = []
        for _ in range(_ROUNDS):
            watch = Stopwatch()
            runtime.run(x)
            seconds.append(watch.seconds)
        rates.append(_TIMED[0] * _TIMED[1] / MEGAPIXEL / max(statistics.median(seconds), 1e-9))
    return rates[0], rates[1]
