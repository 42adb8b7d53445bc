"""A TIFF frame as an image: colour models, palettes, alpha and pixel types.

Does not choose between file formats (`images` does) and gives label values no meaning (`masks` does).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from keepmap.data.samples import as_image, image_dtype, image_nodata
from keepmap.data.tiff_plane import TiffPlane
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Window

_PALETTE = tifffile.PHOTOMETRIC.PALETTE
_COLOUR_MODELS = (
    tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB, _PALETTE, tifffile.PHOTOMETRIC.YCBCR,
)  # fmt: skip


class TiffImage:
    """An ArraySource for a TIFF frame of any channel count and any number type, BigTIFF, OME-TIFF and GeoTIFF alike.

    Uncompressed files are read from a memory map; of others only the strips and tiles that a window touches are
    decoded. Raises DataError, when made for what the header shows, else on reading.
    """

    def __init__(self, path: Path, options: ImageOptions) -> None:
        self.path = path
        self._plane = plane = TiffPlane(path, options)
        if plane.photometric not in _COLOUR_MODELS:
            name = getattr(plane.photometric, "name", str(plane.photometric))
            raise DataError(
                f"{path} has the colour model {name}, which is not read.", found=name,
                expected="grey, RGB or palette", do="convert it to RGB or grey",
            )
        self._palette = _palette(plane)
        self.dtype = np.dtype(np.uint8) if self._palette is not None else image_dtype(path, plane.dtype)
        self.nodata = None if self._palette is not None else image_nodata(path, plane.dtype, plane.nodata)
        self.geometry, self.orientation = plane.geometry, plane.orientation
        self.shape = (3 if self._palette is not None else plane.channels - plane.alpha, *plane.shape)

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w); None reads all. Raises DataError."""
        array = self._plane.read(window)
        if self._palette is not None:
            array = self._palette[array[..., 0]]
        elif self._plane.alpha:
            array = self._opaque(array)
        array = as_image(self.path, array, self._plane.nodata)
        return np.moveaxis(np.ascontiguousarray(array), -1, 0)

    def _opaque(self, array: Array) -> Array:
        opaque = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
        clear = int(np.count_nonzero(array[..., -1] != opaque))
        if clear:
            raise DataError(
                f"{self.path} has transparent pixels.", found=f"{clear} px are not fully opaque",
                expected="an image without transparency",
                do="flatten it onto the background that it is meant to have, and save it again",
            )
        return array[..., :-1]


def _palette(plane: TiffPlane) -> Array | None:
    """The colours (2^bits, 3) uint8 of a palette image."""
    if plane.photometric != _PALETTE:
        return None
    if plane.colormap is None or plane.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{plane.path} lacks its palette.", found="no colours", expected="one for each value",
            do="copy it again from its source, or save it as RGB",
        )
    return (np.asarray(plane.colormap).T >> 8).astype(np.uint8)
