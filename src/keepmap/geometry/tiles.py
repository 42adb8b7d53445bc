"""How an image of any size is covered by equal windows whose results fit together without a seam.

Knows integers only: neither networks, nor arrays, nor files, nor why a window has its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

Slices = tuple[slice, ...]
Halo = tuple[int, int]
"""Pixels of context (before, after) that a result needs along one axis."""


@dataclass(frozen=True)
class Tile:
    """One window of a cover. Each tuple has one slice per spatial axis, in pixels.

    read:  what to read, in image coordinates; cut off at the far border, never at the near one.
    crop:  the part of the result that can be trusted, in coordinates of `read`.
    write: the same part in image coordinates. The `write` of all tiles partition the image.
    """

    read: Slices
    crop: Slices
    write: Slices


def cover(
    shape: tuple[int, ...], window: tuple[int, ...], halo: tuple[Halo, ...], stride: tuple[int, ...]
) -> Iterator[Tile]:
    """Yield the tiles of an image of `shape`, row by row; one entry per axis in each argument.

    Every window starts on a multiple of `stride` and keeps the true border of the image, so a network that pads to
    its stride and reaches no further than `halo` computes in each `crop` what it computes in the whole image.
    window and halo are multiples of stride, and a window that does not cover its axis is larger than its two halos;
    else ValueError.
    """
    axes = [_axis(*values) for values in zip(shape, window, halo, stride, strict=True)]
    for parts in product(*axes):
        read, crop, write = zip(*parts, strict=True)
        yield Tile(read, crop, write)


def count_tiles(
    shape: tuple[int, ...], window: tuple[int, ...], halo: tuple[Halo, ...], stride: tuple[int, ...]
) -> int:
    """How many tiles `cover` yields for the same arguments."""
    total = 1
    for values in zip(shape, window, halo, stride, strict=True):
        total *= len(_inner_starts(*values)) + 1
    return total


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def equal_window(extent: int, count: int, halo: Halo, stride: int) -> int:
    """The shortest window, a multiple of `stride`, of which at most `count` cover `extent` pixels of one axis."""
    end = round_up(extent, stride)
    overlap = sum(halo)
    shortest = round_up(-(-(end + (count - 1) * overlap) // count), stride)
    return min(end, max(shortest, overlap + stride))


def _inner_starts(extent: int, window: int, halo: Halo, stride: int) -> range:
    """Where each window but the last starts. Raises ValueError where no cover is possible."""
    before, after = halo
    if extent < 1 or stride < 1 or min(halo) < 0 or window < 1:
        raise ValueError(f"no cover: extent {extent}, window {window}, halo {halo}, stride {stride}")
    if window % stride or before % stride or after % stride:
        raise ValueError(f"window {window} and halo {halo} must be multiples of the stride {stride}")
    last = round_up(extent, stride) - window
    if last <= 0:
        return range(0)
    if window <= before + after:
        raise ValueError(f"a window of {window} holds no more than the context {halo}")
    return range(0, last, window - before - after)


def _axis(extent: int, window: int, halo: Halo, stride: int) -> list[tuple[slice, slice, slice]]:
    """(read, crop, write) of each window along one axis."""
    cuts = [(start, start + window - halo[1]) for start in _inner_starts(extent, window, halo, stride)]
    cuts.append((max(round_up(extent, stride) - window, 0), extent))
    parts, done = [], 0
    for start, stop in cuts:
        read = slice(start, min(start + window, extent))
        parts.append((read, slice(done - start, stop - start), slice(done, stop)))
        done = stop
    return parts
