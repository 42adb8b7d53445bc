"""What one good pair of image and mask is like: sizes, sums, label values and a digest, from one reading of it.

Judges nothing and compares no files; `scan` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keepmap.data.instances import LEAST_OBJECTS, holds_objects
from keepmap.data.masks import mask_mode
from keepmap.data.pairing import Pair
from keepmap.data.samples import count_not_finite, filled, not_finite, unmeasured
from keepmap.data.values import LARGEST_VALUE, is_coloured, solid_values
from keepmap.options import ImageOptions
from keepmap.protocols import Array, ArraySource

_BAND = 1 << 20  # pixels that are measured at a time


@dataclass(frozen=True)
class FileFacts:
    """What a good pair is like.

    height, width: pixels. mask_mode: how the mask stores its values. measured: pixels but those of nodata, which
    nothing else counts. sums, squares: of the raw values and of their squares, per channel. low, high: smallest and
    largest raw value. counts: pixels per label value. row_centres: mean of (row + 0.5) / height per label value.
    brightness: mean over its pixels of the mean over the channels, raw, per label value.
    digest: of the decoded pixels, equal for equal images; "" for an image of one colour.
    solid: the label values that occur elsewhere than in thin lines. objects: see `instances.holds_objects`.
    """

    stem: str
    image: Path
    mask: Path
    height: int
    width: int
    channels: int
    dtype: str
    mask_mode: str
    measured: int
    sums: tuple[float, ...]
    squares: tuple[float, ...]
    low: float
    high: float
    counts: dict[int, int]
    row_centres: dict[int, float]
    brightness: dict[int, float]
    digest: str = ""
    solid: tuple[int, ...] = ()
    objects: bool | None = None


def bands(source: ArraySource) -> Iterator[tuple[slice, Array]]:
    """Rows and their pixels (C, h, W), about a million pixels at a time."""
    _, height, width = source.shape
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield rows, source.read((rows, slice(0, width)))


def measure(pair: Pair, source: ArraySource, mask: npt.NDArray[np.int32], reading: ImageOptions) -> FileFacts:
    """The facts of a pair. mask: its label values (H, W), 0 or more, of the image's size. Raises DataError."""
    channels, height, width = source.shape
    values, places_of = _compact(mask)
    pixels_hash, plain = hashlib.blake2b(repr(source.shape).encode(), digest_size=16), True
    first = None  # pixel of the image, to tell one of a single colour
    sums, squares = np.zeros(channels), np.zeros(channels)
    counts, rows_sum, light = (np.zeros(len(values)) for _ in range(3))
    low, high = (np.inf, -np.inf) if source.dtype.kind == "f" else (0.0, float(np.iinfo(source.dtype).max))
    bad, bins = 0, len(values) + 1  # the last one for what was not measured
    for rows, band in bands(source):
        places = places_of(mask[rows])
        if source.nodata is not None:
            places[unmeasured(band, source.nodata)] = bins - 1
            band = filled(band, source.nodata, np.zeros(channels))
        if source.dtype.kind == "f":
            bad += count_not_finite(band)
            if bad:
                continue
            measured = band[:, places < bins - 1]
            low, high = float(measured.min(initial=low)), float(measured.max(initial=high))
        samples = np.ascontiguousarray(band).reshape(channels, -1)
        pixels_hash.update(samples.data)
        first = samples[:, :1] if first is None else first
        plain = plain and bool((samples == first).all())
        pixels = samples.astype(np.float64)
        sums += pixels.sum(axis=1)
        squares += np.einsum("cp,cp->c", pixels, pixels)
        light += np.bincount(places.ravel(), weights=pixels.mean(axis=0), minlength=bins)[:-1]
        rows_of = np.arange(rows.stop - rows.start)
        by_row = np.bincount((places + bins * rows_of[:, None]).ravel(), minlength=bins * len(rows_of))
        by_row = by_row.reshape(len(rows_of), bins)[:, :-1]
        counts += by_row.sum(axis=0)
        rows_sum += (rows_of + rows.start + 0.5) @ by_row
    if bad:
        raise not_finite(pair.image, bad, channels * height * width)
    seen = counts > 0  # a value may occur only where nothing was measured
    keys = [value for value, occurs in zip(values, seen, strict=True) if occurs]
    return FileFacts(
        pair.stem, pair.image, pair.mask, height, width, channels, str(source.dtype), mask_mode(pair.mask, reading),
        int(counts.sum()), tuple(sums.tolist()), tuple(squares.tolist()), low, high,
        {key: int(count) for key, count in zip(keys, counts[seen], strict=True)},
        dict(zip(keys, (rows_sum[seen] / counts[seen] / height).tolist(), strict=True)),
        dict(zip(keys, (light[seen] / counts[seen]).tolist(), strict=True)),
        "" if plain else pixels_hash.hexdigest(),
        tuple(sorted(solid_values(mask))) if is_coloured(keys) else tuple(keys),
        holds_objects(mask) if len(keys) > LEAST_OBJECTS else None,
    )


def _compact(mask: npt.NDArray[np.int32]) -> tuple[list[int], Callable[[Array], Array]]:
    """The values in a mask, ascending, and what tells for each pixel of a part which of them it has."""
    if mask.max() > LARGEST_VALUE:
        values = np.unique(mask)
        return values.tolist(), lambda part: np.searchsorted(values, part)
    found = np.flatnonzero(np.bincount(mask.ravel()))
    place = np.zeros(int(found[-1]) + 1, np.intp)
    place[found] = np.arange(len(found))
    return found.tolist(), partial(np.take, place)
