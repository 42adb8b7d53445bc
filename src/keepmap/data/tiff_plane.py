"""One frame of a TIFF file as it is stored: which one, of what kind, and its samples by window.

Gives the samples no colour (`tiff_image` does) and no meaning (`masks` does).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile

from keepmap.data import headers
from keepmap.data.tiff_samples import MappedSamples, SegmentSamples
from keepmap.data.tiff_tags import read_tags
from keepmap.errors import DataError, KeepmapError
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Window

_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
_NO_IMAGE = 1 | 4  # subfile types of thumbnails and of transparency masks
_LOSSY = (6, 7, 33007, 34892)  # JPEG in its variants
_FLAT = "YXCS"  # the axes of one image; all others count frames


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into a DataError."""
    try:
        yield
    except KeepmapError:
        raise
    except Exception as error:
        raise headers.damaged(path, error) from error


class TiffPlane:
    """A frame (H, W, C) of a TIFF file. Raises DataError, when made for what the header shows, else on reading.

    The axes C and S of a file are channels, all others beside Y and X count frames, over all series but thumbnails.
    shape, geometry: of the oriented image. lossy: whether its compression changes values. alpha: whether the last
    channel is one. nodata: the value of pixels that were not measured, or None. orientation: that was applied, 1..8.
    """

    def __init__(self, path: Path, options: ImageOptions = ImageOptions()) -> None:  # noqa: B008
        head = headers.read_head(path)
        if headers.kind_of(head) != headers.TIFF:
            raise headers.wrong_kind(path, headers.describe_head(head), "a TIFF file")
        self.path = path
        with _damage(path):
            _require_an_end(path, head)
        with _damage(path), tifffile.TiffFile(path, _multifile=False) as file:
            series, number = _choose(path, file, options.frame)
            page = series.keyframe
            self.dtype = np.dtype(page.dtype)
            self.photometric, self.colormap = page.photometric, page.colormap
            self.lossy = page.compression in _LOSSY
            self.alpha = bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA
            self.orientation, self.nodata, geometry = read_tags(page)
            if geometry.tags and self.orientation != 1:
                raise DataError(
                    f"{path} is georeferenced and has an orientation tag.", found=f"orientation {self.orientation}",
                    expected="a GeoTIFF that is stored upright", do="write it anew with gdal_translate",
                )
            self.geometry = headers.orient_geometry(geometry, self.orientation)
            self._size = page.imagelength, page.imagewidth
            self.shape = self._size[::-1] if headers.turns(self.orientation) else self._size
            self.channels = math.prod(n for n, axis in zip(series.shape, series.axes, strict=True) if axis in "CS")
            self._samples = _samples(path, series, number, options.max_pixels)

    def read(self, window: Window | None = None) -> Array:
        """The samples (h, w, C) of a window of the oriented image, native byte order; None reads all."""
        rows, columns = window or (slice(0, self.shape[0]), slice(0, self.shape[1]))
        with _damage(self.path):
            stored = self._samples.read(*headers.stored_window(rows, columns, self.orientation, *self._size))
        return headers.orient(stored, self.orientation)


def _require_an_end(path: Path, head: bytes) -> None:
    """Raise DataError for a file whose pages follow each other in a circle, which tifffile would walk for ever."""
    order = "<" if head[:2] == b"II" else ">"
    big = b"+" in head[2:4]
    counts, pointers, entry = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}H", f"{order}I", 12)
    seen: set[int] = set()
    with path.open("rb") as file:
        (place,) = struct.unpack_from(pointers, head, 8 if big else 4)
        while place and place not in seen:
            seen.add(place)
            file.seek(place)
            (count,) = struct.unpack(counts, file.read(struct.calcsize(counts)))
            file.seek(count * entry, os.SEEK_CUR)
            rest = file.read(struct.calcsize(pointers))
            place = struct.unpack(pointers, rest)[0] if len(rest) == struct.calcsize(pointers) else 0
    if place:
        raise DataError(
            f"{path} has pages that follow each other in a circle.", found=f"{len(seen)} pages before one comes again",
            expected="a last page", do="copy it again from its source",
        )


def _choose(path: Path, file: tifffile.TiffFile, wanted: int | None) -> tuple[tifffile.TiffPageSeries, int]:
    """The series that holds the frame, and the number of the frame in it."""
    all_series = [s for s in file.series if not s.keyframe.subfiletype & _NO_IMAGE] or file.series[:1]
    for series in all_series:
        page = series.keyframe
        if page.dtype is None or not set(page.axes) <= set("YXS") or 0 in series.shape:
            raise DataError(
                f"{path} is no flat image.", found=f"shape {page.shape}", expected="rows and columns",
                do="save each plane as a file of its own",
            )
    counts = [math.prod(_frames(series).values()) for series in all_series]
    number = headers.choose_frame(path, sum(counts), wanted)
    for series, count in zip(all_series, counts, strict=True):
        if number < count:
            return series, number
        number -= count
    raise DataError(
        f"{path} holds no image.", found="no page", expected="at least one page", do="copy it again from its source"
    )


def _frames(series: tifffile.TiffPageSeries) -> dict[str, int]:
    """The axes that count frames, and their lengths."""
    return {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in _FLAT}


def _samples(
    path: Path, series: tifffile.TiffPageSeries, number: int, limit: int
) -> MappedSamples | SegmentSamples:
    """The samples of frame `number` of a series."""
    counts = _frames(series)
    place = np.unravel_index(number, tuple(counts.values())) if counts else ()
    frame = {axis: int(i) for axis, i in zip(counts, place, strict=True)}
    page = series.keyframe
    if series.dataoffset is not None and page.is_memmappable and page.dtype != bool:
        return MappedSamples(path, series, frame)
    leading = series.axes[: len(series.axes) - len(page.axes)]
    numbers = np.arange(math.prod(series.shape[: len(leading)])).reshape(series.shape[: len(leading)])
    pages = [p for p in series.pages if p is not None]
    if len(pages) != numbers.size or leading + page.axes != series.axes:
        raise DataError(
            f"{path} lacks pages.", found=f"{len(pages)} pages", expected=f"{numbers.size}, as its header says",
            do="copy it again from its source",
        )
    chosen = numbers[tuple(frame.get(axis, slice(None)) for axis in leading)]
    return SegmentSamples(path, [pages[n] for n in np.ravel(chosen)], page, limit)
