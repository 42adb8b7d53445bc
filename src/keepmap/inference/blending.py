"""Tiles that overlap, blended with Gaussian weights in a band of rows that rolls down the image.

Knows arrays of logits and where they lie; neither the network nor what becomes of the rows. The weights are those of
nnU-Net (Isensee et al. 2021): a standard deviation of an eighth of the tile, so none is below exp(-8) of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from keepmap.geometry.tiles import Halo, cover, round_up
from keepmap.protocols import Array, Window

_OVERLAP, _SIGMA = 4, 8
"""Of a tile: one over the share that the next one covers too, and one over the standard deviation of its weights."""
_HANDED_ON = 8 << 20
"""Bytes of logits that are handed on at a time."""


def overlap_of(window: int, stride: int) -> Halo:
    """What of a window of so many pixels along one axis the next one covers too, as the halo of a cover."""
    return 0, round_up(-(-window // _OVERLAP), stride)


def blend_bytes(classes: int, window: tuple[int, int], width: int) -> int:
    """Bytes that `blended` holds: the band of an image of `width` pixels, and the logits of one tile."""
    return 4 * classes * window[0] * (width + window[1])


def shares(parts: Sequence[slice], window: int) -> list[Array]:
    """What each part of one axis has in the mean, (n,) float32 for n pixels; over all parts 1 at each pixel.

    parts: slices of at most `window` pixels that cover the axis. Where there is one part alone its share is 1.
    """
    places = (np.arange(window) - (window - 1) / 2) * (_SIGMA / window)
    bell = np.exp(-places * places / 2)
    total = np.zeros(max(part.stop for part in parts))
    for part in parts:
        total[part] += bell[: part.stop - part.start]
    return [(bell[: part.stop - part.start] / total[part]).astype(np.float32) for part in parts]


def blended(
    size: tuple[int, int], window: tuple[int, int], halo: tuple[Halo, Halo], stride: int,
    compute: Callable[[Window], Array], begun: int = 0,
) -> Iterator[tuple[slice, Array]]:  # fmt: skip
    """Rows of an image of `size` (H, W), top to bottom, and their blended logits (K, n, W) float32.

    window, halo, stride: as of `cover`, whose tiles they are. compute: the logits (K, h, w) of a part of the image,
    asked for row of tiles by row of tiles. begun: rows that are known already; what follows has the same bits.
    Holds as many rows as a tile has, whatever the height of the image.
    """
    rows, columns = (
        [tile.read[0] for tile in cover((size[axis],), (window[axis],), (halo[axis],), (stride,))] for axis in (0, 1)
    )
    of_rows, of_columns = shares(rows, window[0]), shares(columns, window[1])
    band: Array = np.zeros((0, 0, 0), np.float32)
    done = begun
    for at, row in enumerate(rows):
        if row.stop <= begun:
            continue
        for column, of_column in zip(columns, of_columns, strict=True):
            logits = compute((row, column))
            if not band.size:
                band = np.zeros((len(logits), min(window[0], size[0]), size[1]), np.float32)
            weights = np.outer(of_rows[at], of_column)
            for total, values in zip(band[:, : row.stop - row.start, column], logits, strict=True):
                total += values * weights
        final = rows[at + 1].start if at + 1 < len(rows) else size[0]
        many = max(1, _HANDED_ON // (4 * band.shape[0] * size[1]))
        for first in range(done, final, many):
            done = min(first + many, final)
            yield slice(first, done), band[:, first - row.start : done - row.start].copy()
        _roll(band, final - row.start)


def _roll(band: Array, rows: int) -> None:
    """Move a band (K, n, W) up by so many rows, with zeros below."""
    for values in band:
        values[: len(values) - rows] = values[rows:].copy()
        values[len(values) - rows :] = 0
