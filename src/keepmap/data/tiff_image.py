"""TIFF files of 8 and 16 bits through tifffile: one image a file, read by window where the file allows.

Does not choose between file formats (`images` does) and gives label values no meaning (`masks` does).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile

from keepmap.data import headers
from keepmap.errors import DataError, KeepmapError
from keepmap.protocols import Array, Window

_IMAGE_DTYPES = ("bool", "uint8", "uint16")
_PALETTE = tifffile.PHOTOMETRIC.PALETTE
_COLOUR_MODELS = (
    tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, _PALETTE, tifffile.PHOTOMETRIC.YCBCR,
)
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


@contextmanager
def opened(path: Path) -> Iterator[tifffile.TiffPage]:
    """The only page of a TIFF file; whatever its decoder raises becomes a DataError."""
    head = headers.read_head(path)
    if headers.kind_of(head) != headers.TIFF:
        raise DataError(
            f"{path} is not the TIFF file that its name promises.", found=headers.describe_head(head),
            expected="a TIFF file", do="save it in that format, or give it the right suffix",
        )
    try:
        with tifffile.TiffFile(path) as file:
            yield _only_page(path, file)
    except (KeepmapError, MemoryError):
        raise
    except Exception as error:
        raise headers.damaged(path, error) from error


def _only_page(path: Path, file: tifffile.TiffFile) -> tifffile.TiffPage:
    first = file.pages.first
    pages = sum(not page.aspage().is_reduced for page in file.pages)
    count = max(pages, math.prod(file.series[0].shape) // math.prod(first.shape))
    if count != 1:
        raise DataError(
            f"{path} holds {count} pages.", found=f"{count} pages", expected="one image a file",
            do="save the pages as separate files",
        )
    if first.photometric not in _COLOUR_MODELS:
        name = getattr(first.photometric, "name", str(first.photometric))
        raise DataError(
            f"{path} has the colour model {name}, which is not read.", found=name, expected="grey, RGB or palette",
            do="convert it to RGB or grey",
        )
    if first.ndim - (first.samplesperpixel > 1) != 2:
        raise DataError(f"{path} is not a flat image.", found=f"shape {first.shape}", expected="rows and columns")
    return first


def page_orientation(page: tifffile.TiffPage) -> int:
    """The orientation tag, 1..8; 1 where it is absent or out of range."""
    tag = page.tags.get("Orientation")
    value = int(tag.value) if tag else 1
    return value if 1 <= value <= 8 else 1


def decode_page(path: Path, page: tifffile.TiffPage) -> Array:
    """All samples as stored (H, W, C), native byte order, not rotated. Raises DataError above the pixel limit."""
    headers.require_pixels(path, page.imagelength, page.imagewidth)
    return _channels_last(page, page.asarray())


def _channels_last(page: tifffile.TiffPage, array: Array) -> Array:
    """A page's array as (H, W, C) in native byte order, a view where the order is native already."""
    if page.samplesperpixel == 1:
        array = array.reshape(page.imagelength, page.imagewidth, 1)
    elif page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        array = np.moveaxis(array, 0, -1)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


class TiffImage:
    """An ArraySource for one-page TIFF of 8 or 16 bits, (H, W), (H, W, C) or planar (C, H, W), any C.

    Uncompressed files are read window by window from a memory map; others are decoded whole once and kept.
    Raises DataError, when made for what the header shows, else on reading.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as page:
            name = str(page.dtype)
            if name not in _IMAGE_DTYPES:
                raise DataError(
                    f"{path} holds {name} samples, which are not read.", found=name,
                    expected="8-bit or 16-bit unsigned integers", do="convert it to 8 or 16 bits",
                )
            self._orientation = page_orientation(page)
            self.dtype = np.dtype(np.uint16 if name == "uint16" else np.uint8)
            self._alpha = bool(page.extrasamples) and page.extrasamples[-1] in _ALPHA
            self._palette = _palette(page)
            channels = 3 if self._palette is not None else page.samplesperpixel - self._alpha
            height, width = page.imagelength, page.imagewidth
            self._mapped = page.is_memmappable and name != "bool"
            if not self._mapped:
                headers.require_pixels(path, height, width)
            if headers.turns(self._orientation):
                width, height = height, width
            self.shape = (channels, height, width)

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w); None reads all. Raises DataError."""
        rows, columns = window or (slice(None), slice(None))
        array = headers.orient(self._samples, self._orientation)[rows, columns]
        if self._palette is not None:
            array = self._palette[array[..., 0]]
        elif array.dtype == bool:
            array = array.astype(np.uint8) * np.uint8(255)
        if self._alpha:
            array = self._opaque(array)
        if self._mapped:
            array = np.array(array, dtype=self.dtype)
        return np.moveaxis(np.ascontiguousarray(array), -1, 0)

    @cached_property
    def _samples(self) -> Array:
        """(H, W, C) as stored: a memory map or an array."""
        with opened(self.path) as page:
            if self._mapped:
                return _map(self.path, page)
            return decode_page(self.path, page)

    def _opaque(self, array: Array) -> Array:
        opaque = 65535 if self.dtype == np.uint16 else 255
        clear = int(np.count_nonzero(array[..., -1] != opaque))
        if clear:
            raise DataError(
                f"{self.path} has transparent pixels.", found=f"{clear} px are not fully opaque",
                expected="an image without transparency",
                do="flatten it onto the background that it is meant to have, and save it again",
            )
        return array[..., :-1]


def _palette(page: tifffile.TiffPage) -> Array | None:
    """The colours (2^bits, 3) uint8 of a palette image."""
    if page.photometric != _PALETTE:
        return None
    return (np.asarray(page.colormap).T >> 8).astype(np.uint8)


def _map(path: Path, page: tifffile.TiffPage) -> Array:
    """The samples (H, W, C) of an uncompressed page, left on disk."""
    dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
    stored = np.memmap(path, dtype=dtype, mode="r", offset=page.dataoffsets[0], shape=page.shape)
    if page.samplesperpixel == 1:
        return stored.reshape(page.imagelength, page.imagewidth, 1)
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        return np.moveaxis(stored, 0, -1)
    return stored
