"""Objects found, missed and invented: F1, average precision at IoU 0.5 and the error of the count, per class.

Knows class indices, and numbers of objects where masks have them; not what the classes are.

An object is a connected region of one class (in 2-D with the eight neighbours), or what bears one number. A true and a
predicted object of one class match if their IoU is above 0.5, so that each has one partner at most.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from keepmap.metrics.confusion import Indices

MATCH = 0.5
"""IoU above which two objects are one."""

_BAND = 1 << 20
"""Pixels that are labelled in one go."""

Counts = npt.NDArray[np.int64]


class Components:
    """Numbers of connected regions, band after band along the first axis; regions that go on in the next are joined.

    corners: whether pixels that only touch at a corner are connected.
    """

    def __init__(self, *, corners: bool = True) -> None:
        self.classes = np.full(1, -1, np.int64)
        self._corners = corners
        self._edges: list[npt.NDArray[np.int64]] = []
        self._last: tuple[Indices, npt.NDArray[np.int64]] | None = None

    def add(self, classes: Indices) -> npt.NDArray[np.int64]:
        """Provisional numbers from 1 of the next band (h, ...) of class indices; 0 where these are negative."""
        labels = np.zeros(classes.shape, np.int64)
        around = ndimage.generate_binary_structure(classes.ndim, classes.ndim if self._corners else 1)
        for k in np.unique(classes[classes >= 0]).tolist():
            found, count = ndimage.label(classes == k, around)
            np.add(found, len(self.classes) - 1, out=labels, where=found > 0, casting="unsafe")
            self.classes = np.append(self.classes, np.full(count, k))
        if self._last is not None:
            self._join(*self._last, classes[0], labels[0])
        self._last = classes[-1], labels[-1]
        return labels

    def _join(
        self, above: Indices, above_labels: npt.NDArray[np.int64], below: Indices, below_labels: npt.NDArray[np.int64]
    ) -> None:
        """Note which regions of the last row touch which of the first one below."""
        for shift in itertools.product((-1, 0, 1) if self._corners else (0,), repeat=above.ndim):
            here = tuple(slice(max(0, -step), min(0, -step) or None) for step in shift)
            there = tuple(slice(max(0, step), min(0, step) or None) for step in shift)
            same = (above[here] == below[there]) & (above[here] >= 0)
            self._edges.append(np.stack([above_labels[here][same], below_labels[there][same]]))

    def roots(self) -> npt.NDArray[np.int64]:
        """For each provisional number, 0 included, that of its whole region, from 0."""
        count = len(self.classes)
        start, stop = np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1)
        graph = coo_matrix((np.ones(len(start), bool), (start, stop)), shape=(count, count))
        return np.asarray(connected_components(graph, directed=False)[1], np.int64)


class Numbers:
    """Numbers that masks give to their objects, in the place of connected regions."""

    def __init__(self, numbers: Indices) -> None:
        self.classes = np.full(1, -1, np.int64)
        self._numbers, self._rows = numbers, 0

    def add(self, classes: Indices) -> npt.NDArray[np.int64]:
        """The numbers of the next band, 0 where there is no object or the class is negative."""
        numbers = self._numbers[self._rows : self._rows + len(classes)]
        self._rows += len(classes)
        labels = np.where((numbers > 0) & (classes >= 0), numbers, 0).astype(np.int64)
        highest = int(labels.max(initial=0))
        if highest >= len(self.classes):
            self.classes = np.append(self.classes, np.full(highest + 1 - len(self.classes), -1))
        inside = labels > 0
        self.classes[labels[inside]] = classes[inside]
        return labels

    def roots(self) -> npt.NDArray[np.int64]:
        """Every number as it is."""
        return np.arange(len(self.classes))


def match_objects(
    truth: Indices,
    prediction: Indices,
    classes: int,
    *,
    truth_numbers: Indices | None = None,
    prediction_numbers: Indices | None = None,
    band: int = _BAND,
) -> Counts:
    """(K, 3): true objects, predicted objects and matches of each class.

    truth, prediction: class indices (*S), equal shapes. Pixels whose truth is negative belong to no object.
    truth_numbers, prediction_numbers: (*S) numbers of objects from 1, 0 where there is none; without them objects are
    connected regions. band: pixels that are looked at in one go; memory follows it and the number of objects.
    """
    sides = [Components() if numbers is None else Numbers(numbers) for numbers in (truth_numbers, prediction_numbers)]
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    rows = max(1, band * truth.shape[0] // max(truth.size, 1))
    for start in range(0, truth.shape[0], rows):
        part = slice(start, start + rows)
        true = truth[part]
        planes = (true, np.where(true < 0, -1, prediction[part]))
        found.append(_overlaps(*(side.add(plane) for side, plane in zip(sides, planes, strict=True))))
    return _matches(sides[0], sides[1], found, classes)


def object_f1(counts: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """2 TP / (true + predicted objects), (...) of counts (..., 3); NaN where there is no object."""
    true, predicted, matched = np.moveaxis(counts.astype(np.float64), -1, 0)
    return np.where(true + predicted > 0, 2 * matched / np.maximum(true + predicted, 1), np.nan)


def average_precision(counts: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """TP / (TP + FP + FN), (...) of counts (..., 3); NaN where there is no object.

    Source: the 2018 Data Science Bowl (Caicedo et al. 2019), for predictions without confidences.
    """
    true, predicted, matched = np.moveaxis(counts.astype(np.float64), -1, 0)
    return np.where(true + predicted > 0, matched / np.maximum(true + predicted - matched, 1), np.nan)


def _overlaps(
    truth: npt.NDArray[np.int64], prediction: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs (2, n) of numbers that share pixels, and how many pixels."""
    first, second = truth.reshape(-1), prediction.reshape(-1)
    if not first.size:
        return np.zeros((2, 0), np.int64), np.zeros(0, np.int64)
    changes = np.flatnonzero((first[1:] != first[:-1]) | (second[1:] != second[:-1])) + 1
    starts = np.concatenate([[0], changes])
    lengths = np.diff(np.append(starts, first.size))
    return _summed(np.stack([first[starts], second[starts]]), lengths)


