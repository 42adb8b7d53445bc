"""Scores of a segmentation, and those of them that follow from one confusion matrix over all pixels of a data set.

Knows class indices only: not what their label values are, nor where the arrays come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from keepmap.metrics.regions import Region

Indices = npt.NDArray[Any]

_BAND = 1 << 18
"""Pixels counted at a time, so that their codes stay in the cache."""

_LANES = 4
"""Counters for each code, used in turn: neighbouring pixels, mostly alike, then need not wait for one another."""

_SMALL = 1 << 15
"""Codes below are of 2 bytes."""


Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassScores:
    """One class, over all pixels that are not ignored. None stands for n/a, a quotient whose denominator is 0.

    pixels:    pixels of the class in the truth.
    iou:       TP / (TP + FP + FN), None where the class is absent from truth and prediction.
    dice:      2 TP / (2 TP + FP + FN), None in the same case.
    precision: TP / (TP + FP), None where the class was never predicted.
    recall:    TP / (TP + FN), None where the class is absent from the truth.

    The others are None where they were not asked for, too; docs/metrics.md defines them.
    iou_interval: 95 %.  boundary_f, surface_dice, object_f1, ap50: over the data set.  hausdorff95, surface_distance
    (pixels), count_error (objects): means over the images that have them. area, predicted_area: of its true and of its
    predicted pixels in `Scores.area_unit`, where the files tell the size of a pixel.
    """

    name: str
    pixels: int
    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    iou_interval: Interval | None = None
    boundary_f: float | None = None
    surface_dice: float | None = None
    hausdorff95: float | None = None
    surface_distance: float | None = None
    object_f1: float | None = None
    ap50: float | None = None
    count_error: float | None = None
    area: float | None = None
    predicted_area: float | None = None


@dataclass(frozen=True)
class Figure:
    """One number of a whole evaluation.

    of:    "data set": from the pixels or objects of all images together; "image": the mean of the images' own values.
    unit:  "" for fractions, "px", "objects", or the unit of the files.
    images: over how many images: those for which it is not n/a.
    interval: 95 %, None where there is none (see `Scores.resampled`).
    """

    name: str
    of: str
    value: float | None
    interval: Interval | None
    unit: str
    images: int


@dataclass(frozen=True)
class ImageScores:
    """One image alone; means are over its classes. None where a score is n/a or was not asked for.

    stem: path below the folder, without suffix. group: what it is resampled with. pixels: not ignored.
    hausdorff95, surface_distance: in pixels. expected_dice: what the probabilities expect `mean_dice` to be.
    iou: one per class. worst_region: where most is wrong, if that was asked for.
    """

    stem: str
    group: str
    pixels: int
    mean_iou: float | None
    mean_dice: float | None
    pixel_accuracy: float | None
    boundary_f: float | None
    surface_dice: float | None
    hausdorff95: float | None
    surface_distance: float | None
    object_f1: float | None
    count_error: float | None
    expected_dice: float | None
    iou: tuple[float | None, ...]
    worst_region: Region | None = None


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels whose winning class has a probability in low..high: how probable on the mean, and how many are right."""

    low: float
    high: float
    pixels: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Scores:
    """The scores of a whole data set, as fractions in 0..1; JSON-ready by `config.to_dict`.

    mean_iou, mean_dice: over the classes where the score is not n/a; None where it is n/a everywhere.
    pixel_accuracy:      right pixels / pixels that are not ignored; None where all are ignored.
    matrix:              pixels [truth][prediction], K rows of K.
    frequency_weighted_iou: mean of the IoU of the classes, each as often as it has pixels.

    What `evaluate` adds: figures, every headline number with its interval; images, worst mean IoU first; reliability;
    quality_correlation, Spearman's, of expected and true Dice over the images; resampled, what the intervals are over;
    remarks, sentences on what is n/a and why; area_unit, "meter^2", "" where the files tell none or several;
    trained_on, the stems of images that the network was trained on.
    """

    classes: tuple[ClassScores, ...]
    mean_iou: float | None
    mean_dice: float | None
    pixel_accuracy: float | None
    matrix: tuple[tuple[int, ...], ...]
    frequency_weighted_iou: float | None = None
    figures: tuple[Figure, ...] = ()
    images: tuple[ImageScores, ...] = ()
    reliability: tuple[ReliabilityBin, ...] = ()
    quality_correlation: float | None = None
    resampled: str = ""
    remarks: tuple[str, ...] = ()
    area_unit: str = ""
    trained_on: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> ClassScores:
        """The scores of the class called `name`. Raises KeyError."""
        for scores in self.classes:
            if scores.name == name:
                return scores
        raise KeyError(f"no class {name}, but {', '.join(scores.name for scores in self.classes)}")

    def figure(self, name: str, of: str = "data set") -> Figure:
        """The headline number `name` of the "data set" or the "image". Raises KeyError."""
        for figure in self.figures:
            if (figure.name, figure.of) == (name, of):
                return figure
        raise KeyError(f"no {name} of the {of}, but {', '.join(f'{f.name} ({f.of})' for f in self.figures)}")


