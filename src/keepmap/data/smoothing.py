"""Masks whose label values were blurred, resized or compressed: how they are recognised, and undone by a stated rule.

Knows arrays only, neither files nor what the values mean. Colours are values as in `values`.

The rule. A value is *main* where it fills areas: pixels whose 3 x 3 surroundings are of that value make up 1 of 500 of
a mask's filled pixels. Main values of all masks closer than 16 are one. A pixel is *certain* in a 2 x 2 block of which
every pixel is within 32, and within half the distance between any two, of one main value. Every other pixel takes the
nearest among the values of the certain pixels up to 3 px away, so that a border between 0 and 255 does not become a
line of 128; without any, the nearest of all. The distance of two colours is the largest of their channels'.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from keepmap.data.values import LARGEST_VALUE, is_coloured, solid_colours, unpack_colours
from keepmap.protocols import Array

_REACH = 3  # px
_MAIN = 1 / 500
APART = 16
NEAR = 32
_LEAST_TOP = 32  # ids below are so close that no value between two of them is a sign of smoothing
_THIN = 0.25  # share of a value's pixels in 2 x 2 blocks of it, below which it is taken for a border's
_MANY = 8


def solid_values(mask: Array, counts: Mapping[int, int]) -> tuple[int, ...]:
    """The values that occur elsewhere than in thin lines in a mask (H, W). counts: pixels per value.

    Of colours: see `solid_colours`. A number occurs in thin lines only if less than a quarter of its pixels fill 2 x 2
    blocks, as at a blurred border; that is not looked for among two values, nor where all are below 32.
    """
    values = sorted(counts)
    if is_coloured(values):
        return tuple(sorted(solid_colours(mask)))
    if len(values) < 3 or not _LEAST_TOP <= values[-1] <= LARGEST_VALUE or min(mask.shape) < 2:
        return tuple(values)
    filled = np.bincount(mask[blocks(mask)], minlength=values[-1] + 1)
    return tuple(value for value in values if filled[value] >= _THIN * counts[value])


def is_smoothed(values: Collection[int], solid: Collection[int]) -> bool:
    """Whether a mask of these values, of which some are `solid`, was smoothed or compressed."""
    thin = len(values) - len(solid)
    return thin >= _MANY and 2 * thin > len(values)


def blocks(mask: Array) -> npt.NDArray[np.bool_]:
    """Which pixels of a mask (H, W) lie in a 2 x 2 block of equal pixels."""
    across = mask[:, 1:] == mask[:, :-1]
    block = across[1:] & across[:-1] & (mask[1:] == mask[:-1])[:, 1:]
    inside = np.zeros(mask.shape, bool)
    for rows, columns in itertools.product((slice(0, -1), slice(1, None)), repeat=2):
        inside[rows, columns] |= block
    return inside


def main_values(mask: Array) -> dict[int, int]:
    """The main values of a mask (H, W) and how many of its pixels they fill. In a mask without areas, all values."""
    edge = np.zeros(mask.shape, bool)
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    filled = mask[~ndimage.maximum_filter(edge, size=3, mode="constant")]
    found, counts = np.unique(filled if filled.size else mask, return_counts=True)
    return {int(v): int(n) for v, n in zip(found, counts, strict=True) if n >= _MAIN * counts.sum()}


def merge_values(counts: Mapping[int, int], coloured: bool) -> tuple[int, ...]:
    """The most frequent of values that are closer than 16 to each other, ascending. counts: pixels that they fill."""
    kept: list[int] = []
    for value in sorted(counts, key=lambda value: (-counts[value], value)):
        if not kept or distances([value], kept, coloured).min() >= APART:
            kept.append(value)
    return tuple(sorted(kept))


def distances(values: Sequence[int], others: Sequence[int], coloured: bool) -> npt.NDArray[np.float32]:
    """How far each of `values` is from each of `others`, (n, m); of colours, the largest of the channels'."""
    one, other = (_levels(each, coloured) for each in (values, others))
    furthest: npt.NDArray[np.float32] = np.zeros((len(one), len(other)), np.float32)
    for channel in range(one.shape[1]):
        np.maximum(furthest, np.abs(one[:, None, channel] - other[None, :, channel]), out=furthest)
    return furthest


def _levels(values: Sequence[int], coloured: bool) -> npt.NDArray[np.float32]:
    array = np.array(values, np.int64)
    return (unpack_colours(array) if coloured else array[:, None]).astype(np.float32)


def closest(values: Sequence[int], coloured: bool) -> float:
    """The smallest distance between any two of `values`; infinity for one."""
    between = distances(values, values, coloured)
    np.fill_diagonal(between, np.inf)
    return float(between.min())


def snap(mask: Array, mains: Sequence[int], coloured: bool, *, all_pixels: bool) -> npt.NDArray[np.intp]:
    """Which of `mains` each pixel (H, W) belongs to, by the rule above: places 0..n-1.

    all_pixels: judge every pixel, as a compressed mask needs it; else those that have a main value keep it.
    """
    found, place_of = np.unique(mask, return_inverse=True)
    far = distances(found.tolist(), mains, coloured)
    place_of = place_of.reshape(mask.shape)
    nearest: npt.NDArray[np.intp] = far.argmin(axis=1)[place_of]
    if len(mains) <= 2:
        return nearest
    limit = min(NEAR, closest(mains, coloured) / 2) if all_pixels else 0
    sure = (far.min(axis=1) <= limit)[place_of]
    if all_pixels:
        sure &= blocks(np.where(sure, nearest, -1))
    result = nearest.copy()
    if sure.any() and not sure.all():
        _by_neighbours(result, np.where(sure, nearest, -1), far[place_of[~sure]], np.nonzero(~sure))
    return result


def _by_neighbours(
    result: npt.NDArray[np.intp], sure: npt.NDArray[np.intp], far: npt.NDArray[np.float32],
    where: tuple[npt.NDArray[np.intp], ...],
) -> None:
    """Give the pixels at `where` the nearest main value that occurs among the certain pixels around them.

    sure: (H, W) place of a main value, -1 where uncertain. far: distances (pixels, mains).
    """
    padded = np.pad(sure, _REACH, constant_values=-1)
    near = np.zeros(far.shape, bool)
    everyone = np.arange(len(far))
    for down, right in itertools.product(range(2 * _REACH + 1), repeat=2):
        neighbour = padded[where[0] + down, where[1] + right]
        near[everyone[neighbour >= 0], neighbour[neighbour >= 0]] = True
    near[~near.any(axis=1)] = True
    result[where] = np.where(near, far, np.inf).argmin(axis=1)
