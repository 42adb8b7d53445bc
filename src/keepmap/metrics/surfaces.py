"""Where the outlines of truth and prediction lie apart: boundary F-score, surface Dice, Hausdorff, surface distance.

Knows class indices and pixels only: not what the classes are, nor where the arrays come from.

The outline of a class is the pixels of it that share an edge (in 3-D, a face) with a pixel of another class. The
image's border and pixels that are ignored are no neighbours, so that no outline is made where nothing is known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from keepmap.metrics.confusion import Indices

BOUNDARY_SHARE = 0.0075
"""Of the image's diagonal: how far outlines may lie apart for the boundary F-score. Source: Csurka et al. 2013."""

SURFACE_TOLERANCE = 2.0
"""Pixels within which two outlines agree for the surface Dice, unless told otherwise."""

DISTANCE_PIXELS = 1 << 24
"""Images of more pixels (4096 x 4096) have no Hausdorff and no surface distance: these need all outlines at once."""

_BLOCK = 1024
"""Side, in pixels, of what is looked at in one go above that."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassDistances:
    """Of one class in one image: how far each pixel of an outline is from the nearest one of the other outline.

    Both are float64, inf where the other outline is empty.
    """

    from_prediction: npt.NDArray[np.float64]
    from_truth: npt.NDArray[np.float64]


def outline(classes: Indices) -> npt.NDArray[np.bool_]:
    """Whether each pixel is on the outline of its class. classes: indices (*S), negative where ignored."""
    on = np.zeros(classes.shape, bool)
    known = classes >= 0
    for axis in range(classes.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        differ = (classes[before] != classes[after]) & known[before] & known[after]
        on[before] |= differ
        on[after] |= differ
    return on


def boundary_tolerance(shape: Sequence[int], share: float = BOUNDARY_SHARE) -> float:
    """Pixels that outlines may lie apart in an image of this shape: `share` of its diagonal, 1 at least.

    Source: Csurka et al. 2013; the floor of one pixel is ours, for images below 134 px of diagonal.
    """
    return max(1.0, share * math.hypot(*shape))


def outline_distances(
    truth: Indices, prediction: Indices, classes: int, spacing: Sequence[float] | None = None
) -> list[ClassDistances]:
    """The distances of the outlines of each class, in pixels, or in the unit of `spacing` (size of a pixel per axis).

    truth, prediction: class indices (*S), equal shapes; where the truth is negative, neither is looked at.
    """
    lines = _outlines(truth, prediction)
    return [
        ClassDistances(*(_nearest(lines[a], lines[1 - a], k, spacing=spacing) for a in (1, 0))) for k in range(classes)
    ]


def near_counts(distances: Sequence[ClassDistances], tolerance: float) -> Counts:
    """(K, 4): pixels of the predicted outline and those of them within `tolerance`, then the same of the true one."""
    rows = [
        (way.size, np.count_nonzero(way <= tolerance))
        for pair in distances
        for way in (pair.from_prediction, pair.from_truth)
    ]
    return np.array(rows, np.int64).reshape(len(distances), 4)


def streamed_counts(
    truth: Indices, prediction: Indices, classes: int, tolerances: Sequence[float], block: int = _BLOCK
) -> list[Counts]:
    """What `near_counts` gives for each tolerance, block by block with a halo: memory follows `block`, in pixels."""
    totals = [np.zeros((classes, 4), np.int64) for _ in tolerances]
    reach = math.ceil(max(tolerances))
    for read, core in _blocks(truth.shape, block, reach):
        lines = _outlines(truth[read], prediction[read])
        for k in range(classes):
            for a in (1, 0):
                ways = _nearest(lines[a], lines[1 - a], k, core=core, bound=float(reach))
                for total, tolerance in zip(totals, tolerances, strict=True):
                    total[k, 2 - 2 * a] += ways.size
                    total[k, 3 - 2 * a] += np.count_nonzero(ways <= tolerance)
    return totals


def boundary_f(counts: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Harmonic mean of the shares of both outlines that are met, (...) of counts (..., 4).

    NaN where neither outline has a pixel, 0 where one has none. Source: Csurka et al. 2013.
    """
    found, found_near, true, true_near = np.moveaxis(counts.astype(np.float64), -1, 0)
    precision, recall = found_near / np.maximum(found, 1), true_near / np.maximum(true, 1)
    score = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return np.where(found + true > 0, score, np.nan)


