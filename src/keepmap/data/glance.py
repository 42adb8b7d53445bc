"""A closer look at some of the pairs: percentiles of the intensities, and how large the objects of each class are.

Looks at a fixed number of pairs, evenly spread, so that its time does not grow with the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keepmap import resources
from keepmap.data.facts import FileFacts
from keepmap.data.images import open_image
from keepmap.data.instances import number_objects
from keepmap.data.labels import IGNORE_INDEX, LabelSet
from keepmap.data.masks import read_mask
from keepmap.data.samples import unmeasured
from keepmap.options import ImageOptions
from keepmap.protocols import Array

PERCENTILES = (0.5, 50.0, 99.5)
SIZES = (10.0, 50.0, 90.0)
_PAIRS = 32
_SIDE = 1024
"""Pixels along each side of the part of an image, its middle, that is looked at."""
_VALUES = 4096
"""Values of each channel that are taken of one image."""
_LEAST = 4
"""Pixels of the smallest object that counts."""


@dataclass(frozen=True)
class Glance:
    """What a closer look shows. pairs: how many were looked at.

    percentiles: PERCENTILES of the raw values, of each channel. diameters: SIZES of the diameters of circles as large
    as the objects, in pixels, of each class; empty for one without any. An object is a connected region, diagonal
    neighbours apart, or what an instance mask numbers.
    """

    pairs: int
    percentiles: tuple[tuple[float, ...], ...]
    diameters: tuple[tuple[float, ...], ...]


def glance(facts: Sequence[FileFacts], labels: LabelSet, reading: ImageOptions = ImageOptions()) -> Glance:  # noqa: B008
    """Look at up to 32 of the pairs, of one at least. Raises DataError where a file has become unreadable."""
    chosen = [facts[i] for i in np.unique(np.linspace(0, len(facts) - 1, _PAIRS).round().astype(int))]
    with ThreadPoolExecutor(resources.thread_count()) as pool:
        seen = list(pool.map(partial(_look, labels=labels, reading=reading), chosen))
    values = np.concatenate([values for values, _ in seen], axis=1)
    areas = [np.concatenate([found[k] for _, found in seen]) for k in range(labels.count)]
    return Glance(
        pairs=len(chosen),
        percentiles=tuple(_percentiles(channel, PERCENTILES) for channel in values),
        diameters=tuple(_percentiles(2 * np.sqrt(found / np.pi), SIZES) for found in areas),
    )


def _percentiles(values: Array, which: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(float(v), 3) for v in np.percentile(values, which)) if values.size else ()


def _look(fact: FileFacts, labels: LabelSet, reading: ImageOptions) -> tuple[Array, list[npt.NDArray[np.int64]]]:
    """Values (C, at most 4096) of the middle of an image, and the pixels of each object there, by class."""
    source = open_image(fact.image, reading)
    window = (_middle(fact.height), _middle(fact.width))
    pixels = source.read(window)
    values = read_mask(fact.mask, reading)[window]
    classes = labels.encode(values, fact.mask)
    if source.nodata is not None:
        classes[unmeasured(pixels, source.nodata)] = IGNORE_INDEX
        pixels = pixels[:, ~unmeasured(pixels, source.nodata)]
    pixels = pixels.reshape(len(pixels), -1)
    pixels = pixels[:, :: max(1, pixels.shape[1] // _VALUES)]
    regions = number_objects(values, labels.ignore) if labels.instances else classes
    return pixels.astype(np.float64), areas_of(regions, classes, labels.count)


def _middle(extent: int) -> slice:
    start = max(0, (extent - _SIDE) // 2)
    return slice(start, min(start + _SIDE, extent))


def areas_of(regions: Array, classes: Array, count: int) -> list[npt.NDArray[np.int64]]:
    """The pixels of each object in maps (H, W), by class 0..count-1; the smallest and negative classes are left out.

    regions: two neighbours, above one another or side by side, belong together where it has one value.
    """
    starts = np.ones(regions.shape, bool)
    starts[:, 1:] = regions[:, 1:] != regions[:, :-1]
    run = np.cumsum(starts).reshape(regions.shape) - 1
    below = (regions[1:] == regions[:-1]) & (starts[1:] | starts[:-1])
    upper, lower = run[:-1][below], run[1:][below]
    edges = coo_array((np.ones(len(upper), bool), (upper, lower)), shape=(run[-1, -1] + 1,) * 2)
    _, object_of = connected_components(edges, directed=False)
    first = np.flatnonzero(starts)
    lengths = np.diff(first, append=regions.size)
    areas = np.bincount(object_of, lengths).astype(np.int64)
    kind = np.empty(len(areas), np.int64)
    kind[object_of] = classes.ravel()[first]
    return [areas[(kind == k) & (areas >= _LEAST)] for k in range(count)]
