"""Where in an image a prediction is most wrong.

Knows class indices of one image; not how the place is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keepmap.protocols import Array

_PARTS = 4
"""Squares along the longer side of an image."""
_LEAST = 32
"""Pixels of the side of a square, at least."""


@dataclass(frozen=True)
class Region:
    """A rectangle of an image, in pixels. wrong: wrong pixels in it, of those that are not ignored."""

    row: int
    column: int
    height: int
    width: int
    wrong: int


def worst_region(truth: Array, prediction: Array) -> Region | None:
    """The square of a grid over the image with the most wrong pixels, cut off at its border; None where all are right.

    truth, prediction: class indices (H, W). Its side is a quarter of the longer side of the image, 32 px at least.
    """
    wrong = (truth != prediction) & (truth >= 0)
    side = max(_LEAST, -(-max(wrong.shape) // _PARTS))
    starts = [np.arange(0, extent, side) for extent in wrong.shape]
    counts = np.add.reduceat(np.add.reduceat(wrong, starts[0], axis=0, dtype=np.int32), starts[1], axis=1)
    place = np.unravel_index(int(counts.argmax()), counts.shape)
    row, column = (int(start[at]) for start, at in zip(starts, place, strict=True))
    height, width = min(side, wrong.shape[0] - row), min(side, wrong.shape[1] - column)
    return Region(row, column, height, width, int(counts[place])) if counts[place] else None
