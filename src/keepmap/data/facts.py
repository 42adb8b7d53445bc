"""What one good pair of image and mask is like: sizes, sums, label values and fingerprints, from one reading of it.

Judges nothing and compares no files; `scan` and `survey` do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keepmap.data import likeness
from keepmap.data.instances import LEAST_OBJECTS, holds_objects
from keepmap.data.masks import mask_mode
from keepmap.data.pairing import Pair
from keepmap.data.samples import count_not_finite, filled, not_finite, unmeasured
from keepmap.data.smoothing import solid_values
from keepmap.data.values import LARGEST_VALUE
from keepmap.options import ImageOptions
from keepmap.protocols import Array, ArraySource

_BAND = 1 << 20  # pixels that are read at a time, at the least 256 rows: as many as tiles are high
_ROWS = 256
_CHUNK = 1 << 15
"""Pixels that are summed at a time: they stay in a core's own cache."""
_PRODUCT = 1 << 13
"""Pixels of one dot product: of those so short, none starts more threads."""
_EXACT = 1 << 16
"""Bytes whose sum is a whole number in float32, with which sums take two thirds of the time."""
_DIGITS = 32
_UNMEASURED = -1  # in the place of the label values of pixels that were not measured


@dataclass(frozen=True)
class FileFacts:
    """What a good pair is like.

    height, width: pixels. mask_mode: how the mask stores its values. measured: pixels but those of nodata, which
    nothing else counts. sums, squares: of the raw values and of their squares, per channel. low, high: smallest and
    largest raw value. counts: pixels per label value. row_centres: mean of (row + 0.5) / height per label value.
    brightness: mean over its pixels of the mean over the channels, raw, per label value.
    digest: of the decoded pixels, equal for equal images; "" for an image of one colour.
    solid: the label values that occur elsewhere than in thin lines. objects: see `instances.holds_objects`.
    likeness: `likeness.difference_hash`. orientation: the EXIF rotation that was applied to the image, 1..8.
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
    likeness: int = 0
    orientation: int = 1

    @property
    def mark(self) -> str:
        """Eight digits that are others where the pixels of the image are, or where and how often the mask has values.

        The order of the labels and the folders make no difference.
        """
        image = (self.height, self.width, self.channels, self.dtype, self.low, self.high, self.digest)
        means = ([f"{by[value]:.6g}" for value in sorted(by)] for by in (self.row_centres, self.brightness))
        return hashlib.blake2b(repr((image, sorted(self.counts.items()), *means)).encode(), digest_size=4).hexdigest()


def bands(source: ArraySource) -> Iterator[tuple[slice, Array]]:
    """Rows and their pixels (C, h, W), about a million pixels at a time."""
    _, height, width = source.shape
    step = max(_ROWS, _BAND // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield rows, source.read((rows, slice(0, width)))


def measure(pair: Pair, source: ArraySource, mask: Array, reading: ImageOptions) -> FileFacts:
    """The facts of a pair. mask: its label values (H, W), 0 or more, of the image's size. Raises DataError."""
    channels, height, width = source.shape
    gauge = _Gauge(source)
    for rows, band in bands(source):
        gauge.add(rows.start, band, mask[rows])
    if gauge.bad:
        raise not_finite(pair.image, gauge.bad, channels * height * width)
    tallies = sorted(gauge.tallies.items())  # a value that occurs only where nothing was measured is not among them
    counts = {value: int(tally[0]) for value, tally in tallies}
    objects = holds_objects(mask) if len(counts) > LEAST_OBJECTS or max(counts, default=0) == 1 else None
    return FileFacts(
        pair.stem, pair.image, pair.mask, height, width, channels, str(source.dtype), mask_mode(pair.mask, reading),
        sum(counts.values()), tuple(gauge.sums.tolist()), tuple(gauge.squares.tolist()),
        float(gauge.low), float(gauge.high), counts,
        {value: float(tally[1] / tally[0] / height) for value, tally in tallies},
        {value: float(tally[2] / tally[0]) for value, tally in tallies},
        gauge.content.digest, tuple(counts) if objects else solid_values(mask, counts), objects,
        likeness.difference_hash(gauge.cells, width), source.orientation,
    )


def image_digest(source: ArraySource) -> str:
    """`FileFacts.digest` of an image alone: equal for equal pixels, "" where each channel is of one value."""
    content = _Content(source)
    for _, band in bands(source):
        content.add(band)
    return content.digest


