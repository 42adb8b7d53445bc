"""Regions of an image as annotation files describe them, and which pixels are inside.

Does not read those files (`coco` and `labelme` do). Coordinates are x to the right and y down, in pixels from the
upper left corner of the image, so that pixel (row, column) has its centre at (column + 0.5, row + 0.5). A pixel is
inside where its centre is, whatever share of it is covered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keepmap.errors import DataError
from keepmap.protocols import Array, Window

Inside = tuple[Window, npt.NDArray[np.bool_]]
"""A part of the image, and for each of its pixels whether it is inside."""

_RUN_BITS, _MORE, _NEGATIVE, _FIRST = 5, 32, 16, 48


@dataclass(frozen=True)
class Region:
    """A labelled region. fill: (H, W) of the image -> its pixels."""

    label: str
    fill: Callable[[tuple[int, int]], Sequence[Inside]]


@dataclass(frozen=True)
class Drawing:
    """What an annotation file says about one image. name: the image's file, "/" between folders. size: (H, W)."""

    name: str
    size: tuple[int, int]
    regions: tuple[Region, ...]


def paint(drawing: Drawing, ids: Mapping[str, int]) -> tuple[npt.NDArray[np.int32], int]:
    """The class ids (H, W) of a drawing, 0 beside its regions, and how many pixels two classes claim.

    Where regions overlap, the later one wins.
    """
    painted = np.zeros(drawing.size, np.int32)
    taken = np.zeros(drawing.size, bool)
    disputed = 0
    for region in drawing.regions:
        value = ids[region.label]
        for window, inside in region.fill(drawing.size):
            disputed += int(np.count_nonzero(inside & taken[window] & (painted[window] != value)))
            painted[window][inside] = value
            taken[window] |= inside
    return painted, disputed


def fill_polygon(points: Array, size: tuple[int, int]) -> Inside:
    """The inside of a closed polygon (n, 2) of x and y, by the even-odd rule; parts beyond the image are cut off.

    A centre on an edge is inside if the edge is a left or an upper one, so that polygons which share an edge share no
    pixel and leave none out.
    """
    one, two = points, np.roll(points, -1, axis=0)
    swap = one[:, 1] > two[:, 1]
    low, high = np.where(swap[:, None], two, one), np.where(swap[:, None], one, two)
    left, top = (int(v) for v in np.ceil(points.min(axis=0) - 0.5).clip(0, (size[1], size[0])))
    right, bottom = (int(v) for v in np.ceil(points.max(axis=0) - 0.5).clip(0, (size[1], size[0])))
    first = np.ceil(low[:, 1] - 0.5).clip(top, bottom).astype(int)
    count = np.ceil(high[:, 1] - 0.5).clip(top, bottom).astype(int) - first
    edge = np.repeat(np.arange(len(points)), count)
    rows = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    run, rise = (high - low).T
    slope = run / np.where(count > 0, rise, 1)
    crossings = low[edge, 0] + (rows + 0.5 - low[edge, 1]) * slope[edge]
    columns = np.ceil(crossings - 0.5).clip(left, right).astype(int) - left
    height, width = bottom - top, right - left + 1
    crossed = np.bincount((rows - top) * width + columns, minlength=height * width).reshape(height, width)
    return (slice(top, bottom), slice(left, right)), np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1


def fill_disc(centre: tuple[float, float], radius: float, size: tuple[int, int]) -> Inside:
    """The inside of a circle around (x, y), its border included."""
    rows, columns = (
        slice(max(0, int(middle - radius - 1)), max(0, min(extent, int(middle + radius + 1))))
        for middle, extent in zip(centre[::-1], size, strict=True)
    )
    y, x = np.ogrid[rows, columns]
    return (rows, columns), (x + 0.5 - centre[0]) ** 2 + (y + 0.5 - centre[1]) ** 2 <= radius**2


def fill_stamp(stamp: npt.NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> Inside:
    """A small mask (h, w) whose upper left pixel lies at (x, y); parts beyond the image are cut off."""
    left, top = corner
    rows, columns = (
        slice(min(max(0, start), extent), min(max(0, start + length), extent))
        for start, length, extent in ((top, stamp.shape[0], size[0]), (left, stamp.shape[1], size[1]))
    )
    return (rows, columns), stamp[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


def fill_runs(runs: Sequence[int], size: tuple[int, int], where: str) -> Inside:
    """The inside by run lengths down the columns, outside and inside in turn. Raises DataError unless they fill it."""
    total = sum(runs)  # of Python's integers, which do not wrap
    if min(runs, default=0) < 0 or total != size[0] * size[1]:
        raise DataError(
            f"{where} has run lengths that do not fill the image.",
            found=f"{len(runs)} runs, {total} px in all", expected=f"{size[0] * size[1]} px, none negative",
        )
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[1], size[0]).T
    return (slice(0, size[0]), slice(0, size[1])), inside


def decode_runs(text: str, where: str) -> list[int]:
    """The run lengths in a compressed COCO string.

    Each number comes in groups of five bits, the lowest first, as characters from "0" on; a sixth bit says that more
    follow, and the fifth bit of the last is the sign. From the fourth number on, it is the difference to the one two
    before. Raises DataError.
    """
    runs: list[int] = []
    number, shift = 0, 0
    for character in text:
        bits = ord(character) - _FIRST
        if not 0 <= bits < 2 * _MORE or shift > 60:
            raise DataError(f"{where} has run lengths that cannot be read.", found=text[:40])
        number |= (bits & (_MORE - 1)) << shift
        shift += _RUN_BITS
        if bits & _MORE:
            continue
        if bits & _NEGATIVE:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number, shift = 0, 0
    if shift:
        raise DataError(f"{where} has run lengths that end in the middle.", found=text[-40:])
    return runs
