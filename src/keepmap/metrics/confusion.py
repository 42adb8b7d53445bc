"""Scores of a segmentation from one confusion matrix over all pixels of a data set.

Knows class indices only: not what their label values are, nor where the arrays come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[Any]

_BAND = 1 << 18
"""Pixels counted at a time, so that the 8-byte codes stay in the cache."""


@dataclass(frozen=True)
class ClassScores:
    """One class, over all pixels that are not ignored. None stands for n/a, a quotient whose denominator is 0.

    pixels:    pixels of the class in the truth.
    iou:       TP / (TP + FP + FN), None where the class is absent from truth and prediction.
    dice:      2 TP / (2 TP + FP + FN), None in the same case.
    precision: TP / (TP + FP), None where the class was never predicted.
    recall:    TP / (TP + FN), None where the class is absent from the truth.
    """

    name: str
    pixels: int
    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Scores:
    """The scores of a whole data set, as fractions in 0..1; JSON-ready by `config.to_dict`.

    mean_iou, mean_dice: over the classes where the score is not n/a; None where it is n/a everywhere.
    pixel_accuracy:      right pixels / pixels that are not ignored; None where all are ignored.
    matrix:              pixels [truth][prediction], K rows of K.
    """

    classes: tuple[ClassScores, ...]
    mean_iou: float | None
    mean_dice: float | None
    pixel_accuracy: float | None
    matrix: tuple[tuple[int, ...], ...]

    def __getitem__(self, name: str) -> ClassScores:
        """The scores of the class called `name`. Raises KeyError."""
        for scores in self.classes:
            if scores.name == name:
                return scores
        raise KeyError(f"no class {name}, but {', '.join(scores.name for scores in self.classes)}")


class ConfusionMatrix:
    """Counts of (truth, prediction) over all pixels that were added; per data set, never per image or batch."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._counts = np.zeros((classes + 1) ** 2, dtype=np.int64)

    def add(self, truth: Indices, prediction: Indices) -> None:
        """Count the pixels of one image.

        truth, prediction: class indices 0..K-1 of one shape, any integer type. Pixels whose truth is negative are
        ignored, whatever is predicted there. Raises ValueError where the shapes differ, an index is K or above, or
        the prediction is negative at a pixel that is not ignored.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
        if truth.size == 0:
            return
        highest = max(int(truth.max()), int(prediction.max()))
        if highest >= self.classes:
            raise ValueError(f"class index {highest} of {self.classes} classes")
        side = self.classes + 1
        counts = np.zeros_like(self._counts)
        flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
        for start in range(0, truth.size, _BAND):
            code = np.maximum(flat_truth[start : start + _BAND], -1, dtype=np.int64, casting="unsafe")
            code += 1
            code *= side
            code += np.maximum(flat_prediction[start : start + _BAND], -1, dtype=np.int64, casting="unsafe")
            code += 1
            counts += np.bincount(code, minlength=counts.size)
        if counts.reshape(side, side)[1:, 0].any():
            raise ValueError("the prediction is negative where the truth is not")
        self._counts += counts

    @property
    def matrix(self) -> npt.NDArray[np.int64]:
        """Pixels [truth, prediction], (K, K) int64; ignored pixels are left out."""
        side = self.classes + 1
        return self._counts.reshape(side, side)[1:, 1:].copy()

    def scores(self, names: Sequence[str] | None = None) -> Scores:
        """The scores of everything added so far. names: one per class; default "0", "1", ..."""
        matrix = self.matrix
        hits, truth, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
        classes = tuple(
            _class_scores(name, *(int(counts[k]) for counts in (hits, truth, predicted)))
            for k, name in enumerate(names or map(str, range(self.classes)))
        )
        return Scores(
            classes=classes,
            mean_iou=_mean([scores.iou for scores in classes]),
            mean_dice=_mean([scores.dice for scores in classes]),
            pixel_accuracy=_ratio(int(hits.sum()), int(matrix.sum())),
            matrix=tuple(tuple(row) for row in matrix.tolist()),
        )


def _class_scores(name: str, hits: int, truth: int, predicted: int) -> ClassScores:
    return ClassScores(
        name=name,
        pixels=truth,
        iou=_ratio(hits, truth + predicted - hits),
        dice=_ratio(2 * hits, truth + predicted),
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, truth),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