def surface_dice(counts: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Share of all pixels of both outlines that are met, (...) of counts (..., 4); NaN where there is none.

    Source: Nikolov et al. 2018, with outline pixels in place of surface elements.
    """
    found, found_near, true, true_near = np.moveaxis(counts.astype(np.float64), -1, 0)
    return np.where(found + true > 0, (found_near + true_near) / np.maximum(found + true, 1), np.nan)


def hausdorff95(distances: ClassDistances) -> float:
    """The larger of the two 95th percentiles, linear between ranks; NaN where an outline is empty."""
    ways = (distances.from_prediction, distances.from_truth)
    return max(float(np.percentile(way, 95)) for way in ways) if _both(distances) else math.nan


def surface_distance(distances: ClassDistances) -> float:
    """Mean over the pixels of both outlines together of the way to the other; NaN where an outline is empty."""
    count = distances.from_prediction.size + distances.from_truth.size
    total = float(distances.from_prediction.sum() + distances.from_truth.sum()) if _both(distances) else math.nan
    return total / max(count, 1)


def _both(distances: ClassDistances) -> bool:
    return bool(distances.from_prediction.size and distances.from_truth.size)


@dataclass(frozen=True)
class _Outline:
    """The outline pixels of all classes: points (n, D) in the order of their classes `of` (n).

    met: (n) whether the other outline of the same class passes through the very pixel.
    """

    points: npt.NDArray[np.int64]
    of: npt.NDArray[np.int64]
    met: npt.NDArray[np.bool_]

    def part(self, k: int) -> slice:
        """The points of class k."""
        return slice(int(np.searchsorted(self.of, k)), int(np.searchsorted(self.of, k + 1)))


def _outlines(truth: Indices, prediction: Indices) -> tuple[_Outline, _Outline]:
    """Of truth and prediction."""
    ignored = truth < 0
    planes = (truth, np.where(ignored, -1, prediction) if ignored.any() else prediction)
    on = [outline(plane) for plane in planes]
    both = on[0] & on[1] & (planes[0] == planes[1])
    first, second = (_sorted(plane, line, both) for plane, line in zip(planes, on, strict=True))
    return first, second


def _sorted(classes: Indices, on: npt.NDArray[np.bool_], both: npt.NDArray[np.bool_]) -> _Outline:
    order = np.argsort(classes[on], kind="stable")
    return _Outline(np.argwhere(on)[order], classes[on][order].astype(np.int64), both[on][order])


def _nearest(
    line: _Outline,
    other: _Outline,
    k: int,
    *,
    core: tuple[slice, ...] | None = None,
    spacing: Sequence[float] | None = None,
    bound: float = math.inf,
) -> npt.NDArray[np.float64]:
    """The way from each pixel of `line` in class k, within `core`, to the nearest of `other`; inf beyond `bound`."""
    part = line.part(k)
    points, met = line.points[part], line.met[part]
    if core is not None:
        low, high = np.array([(side.start, side.stop) for side in core]).T
        inside = ((points >= low) & (points < high)).all(axis=1)
        points, met = points[inside], met[inside]
    targets = other.points[other.part(k)]
    ways = np.zeros(len(points))
    if met.all():
        return ways
    if not len(targets):
        return np.full(len(points), math.inf)
    scale = np.asarray(spacing or [1.0] * points.shape[1])
    tree = cKDTree(targets * scale, balanced_tree=False, compact_nodes=False)
    ways[~met], _ = tree.query(points[~met] * scale, distance_upper_bound=bound * (1 + 1e-9))
    return ways


def _blocks(
    shape: tuple[int, ...], block: int, reach: int
) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """(what to read, which part of that counts): the parts cover the image once, with a halo that outlines can fill."""
    halo = reach + 1
    for corner in itertools.product(*(range(0, extent, block) for extent in shape)):
        stops = [min(start + block, extent) for start, extent in zip(corner, shape, strict=True)]
        begins = [max(0, start - halo) for start in corner]
        read = tuple(
            slice(a, min(b + halo, extent)) for a, b, extent in zip(begins, stops, shape, strict=True)
        )
        yield read, tuple(slice(c - a, b - a) for c, b, a in zip(corner, stops, begins, strict=True))