class ConfusionMatrix:
    """Counts of (truth, prediction) over all pixels that were added; per data set, never per image or batch."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._counts = np.zeros((classes + 1) ** 2, dtype=np.int64)

    def add(self, truth: Indices, prediction: Indices) -> npt.NDArray[np.int64]:
        """Count the pixels of one image, and return its own matrix (K, K).

        truth, prediction: class indices 0..K-1 of one shape, any integer type. Pixels whose truth is negative are
        ignored, whatever is predicted there. Raises ValueError where the shapes differ, an index is K or above, or
        the prediction is negative at a pixel that is not ignored.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
        if truth.size == 0:
            return np.zeros((self.classes, self.classes), np.int64)
        highest = max(int(truth.max()), int(prediction.max()))
        if highest >= self.classes:
            raise ValueError(f"class index {highest} of {self.classes} classes")
        lowest = min(int(truth.min()), int(prediction.min()))
        side = self.classes + 1
        small = _LANES * side**2 <= _SMALL and lowest >= -_SMALL
        offsets = _offsets(side, min(truth.size, _BAND), np.dtype(np.int16 if small else np.int64))
        counts = np.zeros((_LANES, side**2), np.int64)
        flat_truth, flat_prediction = truth.reshape(-1), prediction.reshape(-1)
        for start in range(0, truth.size, _BAND):
            code, column = (flat[start : start + _BAND].astype(offsets.dtype) for flat in (flat_truth, flat_prediction))
            if lowest < -1:
                code, column = np.maximum(code, -1), np.maximum(column, -1)
            code *= side
            code += column
            code += offsets[: len(code)]
            counts += np.bincount(code, minlength=counts.size).reshape(counts.shape)
        total = counts.sum(axis=0)
        own: npt.NDArray[np.int64] = total.reshape(side, side)
        if own[1:, 0].any():
            raise ValueError("the prediction is negative where the truth is not")
        self._counts += total
        return own[1:, 1:]

    def merge(self, other: ConfusionMatrix) -> None:
        """Count what another one has counted, of as many classes."""
        self._counts = self._counts + other._counts

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
            frequency_weighted_iou=_weighted([scores.iou for scores in classes], truth.tolist()),
        )


@lru_cache(maxsize=4)
def _offsets(side: int, length: int, dtype: np.dtype[np.signedinteger]) -> Indices:
    """What turns side x truth + prediction, both from -1, into a code from 0 in the lane of each pixel."""
    return np.resize(np.arange(_LANES, dtype=dtype) * side**2 + side + 1, length)


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


def _weighted(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    """Mean of the values, each as often as its weight says; a class without true pixels has no part in it."""
    parts = [value * weight for value, weight in zip(values, weights, strict=True) if value is not None]
    return sum(parts) / sum(weights) if sum(weights) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
