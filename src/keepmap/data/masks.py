"""Mask files as label values: read by mode, never colour-converted, never lossy.

Does not know which values are classes; `label_rules` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.ImageFile import ImageFile

from keepmap.data import headers, pillow_image
from keepmap.data.arrays import ArrayImage
from keepmap.data.images import open_image
from keepmap.data.npy_image import open_npy
from keepmap.data.tiff_plane import TiffPlane
from keepmap.data.values import COLOUR, pack_colours
from keepmap.data.zarr_image import open_zarr
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Geometry

_GREY_STEP = {2: 85, 4: 17}
"""Bits of a grey PNG -> what Pillow multiplies its values by."""

_MODES = {
    "1": "1-bit",
    "L": "8-bit grey",
    "P": "palette",
    "I": "16-bit grey",
    "I;16": "16-bit grey",
    "LA": "grey with alpha",
    "RGBA": "RGB with alpha",
}
"""Pillow's name of a mode -> ours, where they differ."""

_EXPECTED = (
    "one label value for each pixel: grey, palette, 1-bit or colour-coded PNG, BMP or GIF, integer TIFF, .npy or Zarr"
)


def read_mask(
    path: Path, options: ImageOptions = ImageOptions(), kind: str | None = None  # noqa: B008
) -> npt.NDArray[np.int32]:
    """The label values (H, W) of a mask file, orientation applied. kind: the format, where the suffix is not to tell.

    1-bit gives 0 and 1, a palette its indices, a colour its value (see `values`), which for equal channels is that of
    one channel. Raises DataError for colours of 16 bits, transparency, JPEG and formats that are not read.
    """
    return read_stored_mask(path, options, kind).astype(np.int32)


def read_stored_mask(path: Path, options: ImageOptions, kind: str | None = None) -> Array:
    """What `read_mask` gives, as the integers (H, W) that the file holds: bool, uint8, uint16, int32, ..."""
    reader = _READERS.get(kind or headers.SUFFIXES.get(path.suffix.lower(), ""))
    if reader is None:
        headers.read_head(path)
        raise DataError(
            f"{path} is of a format that is not read as a mask.", found=path.suffix or "no suffix",
            expected=_EXPECTED, do="save the mask as PNG",
        )
    return reader(path, options)


def mask_mode(path: Path, options: ImageOptions = ImageOptions()) -> str:  # noqa: B008
    """How a mask file stores its values, from its header alone: "palette", "8-bit grey", ... Raises DataError."""
    kind = headers.SUFFIXES.get(path.suffix.lower(), "")
    if kind == headers.TIFF:
        plane = TiffPlane(path, options)
        return f"{_rgb(plane.channels)}TIFF {plane.dtype}"
    if kind in _ARRAYS:
        image = _ARRAYS[kind](path, options)
        return f"{_rgb(image.shape[0])}{kind} {image.stored.name}"
    with pillow_image.opened(path, options) as file:
        return _MODES.get(file.image.mode, file.image.mode)


def _rgb(channels: int) -> str:
    return "RGB " * (channels > 2)


def declared_nodata(path: Path, options: ImageOptions = ImageOptions()) -> float | None:  # noqa: B008
    """The value that a GeoTIFF declares to be no label; None in any other mask. Raises DataError."""
    is_tiff = headers.SUFFIXES.get(path.suffix.lower()) == headers.TIFF
    return TiffPlane(path, options).nodata if is_tiff else None


def mask_geometry(path: Path, options: ImageOptions = ImageOptions()) -> Geometry:  # noqa: B008
    """Pixel size and place as a mask file says, from its header alone. Raises DataError."""
    is_tiff = headers.SUFFIXES.get(path.suffix.lower()) == headers.TIFF
    return TiffPlane(path, options).geometry if is_tiff else open_image(path, options).geometry


