"""What is counted of each image, kept small: of pixels, outlines, objects and probabilities.

Knows class indices, names of classes and stems; not where arrays come from, nor what follows from the counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from keepmap.metrics import surfaces
from keepmap.metrics.calibration import Calibration, expected_dice
from keepmap.metrics.confusion import ConfusionMatrix, Indices
from keepmap.metrics.objects import match_objects
from keepmap.metrics.regions import Region, worst_region

Floats = npt.NDArray[np.float64]

BACKGROUND = ("background", "class 0")
"""Names of classes that have no objects."""

IN_UNITS = ("physical", "area")
"""Families that need one unit of the files."""

_FAMILIES = ("region", "boundary", "surface", "distances", "physical", "objects", "bins", "brier", "area")


@dataclass(frozen=True)
class Judging:
    """What is computed. shapes: boundaries, surfaces and objects too. tolerance: of the surface Dice, in pixels.

    regions: where in each image most is wrong, too.
    """

    shapes: bool = True
    tolerance: float = surfaces.SURFACE_TOLERANCE
    regions: bool = False


@dataclass(frozen=True)
class Extra:
    """What is known of an image beside its two label maps.

    truth_numbers, prediction_numbers: of objects, (*S), where masks number them. spacing, unit: of its pixels.
    """

    truth_numbers: Indices | None = None
    prediction_numbers: Indices | None = None
    calibration: Calibration | None = None
    spacing: tuple[float, ...] | None = None
    unit: str = ""


@dataclass
class Tally:
    """Counts of the images that were added, one small row each, and one confusion matrix of all their pixels.

    trained_on: stems of those that the network was trained on. large: images that have no distances for their size.
    unpredicted: pixels with a truth that were left out, because the prediction declares them to be nodata.
    alone: predictions without a truth.
    """

    names: tuple[str, ...]
    judging: Judging
    stems: list[str] = field(default_factory=list)
    rows: list[dict[str, Floats]] = field(default_factory=list)
    expected: list[float | None] = field(default_factory=list)
    regions: list[Region | None] = field(default_factory=list)
    units: set[str] = field(default_factory=set)
    large: int = 0
    unpredicted: int = 0
    alone: int = 0
    trained_on: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.matrix = ConfusionMatrix(len(self.names))

    def add(self, stem: str, truth: Indices, prediction: Indices, extra: Extra = Extra()) -> None:
        """Count an image. truth, prediction: class indices (*S); pixels whose truth is negative are ignored.

        Raises ValueError as `ConfusionMatrix.add` does.
        """
        matrix = self.matrix.add(truth, prediction)
        region = np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)], axis=-1)
        row: dict[str, npt.NDArray[np.generic]] = {"region": region}
        self.units.add(extra.unit if extra.spacing else "")
        if extra.spacing and extra.unit:
            row["area"] = region[:, 1:] * math.prod(extra.spacing)
        if self.judging.shapes:
            row |= self._surfaces(truth, prediction, extra)
            objects = match_objects(
                truth, prediction, len(self.names), truth_numbers=extra.truth_numbers,
                prediction_numbers=extra.prediction_numbers,
            )  # fmt: skip
            objects[[name.lower() in BACKGROUND for name in self.names]] = 0
            row["objects"] = objects
        if extra.calibration is not None:
            row |= {"bins": extra.calibration.bins, "brier": extra.calibration.brier}
        self.expected.append(expected_dice(extra.calibration.expected) if extra.calibration else None)
        self.regions.append(worst_region(truth, prediction) if self.judging.regions else None)
        self.stems.append(stem)
        self.rows.append({name: values.astype(np.float64) for name, values in row.items()})

    def _surfaces(self, truth: Indices, prediction: Indices, extra: Extra) -> dict[str, npt.NDArray[np.generic]]:
        classes, unknown = len(self.names), np.full((len(self.names), 2), math.nan)
        tolerances = (surfaces.boundary_tolerance(truth.shape), self.judging.tolerance)
        if truth.size > surfaces.DISTANCE_PIXELS:
            self.large += 1
            near = surfaces.streamed_counts(truth, prediction, classes, tolerances)
            return {"boundary": near[0], "surface": near[1], "distances": unknown, "physical": unknown}
        distances = surfaces.outline_distances(truth, prediction, classes)
        pixels = _distances(distances)
        near = [surfaces.near_counts(distances, tolerance) for tolerance in tolerances]
        physical = unknown
        if extra.spacing and extra.unit:
            first, *others = extra.spacing
            square = all(math.isclose(first, other) for other in others)
            physical = pixels * first if square else _distances(
                surfaces.outline_distances(truth, prediction, classes, extra.spacing)
            )  # fmt: skip
        return {"boundary": near[0], "surface": near[1], "distances": pixels, "physical": physical}

    def counts(self) -> dict[str, Floats]:
        """Every family that all images have, as (images, ...) arrays."""
        has = [name for name in _FAMILIES if all(name in row for row in self.rows)]
        if len(self.units) != 1 or "" in self.units:
            has = [name for name in has if name not in IN_UNITS]
        return {name: np.stack([row[name] for row in self.rows]) for name in has}

    @property
    def unit(self) -> str:
        """That of the files, if they agree."""
        return next(iter(self.units)) if len(self.units) == 1 else ""


def dealt(parts: Sequence[Tally]) -> Tally:
    """One tally of images that were dealt out in turn, in their order: the first to the first of `parts`, and so on."""
    first, *others = parts
    if not others:
        return first
    whole = Tally(first.names, first.judging)
    for part in parts:
        whole.matrix.merge(part.matrix)
        whole.units |= part.units
        whole.large += part.large
        whole.unpredicted += part.unpredicted
    for turn in range(max(len(part.stems) for part in parts)):
        for part in parts[: sum(turn < len(part.stems) for part in parts)]:
            whole.stems.append(part.stems[turn])
            whole.rows.append(part.rows[turn])
            whole.expected.append(part.expected[turn])
            whole.regions.append(part.regions[turn])
    return whole


def _distances(distances: Sequence[surfaces.ClassDistances]) -> Floats:
    """(K, 2): Hausdorff and mean distance of each class."""
    return np.array([(surfaces.hausdorff95(pair), surfaces.surface_distance(pair)) for pair in distances])
