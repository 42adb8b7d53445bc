"""The predictor that users, validation and evaluation share: an image of any size to labels of the same size.

Knows neither how files are read and written, nor which files there are (see `inference.files`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from keepmap.data.labels import LabelSet
from keepmap.data.samples import count_not_finite, filled, not_finite, require_alike, unmeasured
from keepmap.errors import DataError, OutOfMemory
from keepmap.geometry.tiles import Tile, cover
from keepmap.inference.ahead import OneAtATime, read_ahead
from keepmap.inference.blending import blended
from keepmap.inference.way import Limits, Position, Way, plan_way
from keepmap.options import WantedWay
from keepmap.protocols import Array, ArraySink, ArraySource, Output, Runtime, Silent, Tracker, Window
from keepmap.runtime.outputs import delivered

MEGAPIXEL = 1e6
"""Pixels in the unit in which progress is counted."""

_SHARE_OF_FREE_MEMORY = 0.25
_KNOWN_WAYS = 1024
"""Sizes of images, and memories, whose way is not planned twice."""


class Predictor:
    """Labels and class probabilities of images, whole where they fit the memory, else in parts that fit together.

    labels:       what the class indices of the network mean.
    memory_bytes: what one forward pass may take; default: a quarter of what is free now.
    way:          how images are computed; default: whole where they fit, else in bands or in tiles, what costs less.
    dtype:        the type of the images that the network was trained on ("uint8", ...); others are refused, because
                  their values mean something else. Default: any.
    Safe to share between threads.
    """

    def __init__(
        self,
        runtime: Runtime,
        labels: LabelSet,
        *,
        memory_bytes: int | None = None,
        dtype: str | None = None,
        way: WantedWay = "auto",
    ) -> None:
        if labels.count != runtime.classes:
            raise ValueError(f"{labels.count} labels for a network of {runtime.classes} classes")
        if memory_bytes is None:
            memory_bytes = int(runtime.free_memory() * _SHARE_OF_FREE_MEMORY)
        self.runtime = runtime
        self.labels = labels
        self.dtype = dtype
        self._limits = Limits(
            runtime.stride, runtime.reach, runtime.local, memory_bytes, runtime.peak_bytes, runtime.band_bytes,
            runtime.unstreamable, way, runtime.classes, np.dtype(np.float32).itemsize * runtime.channels,
            runtime.quick_pass,
        )  # fmt: skip
        self._ways: dict[tuple[int, int, int], Way] = {}

    def __call__(self, image: Array) -> Array:
        """The label values of an image.

        image: (H, W) or (H, W, C) raw pixel values as in the training images, uint8, uint16 or float; H, W >= 1.
        Returns (H, W) uint8, or uint16 where a label value is above 255. Raises DataError.
        """
        return self.labels.decode(self.indices(_channels_first(image)))

    def probabilities(self, image: Array) -> Array:
        """Class probabilities (K, H, W) float32, summing to 1 over K, of an image as in `__call__`."""
        image = _channels_first(image)
        self._check(image.shape, image.dtype, "The image")
        values = np.empty((self.runtime.classes, *image.shape[1:]), dtype=np.float32)
        put = partial(_put, values)
        self._each(_reader(image), image.shape, "probabilities", "The image", put)
        return values

    def coarse(self, image: Array, where: str = "The image") -> Array:
        """The raw score map (K, h, w) float32 of an image (C, H, W), in one pass: what an FCN knows before upsampling.

        Raises OptionError for a network without one, DataError for an image that does not fit it.
        """
        self._check(image.shape, image.dtype, where)
        scores: Array = self.runtime.scores(image[np.newaxis])[0]
        return scores

    def indices(self, image: Array, where: str = "The image") -> Array:
        """The class indices (H, W), uint8 (int16 above 256 classes), of an image (C, H, W) of raw values.

        where: the file, for messages. Raises DataError.
        """
        self._check(image.shape, image.dtype, where)
        indices = np.empty(image.shape[1:], dtype=self.runtime.label_dtype)
        self._each(_reader(image), image.shape, "labels", where, partial(_put, indices))
        return indices

    def predict(
        self,
        source: ArraySource,
        sink: ArraySink,
        *,
        probabilities: ArraySink | None = None,
        tracker: Tracker | None = None,
        way: Way | None = None,
        start: Position = Position(),  # noqa: B008
        reached: Callable[[Way, Position], None] | None = None,
    ) -> Way:
        """From file to file: read `source` window by window, write label values to `sink`.

        Where nothing was measured (see `ArraySource.nodata`) the label is `labels.blank`.
        probabilities: receives windows (K, h, w) float32; then each label is the class of the highest of them.
        tracker: advanced by the megapixels done. way: one that `plan_way` planned; default: it is planned now.
        start: what is written already; the rest becomes what it would have been. reached: told after each part.
        Returns the way that was taken. Raises DataError, and OutOfMemory (see `memory_bytes`).
        """
        tracker = tracker or Silent()
        self.check(source)
        if source.nodata is not None:  # then `deliver` reads too
            source = OneAtATime(source)
        output: Output = "labels" if probabilities is None else "probabilities"
        position = start

        def put(taken: Way, window: Window, part: Array) -> None:
            nonlocal position
            self.deliver(source, window, part, sink, probabilities)
            position = position.after(window, taken.kind, source.shape[1])
            if reached is not None:
                reached(taken, position)
            tracker.advance(part.shape[-2] * part.shape[-1] / MEGAPIXEL)

        return self._each(self._reader_of(source), source.shape, output, str(source.path), put, way, start)

    def deliver(
        self, source: ArraySource, window: Window, part: Array, sink: ArraySink, probabilities: ArraySink | None
    ) -> None:
        """Write one part: labels (h, w), or with `probabilities` these (K, h, w) and the classes of the highest."""
        indices = part
        if probabilities is not None:
            probabilities.write(window, part)
            indices = part.argmax(axis=0)
        labels = self.labels.decode(indices)
        if source.nodata is not None:
            labels = np.where(unmeasured(source.read(window), source.nodata), self.labels.blank, labels)
        sink.write(window, labels)

    def read(self, source: ArraySource) -> Array:
        """The whole image (C, H, W) as the network is to see it: what was not measured has the training mean.

        Raises DataError where a value is no number.
        """
        whole = slice(0, source.shape[1]), slice(0, source.shape[2])
        return _finite(self._reader_of(source)(whole), str(source.path))

    @property
    def memory_bytes(self) -> int:
        """What one forward pass may take: half of that, from then on, each time that memory did not suffice for it."""
        return self._limits.memory_bytes

    def _reader_of(self, source: ArraySource) -> Callable[[Window], Array]:
        return lambda window: filled(source.read(window), source.nodata, self.runtime.mean)

    def plan_way(self, height: int, width: int) -> Way:
        """Whether an image of this size goes in one pass, in bands or in tiles, and why."""
        asked = height, width, self._limits.memory_bytes
        way = self._ways.get(asked)
        if way is None:
            if len(self._ways) >= _KNOWN_WAYS:
                self._ways.clear()
            way = self._ways[asked] = plan_way((height, width), self._limits)
        return way

    def check(self, source: ArraySource) -> None:
        """Raise DataError if the image is not of the kind that the network was made for; reads no pixel."""
        self._check(source.shape, source.dtype, str(source.path))

    def _check(self, shape: tuple[int, ...], dtype: np.dtype[np.generic], where: str) -> None:
        require_alike(shape, dtype, where, self.runtime.channels, self.dtype)

    def _parts(
        self,
        read: Callable[[Window], Array],
        shape: tuple[int, ...],
        output: Output,
        where: str,
        way: Way | None = None,
        start: Position = Position(),  # noqa: B008
    ) -> Generator[tuple[Window, Array], None, None]:
        """(window, labels (h, w) or values (K, h, w)) of each part after `start`; with those before it, the windows
        partition the image."""
        size, stride = (shape[1], shape[2]), self.runtime.stride
        way = way or self.plan_way(*size)
        tiles = list(cover(size, way.window, way.halo, (stride, stride)))[start.tiles :]
        with read_ahead(lambda window: _finite(read(window), where), self._windows(way, tiles, start)) as pixels:
            if way.kind == "blended tiles":
                yield from self._blended(way, size, pixels, output, start)
                return
            for place, tile in enumerate(tiles):
                if way.kind == "bands":
                    yield from self._streamed(way, tile, pixels, output, 0 if place else start.rows)
                else:
                    parts = self.runtime.run(pixels((tile.read[0], tile.read[1]))[np.newaxis], output)
                    yield (tile.write[0], tile.write[1]), parts[0][(..., *tile.crop)]

    def _windows(self, way: Way, tiles: Sequence[Tile], start: Position) -> Iterator[Window]:
        """What `_parts` reads of `tiles`, in its order."""
        for place, tile in enumerate(tiles):
            rows, columns = tile.read
            if way.kind == "bands":
                for top in range(0 if place else self._entered(way, start.rows), rows.stop, way.band):
                    yield slice(top, min(top + way.band, rows.stop)), columns
            elif way.kind != "blended tiles" or rows.stop > start.rows:
                yield rows, columns

    def _each(
        self,
        read: Callable[[Window], Array],
        shape: tuple[int, ...],
        output: Output,
        where: str,
        put: Callable[[Way, Window, Array], None],
        way: Way | None = None,
        start: Position = Position(),  # noqa: B008
    ) -> Way:
        """Hand all of `_parts` to `put`; where the first does not fit the memory, in smaller ones. Returns the way."""
        begun = start != Position()
        way = way or self.plan_way(shape[1], shape[2])
        while True:
            try:
                with closing(self._parts(read, shape, output, where, way, start)) as parts:
                    for window, part in parts:
                        begun = True
                        put(way, window, part)
                return way
            except OutOfMemory:
                smaller = None if begun else self._with_less(way, (shape[1], shape[2]))
                if smaller is None:
                    raise
                way = smaller

    def _with_less(self, way: Way, size: tuple[int, int]) -> Way | None:
        """A way for half the memory of `way`, which is all that later images get; None if there is no smaller one."""
        if way.kind == "bands":
            needed = self.runtime.band_bytes(way.band, way.window[1])
        else:
            needed = self.runtime.peak_bytes(*way.window)
        half = replace(self._limits, memory_bytes=min(self._limits.memory_bytes, needed) // 2)
        for limits in (self._limits, half):  # they may be less since `way` was planned
            smaller = plan_way(size, limits)
            if (smaller.kind, smaller.window, smaller.band) != (way.kind, way.window, way.band):
                self._limits = limits
                return smaller
        return None

    def _blended(
        self, way: Way, size: tuple[int, int], pixels: Callable[[Window], Array], output: Output, start: Position
    ) -> Iterator[tuple[Window, Array]]:
        """The parts of an image whose tiles are blended, as wide as it is; none where all is known at `start`."""

        def logits(window: Window) -> Array:
            found: Array = self.runtime.run(pixels(window)[np.newaxis], "logits")[0]
            return found

        begun = size[0] if start.tiles else start.rows
        for rows, part in blended(size, way.window, way.halo, self.runtime.stride, logits, begun):
            yield (rows, slice(0, size[1])), delivered(torch.from_numpy(part[np.newaxis]), output)[0]

    def _streamed(
        self, way: Way, tile: Tile, pixels: Callable[[Window], Array], output: Output, begun: int
    ) -> Iterator[tuple[Window, Array]]:
        """The parts of a tile as high as the image, band by band, after the rows that are `begun`."""
        first = done = self._entered(way, begun)
        (rows, columns) = tile.read
        size = (rows.stop - first, columns.stop - columns.start)
        for part in self.runtime.stream(
            size, way.band, lambda band: pixels((slice(first + band.start, first + band.stop), columns)), output
        ):
            known = max(0, begun - done)
            window = slice(done + known, done + part.shape[-2]), tile.write[1]
            done += part.shape[-2]
            if window[0].start < window[0].stop:
                yield window, part[..., known:, tile.crop[1]]

    def _entered(self, way: Way, begun: int) -> int:
        """The row at which a stream is entered that goes on after the rows that are `begun`.

        It is above them by as many whole bands that what comes out does not depend on it, to the bit: the reach, and
        two bands in which layers have not yet the rows at a time that they have later.
        """
        above = -(-self.runtime.reach[0] // way.band) + 2
        return max(0, begun // way.band - above) * way.band


def _finite(values: Array, where: str) -> Array:
    """Raw values, float32 if they are floats. Raises DataError where one is no number."""
    if values.dtype.kind != "f":
        return values
    values = values.astype(np.float32, copy=False)
    if bad := count_not_finite(values):
        raise not_finite(where, bad, values.size)
    return values


def _channels_first(image: Array) -> Array:
    """(H, W) or (H, W, C) as a view (C, H, W)."""
    if image.ndim == 2:
        return image[np.newaxis]
    if image.ndim == 3:
        return image.transpose(2, 0, 1)
    raise DataError("The image is no image.", found=f"shape {image.shape}", expected="(H, W) or (H, W, C)")


def _reader(image: Array) -> Callable[[Window], Array]:
    return lambda window: image[(slice(None), *window)]


def _put(array: Array, _: Way, window: Window, part: Array) -> None:
    array[(..., *window)] = part
