"""Where the samples of a TIFF frame lie, and how a window of them is fetched: from a memory map, or strip by strip.

Knows neither which frame it is nor what the samples mean; errors of the decoders pass through.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import IO

import numpy as np
import tifffile

from keepmap.data import headers
from keepmap.geometry.tiles import round_up
from keepmap.protocols import Array

_KEPT_BYTES = 64 << 20
"""Decoded strips and tiles that are kept for the next window, the last two in any case."""

_JPEG = (6, 7, 34892, 33007)


class MappedSamples:
    """An uncompressed series, which lies in the file as one array. frame: index of each axis but Y, X, C and S."""

    def __init__(self, path: Path, series: tifffile.TiffPageSeries, frame: dict[str, int]) -> None:
        self._path = path
        self._offset = series.dataoffset or 0
        self._dtype = np.dtype(series.keyframe.dtype).newbyteorder(series.keyframe.parent.byteorder)
        self._shape, self._axes = series.shape, series.axes
        self._frame = frame

    def read(self, rows: slice, columns: slice) -> Array:
        """The samples (h, w, C)."""
        array = np.memmap(self._path, self._dtype, "r", self._offset, self._shape)
        chosen: dict[str, slice | int] = {"Y": rows, "X": columns, "C": slice(None), "S": slice(None), **self._frame}
        part = array[tuple(chosen[axis] for axis in self._axes)]
        left = [axis for axis in self._axes if axis not in self._frame]
        part = part.transpose([left.index(axis) for axis in sorted(left, key="YXCS".index)])
        copy = np.array(part, self._dtype.newbyteorder("="), order="C")
        return copy.reshape(*copy.shape[:2], -1)


class SegmentSamples:
    """Pages whose strips or tiles are decoded one by one, those of a window only.

    pages: that make up the frame, their channels in order. key: the page that all of them are like. limit: most pixels
    of one strip or tile.
    """

    def __init__(
        self, path: Path, pages: Sequence[tifffile.TiffPage | tifffile.TiffFrame], key: tifffile.TiffPage, limit: int
    ) -> None:
        self._path = path
        self._size = key.imagelength, key.imagewidth
        self._dtype = np.dtype(key.dtype).newbyteorder("=")
        self._samples = key.samplesperpixel
        self._planes = self._samples if key.planarconfig == tifffile.PLANARCONFIG.SEPARATE else 1
        strip = min(key.rowsperstrip, key.imagelength), key.imagewidth
        self._extent = (key.tilelength, key.tilewidth) if key.is_tiled else strip
        headers.require_pixels(path, *self._extent, limit, self._samples // self._planes)
        self._places = [list(zip(page.dataoffsets, page.databytecounts, strict=True)) for page in pages]
        self._decode = key.decode
        jpeg = key.compression in _JPEG
        self._tables = [{"jpegtables": p.jpegtables, "jpegheader": key.jpegheader} if jpeg else {} for p in pages]
        self._kept: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._bound = _KEPT_BYTES

    def read(self, rows: slice, columns: slice) -> Array:
        """The samples (h, w, C)."""
        shape = rows.stop - rows.start, columns.stop - columns.start, self._samples * len(self._places)
        out = np.zeros(shape, self._dtype)
        width = self._samples // self._planes  # channels of one segment
        high, wide = self._extent
        row = high * (round_up(columns.stop, wide) - columns.start // wide * wide) * shape[2] * self._dtype.itemsize
        self._bound = row if _KEPT_BYTES < row <= headers.KEPT_ROW_BYTES else _KEPT_BYTES
        with self._path.open("rb") as file:
            for page, plane, number, top, left in self._touched(rows, columns):
                first = page * self._samples + plane * width
                segment = self._segment(file, page, number)
                _paste(out[..., first : first + width], segment, top - rows.start, left - columns.start)
        return out

    def _touched(self, rows: slice, columns: slice) -> Iterator[tuple[int, int, int, int, int]]:
        """The segments that overlap the window, row by row: page, plane, number, first row, first column."""
        (high, wide), (height, width) = self._extent, self._size
        down, across = math.ceil(height / high), math.ceil(width / wide)
        for i in range(rows.start // high, math.ceil(rows.stop / high)):
            for page, plane in product(range(len(self._places)), range(self._planes)):
                for j in range(columns.start // wide, math.ceil(columns.stop / wide)):
                    yield page, plane, (plane * down + i) * across + j, i * high, j * wide

    def _segment(self, file: IO[bytes], page: int, number: int) -> Array:
        """One strip or tile (h, w, c); a missing one has no rows, and what it covers stays 0."""
        kept = self._kept.get((page, number))
        if kept is not None:
            self._kept.move_to_end((page, number))
            return kept
        offset, size = self._places[page][number]
        if not size:
            return np.zeros((0, 0, self._samples // self._planes), self._dtype)
        file.seek(offset)
        decoded = self._decode(file.read(size), number, **self._tables[page])[0]
        if decoded is None:
            raise ValueError(f"strip or tile {number} is empty")
        segment: Array = decoded[0]
        self._kept[page, number] = segment
        while len(self._kept) > 2 and sum(array.nbytes for array in self._kept.values()) > self._bound:
            self._kept.popitem(last=False)
        return segment


def _paste(out: Array, segment: Array, top: int, left: int) -> None:
    """Copy what overlaps of `segment`, whose first pixel lies at (top, left) of `out`, both (h, w, c)."""
    stop, end = min(out.shape[0], top + segment.shape[0]), min(out.shape[1], left + segment.shape[1])
    first, begin = max(top, 0), max(left, 0)
    if first < stop and begin < end:
        out[first:stop, begin:end] = segment[first - top : stop - top, begin - left : end - left]
