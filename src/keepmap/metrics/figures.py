"""Every headline number as one function of counts: of an image, of a data set, of each draw of a bootstrap.

Knows arrays of counts with any leading axes; not how pixels were counted, nor how numbers are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keepmap.metrics.calibration import calibration_error
from keepmap.metrics.intervals import Arrays
from keepmap.metrics.objects import average_precision, object_f1
from keepmap.metrics.surfaces import boundary_f, surface_dice

Floats = npt.NDArray[np.float64]

DATA_SET, IMAGE = "data set", "image"
"""Of what a number is: of all pixels or objects together, or the mean of the images' own values."""


def ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where the denominator is 0."""
    quotient: Floats = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=quotient, where=whole != 0)
    return quotient


def mean_known(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))


def iou(region: Floats) -> Floats:
    """(..., K) of counts (..., K, 3): hits, true pixels, predicted pixels."""
    hits, true, predicted = np.moveaxis(region, -1, 0)
    return ratio(hits, true + predicted - hits)


def dice(region: Floats) -> Floats:
    """(..., K) of counts (..., K, 3)."""
    hits, true, predicted = np.moveaxis(region, -1, 0)
    return ratio(2 * hits, true + predicted)


def precision(region: Floats) -> Floats:
    """(..., K) of counts (..., K, 3)."""
    return ratio(region[..., 0], region[..., 2])


def recall(region: Floats) -> Floats:
    """(..., K) of counts (..., K, 3)."""
    return ratio(region[..., 0], region[..., 1])


def pixel_accuracy(region: Floats) -> Floats:
    """(...) of counts (..., K, 3)."""
    hits, true, _ = np.moveaxis(region, -1, 0)
    return ratio(hits.sum(axis=-1), true.sum(axis=-1))


def frequency_weighted_iou(region: Floats) -> Floats:
    """(...) of counts (..., K, 3). Source: Long et al. 2015, section 5."""
    true = region[..., 1]
    return ratio(np.where(true > 0, iou(region) * true, 0).sum(axis=-1), true.sum(axis=-1))


def count_error(objects: Floats) -> Floats:
    """(..., K) of counts (..., K, 3): |predicted - true objects|, NaN where there are none of either."""
    true, predicted, _ = np.moveaxis(objects, -1, 0)
    return np.where(true + predicted > 0, np.abs(predicted - true), np.nan)


@dataclass(frozen=True)
class Spec:
    """A number: its name, the family of counts that it is made of, how, of what, and its unit.

    score: (...) of counts (..., K, n). unit: "file" stands for that of the image files.
    """

    name: str
    family: str
    score: Callable[[Floats], Floats]
    of: tuple[str, ...]
    unit: str = ""


SPECS = (
    Spec("mean IoU", "region", lambda c: mean_known(iou(c)), (DATA_SET, IMAGE)),
    Spec("mean Dice", "region", lambda c: mean_known(dice(c)), (DATA_SET, IMAGE)),
    Spec("mean precision", "region", lambda c: mean_known(precision(c)), (DATA_SET, IMAGE)),
    Spec("mean recall", "region", lambda c: mean_known(recall(c)), (DATA_SET, IMAGE)),
    Spec("frequency-weighted IoU", "region", frequency_weighted_iou, (DATA_SET,)),
    Spec("pixel accuracy", "region", pixel_accuracy, (DATA_SET, IMAGE)),
    Spec("boundary F", "boundary", lambda c: mean_known(boundary_f(c)), (DATA_SET, IMAGE)),
    Spec("surface Dice", "surface", lambda c: mean_known(surface_dice(c)), (DATA_SET, IMAGE)),
    Spec("Hausdorff 95 %", "distances", lambda c: mean_known(c[..., 0]), (IMAGE,), "px"),
    Spec("surface distance", "distances", lambda c: mean_known(c[..., 1]), (IMAGE,), "px"),
    Spec("Hausdorff 95 %, in units", "physical", lambda c: mean_known(c[..., 0]), (IMAGE,), "file"),
    Spec("surface distance, in units", "physical", lambda c: mean_known(c[..., 1]), (IMAGE,), "file"),
    Spec("object F1", "objects", lambda c: mean_known(object_f1(c)), (DATA_SET, IMAGE)),
    Spec("AP50", "objects", lambda c: mean_known(average_precision(c)), (DATA_SET, IMAGE)),
    Spec("count error", "objects", lambda c: mean_known(count_error(c)), (IMAGE,), "objects"),
    Spec("calibration error", "bins", calibration_error, (DATA_SET,)),
    Spec("Brier score", "brier", lambda c: ratio(c[..., 0], c[..., 1]), (DATA_SET,)),
)
"""The numbers of an evaluation, in the order in which they are shown."""


@dataclass(frozen=True)
class Column:
    """A number of one evaluation. values: (images) of each image alone, NaN where it is n/a."""

    spec: Spec
    of: str
    values: Floats

    def of_sums(self, sums: Arrays) -> Floats:
        """The number (draws) of sums (draws, ...) as `with_values` makes them."""
        if self.of == DATA_SET:
            return self.spec.score(sums[self.spec.family])
        total, known = np.moveaxis(sums[self.key], -1, 0)
        return ratio(total, known)

    @property
    def key(self) -> str:
        """The name of its sums."""
        return f"{self.spec.name} of the {self.of}"


def columns(counts: Arrays) -> list[Column]:
    """All numbers that the families in `counts`, arrays (images, ...), allow."""
    return [
        Column(spec, of, spec.score(counts[spec.family])) for spec in SPECS if spec.family in counts for of in spec.of
    ]


def with_values(counts: Arrays, numbers: list[Column]) -> dict[str, Floats]:
    """What can be summed: the counts of numbers of the data set, and (images, 2) for each mean over images.

    The two are its value and 1, or 0 and 0 where it is n/a.
    """
    values = {
        number.key: np.stack([np.nan_to_num(number.values), ~np.isnan(number.values)], axis=-1).astype(np.float64)
        for number in numbers
        if number.of == IMAGE
    }
    return {number.spec.family: counts[number.spec.family] for number in numbers if number.of == DATA_SET} | values


def statistic(numbers: list[Column]) -> Callable[[Arrays], Floats]:
    """From sums (draws, ...) to the numbers, and behind them the IoU of each class: (draws, numbers + K)."""

    def score(sums: Arrays) -> Floats:
        shown = [number.of_sums(sums)[:, np.newaxis] for number in numbers]
        return np.concatenate([*shown, iou(sums["region"])], axis=1)

    return score