def _read_pillow(path: Path, options: ImageOptions) -> Array:
    with pillow_image.opened(path, options) as file:
        if file.lossy:
            raise _lossy(path, file.kind)
        if file.kind == headers.GIF and file.image.mode.startswith("RGB"):
            raise DataError(
                f"{path}: only the first frame of a GIF gives the indices of its palette.",
                found=f"frame {file.image.tell()}, whose decoder gives colours", expected=_EXPECTED,
                do="save the frame as a PNG with its palette",
            )
        if file.depth == 16 and file.image.mode not in ("I", "I;16"):
            array = _one_channel(path, pillow_image.decode_png(path), alpha=file.image.mode in ("LA", "RGBA"))
        elif pillow_image.is_plain_png(file):
            array = _one_channel(path, pillow_image.decode_png(path), alpha=False)
        else:
            array = _values(path, file.image, file.depth)
        return headers.orient(array, file.orientation)


def _values(path: Path, image: ImageFile, depth: int) -> Array:
    array = np.array(image)
    if image.mode in ("1", "P", "I", "I;16"):
        return array
    if image.mode == "L":
        return array // _GREY_STEP.get(depth, 1)
    if image.mode in ("LA", "RGB", "RGBA"):
        return _one_channel(path, array, alpha=image.mode != "RGB")
    raise DataError(
        f"{path} has the colour mode {image.mode}, which is no mask.", found=image.mode, expected=_EXPECTED,
        do="save the mask as a grey PNG",
    )


def _read_tiff(path: Path, options: ImageOptions) -> Array:
    plane = TiffPlane(path, options)
    headers.require_pixels(path, *plane.shape, options.max_pixels, plane.channels)
    _require_integers(path, plane.dtype)
    if plane.lossy:
        raise _lossy(path, "TIFF", " with JPEG compression")
    return _one_channel(path, plane.read(), alpha=plane.channels in (2, 4))


def _read_array(path: Path, options: ImageOptions) -> Array:
    image = (open_zarr if path.is_dir() else open_npy)(path, options)
    channels, height, width = image.shape
    headers.require_pixels(path, height, width, options.max_pixels, channels)
    _require_integers(path, image.stored)
    return _one_channel(path, np.moveaxis(image.read_stored(), 0, -1), alpha=False)


def _lossy(path: Path, kind: str, how: str = "") -> DataError:
    return DataError(
        f"{path} is a {kind} file, whose compression changes label values.", found=kind + how, expected=_EXPECTED,
        do=f"save the mask as PNG from its source (a converted {kind} keeps the damage), or keepmap check --fix OUT",
    )


def _require_integers(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "bui":
        raise DataError(
            f"{path} holds {dtype} samples, which are no label values.", found=str(dtype),
            expected="integers", do="save the mask with integer values",
        )


def _one_channel(path: Path, array: Array, *, alpha: bool) -> Array:
    """(H, W) from (H, W, C): the channel that all equal, or the values of colours. The alpha, the last, is opaque."""
    if alpha:
        opaque = True if array.dtype == bool else np.iinfo(array.dtype).max
        if (array[..., -1] != opaque).any():
            raise DataError(
                f"{path} has transparent pixels, whose label is unknown.", found="an alpha channel",
                expected=_EXPECTED, do="save the mask without transparency",
            )
        array = array[..., :-1]
    first = array[..., 0]
    if any((array[..., channel] != first).any() for channel in range(1, array.shape[-1])):
        if array.shape[-1] == 3 and array.dtype == np.uint8:
            return pack_colours(array)
        raise DataError(
            f"{path} has several channels that are no colours.", found=f"{array.shape[-1]} channels of {array.dtype}",
            expected=_EXPECTED, do="replace each colour by the number of its class, and save the mask as a grey PNG",
        )
    if first.dtype.itemsize >= 4 and first.size and (first.max() >= COLOUR or first.min() <= -COLOUR):
        raise DataError(
            f"{path} holds label values that are too large.", found=f"{first.min()}..{first.max()}",
            expected=f"at most 65535, in instance masks {COLOUR - 1}", do="number the classes or the objects from 0 on",
        )
    return first


_ARRAYS: dict[str, Callable[[Path, ImageOptions], ArrayImage]] = {headers.NPY: open_npy, headers.ZARR: open_zarr}
_READERS: dict[str, Callable[[Path, ImageOptions], Array]] = {
    headers.PNG: _read_pillow,
    headers.JPEG: _read_pillow,
    headers.WEBP: _read_pillow,
    headers.BMP: _read_pillow,
    headers.GIF: _read_pillow,
    headers.TIFF: _read_tiff,
    headers.NPY: _read_array,
    headers.ZARR: _read_array,
}