def _summed(
    pairs: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each pair once, with the sum of its pixels."""
    side = int(pairs[1].max(initial=0)) + 1
    codes, inverse = np.unique(pairs[0] * side + pairs[1], return_inverse=True)
    sums = np.zeros(len(codes), np.int64)
    np.add.at(sums, inverse, pixels)
    return np.stack([codes // side, codes % side]), sums


def _matches(
    truth: Components | Numbers,
    prediction: Components | Numbers,
    found: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    classes: int,
) -> Counts:
    roots = [side.roots() for side in (truth, prediction)]
    pairs = np.concatenate([np.zeros((2, 0), np.int64), *(pair for pair, _ in found)], axis=1)
    pixels = np.concatenate([np.zeros(0, np.int64), *(count for _, count in found)])
    pairs, pixels = _summed(np.stack([roots[0][pairs[0]], roots[1][pairs[1]]]), pixels)
    counts = np.zeros((classes, 3), np.int64)
    areas, kinds = [], []
    for column, side in enumerate((truth, prediction)):
        kind = np.full(int(roots[column].max()) + 1, -1, np.int64)
        kind[roots[column]] = side.classes
        area = np.zeros(len(kind), np.int64)
        np.add.at(area, pairs[column], pixels)
        counts[:, column] = np.bincount(kind[(kind >= 0) & (area > 0)], minlength=classes)
        areas.append(area[pairs[column]])
        kinds.append(kind[pairs[column]])
    union = areas[0] + areas[1] - pixels
    matched = (kinds[0] >= 0) & (kinds[0] == kinds[1]) & (pixels > MATCH * union)
    counts[:, 2] = np.bincount(kinds[0][matched], minlength=classes)
    return counts