class _Content:
    """The digest of an image, filled band by band."""

    def __init__(self, source: ArraySource) -> None:
        self._nodata = source.nodata
        self._first: Array | None = None  # pixel (C, 1, 1), as long as all are like it
        self._plain = True
        self._hash = hashlib.sha256(repr(source.shape).encode())  # half the time of blake2b

    @property
    def digest(self) -> str:
        """Of all pixels; "" where each channel is of one value."""
        return "" if self._plain else self._hash.hexdigest()[:_DIGITS]

    def add(self, band: Array) -> None:
        """The next rows (C, h, W). Pixels that were never measured count as 0."""
        band = band if self._nodata is None else filled(band, self._nodata, np.zeros(len(band)))
        self._hash.update(np.ascontiguousarray(np.moveaxis(band, 0, -1)).data)  # as most readers have it
        if self._plain:
            self._first = band[:, :1, :1] if self._first is None else self._first
            same_row = (band[:, :1] == self._first).all()  # which few images have
            self._plain = bool(same_row and (band == self._first).all())


class _Gauge:
    """The sums of one pair, filled band by band.

    tallies: label value -> its pixels, the sum of their rows and that of their means over the channels.
    low, high: of all channels. bad: values that are no numbers. cells: (H, 9), what `likeness` makes its hash of.
    """

    def __init__(self, source: ArraySource) -> None:
        channels, height, width = source.shape
        self.sums, self.squares = np.zeros(channels), np.zeros(channels)
        self.low, self.high = np.inf, -np.inf
        self.tallies: dict[int, npt.NDArray[np.float64]] = {}
        self.bad = 0
        self.cells = np.empty((height, len(likeness.edges(width))))
        self._nodata = source.nodata
        self.content = _Content(source)

    def add(self, top: int, band: Array, mask: Array) -> None:
        """Count the pixels (C, h, W) of the rows from `top` on and their label values (h, W)."""
        inside = None
        if self._nodata is not None:
            inside = ~unmeasured(band, self._nodata)
            mask = np.where(inside, mask.astype(np.int64), _UNMEASURED)
            band = filled(band, self._nodata, np.zeros(len(band)))
        self.bad += count_not_finite(band)
        if self.bad:
            return
        self.content.add(band)
        measured = band if inside is None else band[:, inside]
        if measured.size:
            self.low, self.high = min(self.low, measured.min()), max(self.high, measured.max())
        starts = _run_starts(mask)
        light = self._add_sums(top, band, starts) / len(band)
        lengths = np.diff(starts, append=mask.size)
        rows = lengths * (starts // mask.shape[1] + (top + 0.5))
        values, places = _compact(mask.ravel()[starts].astype(np.int64))
        found = np.stack([np.bincount(places, weights, len(values)) for weights in (lengths, rows, light)], axis=1)
        for value, tally in zip(values.tolist(), found, strict=True):
            if value != _UNMEASURED:
                self.tallies[value] = self.tallies.get(value, 0) + tally

    def _add_sums(self, top: int, band: Array, starts: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Add to the sums; the sum over pixels and channels from each of `starts` to the next."""
        channels, height, width = band.shape
        edges = likeness.edges(width)
        step = min(height, max(1, _CHUNK // width))
        kind = np.float32 if band.dtype == np.uint8 and channels * width <= _EXACT else np.float64
        chunk, grey = np.empty(channels * step * width, kind), np.empty((step, width), kind)
        light = np.empty(len(starts))
        for row in range(0, height, step):
            size = min(step, height - row)
            planes, part = chunk[: channels * size * width].reshape(channels, size, width), grey[:size]
            np.copyto(planes, band[:, row : row + size])
            self.sums += planes.sum(axis=(1, 2))
            for first in range(0, size * width, _PRODUCT):
                self.squares += [np.dot(p, p) for p in planes.reshape(channels, -1)[:, first : first + _PRODUCT]]
            np.add.reduce(planes, axis=0, out=part)
            self.cells[top + row : top + row + size] = np.add.reduceat(part, edges, axis=1)
            first, last = np.searchsorted(starts, (row * width, (row + size) * width))
            light[first:last] = np.add.reduceat(part.ravel(), starts[first:last] - row * width)
        return light


def _compact(found: Array) -> tuple[Array, Array]:
    """The label values among `found`, ascending, and which of them each is."""
    if found.max() > LARGEST_VALUE:
        values, places = np.unique(found, return_inverse=True)
        return values, places
    shifted = found - _UNMEASURED
    values = np.flatnonzero(np.bincount(shifted))
    place = np.empty(int(values[-1]) + 1, np.intp)
    place[values] = np.arange(len(values))
    return values + _UNMEASURED, place[shifted]


def _run_starts(mask: Array) -> npt.NDArray[np.intp]:
    """Where the runs of a mask (h, W), laid flat, begin: stretches of one value within one row."""
    flat = mask.ravel()
    begins = np.empty(len(flat), bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[:: mask.shape[1]] = True
    return np.flatnonzero(begins)
