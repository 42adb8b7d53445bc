"""Small regions and holes in a label map, band by band: which there are, and what they become.

Knows class indices only; the map may lie in a file, and memory follows the number of its regions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from keepmap.metrics.areas import BAND, bands_of
from keepmap.metrics.objects import Components
from keepmap.protocols import Array, LabelMap

Change = tuple[slice, npt.NDArray[np.bool_], Array]
"""Rows, which of their pixels change (h, W), and the new class indices of these (n,)."""
_Ints = npt.NDArray[np.int64]
_Borders = list[tuple[_Ints, _Ints, _Ints]]


def small_regions(indices: LabelMap, of: int, classes: int, smallest: int, *, band: int = BAND) -> Iterator[Change]:
    """Regions of class `of` with fewer than `smallest` pixels get the class that most sides of their border touch.

    A region is connected through sides and corners, as an object in the scores is; of two classes the lower wins, and a
    region that touches no class stays. The changes of one band may be made before the next is asked for.
    """

    def becomes(pixels: _Ints, touched: _Ints) -> _Ints:
        return np.where((pixels < smallest) & touched[:, :-1].any(axis=1), touched[:, :-1].argmax(axis=1), -1)

    return _changes(indices, of, classes, True, becomes, band)


def small_holes(indices: LabelMap, of: int, classes: int, largest: int, *, band: int = BAND) -> Iterator[Change]:
    """Holes of class `of` with up to `largest` pixels get the class around them; as `small_regions` otherwise.

    A hole is a region, connected through sides, that one class alone surrounds: it touches neither the border of the
    image nor what is of no class.
    """

    def becomes(pixels: _Ints, touched: _Ints) -> _Ints:
        enclosed = (np.count_nonzero(touched, axis=1) == 1) & (touched[:, -1] == 0)
        return np.where((pixels <= largest) & enclosed, touched.argmax(axis=1), -1)

    return _changes(indices, of, classes, False, becomes, band)


def _changes(
    indices: LabelMap, of: int, classes: int, corners: bool, becomes: Callable[[_Ints, _Ints], _Ints], band: int
) -> Iterator[Change]:
    """becomes: pixels (n,) of n regions and how many of their sides touch each class (n, K + 1), the last column for
    none -> the class that each becomes, -1 where it stays."""
    regions = Components(corners=corners)
    pixels, borders = _measured(indices, of, regions, classes, band)
    roots = regions.roots()
    count = int(roots.max(initial=0)) + 1
    touched = np.zeros((count, classes + 1), np.int64)
    for number, neighbour, sides in borders:
        np.add.at(touched, (roots[number], neighbour), sides)
    sizes = np.bincount(roots[1:], pixels[1:], count).astype(np.int64)
    target = becomes(sizes, touched)[roots]
    target[0] = -1
    if not (target >= 0).any():
        return
    again = Components(corners=corners)
    for rows, part in bands_of(indices, band):
        new = target[again.add(np.where(part == of, part, -1))]
        if (changed := new >= 0).any():
            yield rows, changed, new[changed]


def _measured(
    indices: LabelMap, of: int, regions: Components, classes: int, band: int
) -> tuple[_Ints, _Borders]:
    """Pixels of each provisional number of `regions`, which are numbered here, and what borders them: number, class
    or `classes` for none, sides."""
    pixels, borders = np.zeros(1, np.int64), []
    width = indices.shape[1]
    last_part, last_numbers = np.full((1, width), -1, np.int16), np.zeros((1, width), np.int64)
    for rows, part in bands_of(indices, band):
        numbers = regions.add(np.where(part == of, part, -1))
        pixels = np.append(pixels, np.zeros(len(regions.classes) - len(pixels), np.int64))
        pixels += np.bincount(numbers.reshape(-1), minlength=len(pixels))
        ends = ((0, int(rows.stop == indices.shape[0])), (0, 0))
        tall = np.pad(np.concatenate([last_part, part]), ends, constant_values=-1)
        tall_numbers = np.pad(np.concatenate([last_numbers, numbers]), ends)
        wide = np.pad(part, ((0, 0), (1, 1)), constant_values=-1)
        wide_numbers = np.pad(numbers, ((0, 0), (1, 1)))
        borders.append(_sides(tall_numbers, tall, classes))
        borders.append(_sides(wide_numbers.T, wide.T, classes))
        last_part, last_numbers = part[-1:], numbers[-1:]
    return pixels, borders


def _sides(numbers: _Ints, part: Array, classes: int) -> tuple[_Ints, _Ints, _Ints]:
    """Between each row and the next, both ways: number of a region, the other class that it touches, how many sides."""
    codes = []
    for here, there in ((slice(None, -1), slice(1, None)), (slice(1, None), slice(None, -1))):
        beside = (numbers[here] > 0) & (part[here] != part[there])
        other = part[there][beside]
        codes.append(numbers[here][beside] * (classes + 1) + np.where(other < 0, classes, other))
    found, sides = np.unique(np.concatenate(codes), return_counts=True)
    return found // (classes + 1), found % (classes + 1), sides
