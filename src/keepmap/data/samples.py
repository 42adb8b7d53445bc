"""Which pixel types images have in memory, how all others become one of them, and which pixels were never measured.

Knows no file format; every reader that meets such samples asks here.

Images are uint8, uint16 or float32. 1-bit samples become 0 and 255. Other integers become float32 and have to lie
within +-16 777 216, up to where float32 holds every whole number. float16 is kept exactly, float64 is rounded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from keepmap.errors import DataError
from keepmap.protocols import Array

_WHOLE = 2**24
_AS_STORED = ("uint8", "uint16")


def image_dtype(path: Path, stored: npt.DTypeLike) -> np.dtype[Any]:
    """The type that samples stored as `stored` have in memory. Raises DataError for complex numbers, text, objects."""
    dtype = np.dtype(stored).newbyteorder("=")
    if dtype.name in _AS_STORED:
        return dtype
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype.kind in "iuf" and dtype.itemsize <= 8:
        return np.dtype(np.float32)
    raise DataError(
        f"{path} holds {dtype.name} samples, which are not read.", found=dtype.name,
        expected="integers or floating-point numbers of at most 64 bits", do="convert it to 8 or 16 bits, or float32",
    )


def as_image(path: Path, array: Array, nodata: float | None = None) -> Array:
    """`array` in its `image_dtype`; where that is float32, `nodata` becomes NaN. Raises DataError."""
    dtype = image_dtype(path, array.dtype)
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if dtype != np.float32:
        return array.astype(dtype, copy=False)
    with np.errstate(over="ignore"):
        converted = array.astype(np.float32)
        empty = np.False_ if nodata is None else array == nodata
    lost = _lost(array, converted) & ~empty
    if lost.any():
        values = array[lost]
        raise DataError(
            f"{path} holds {array.dtype.name} values that float32 cannot hold.",
            found=f"{values.size} values, such as {values.flat[0]}",
            expected=f"whole numbers from {-_WHOLE} to {_WHOLE}, or fractions up to 3.4e38",
            do="rescale the image, or save it as uint16 or float32",
        )
    converted[np.broadcast_to(empty, converted.shape)] = np.nan
    return converted


def _lost(array: Array, converted: Array) -> npt.NDArray[np.bool_]:
    """Where float32 is not exact for a whole number, or overflows."""
    if array.dtype.kind == "f":
        return np.asarray(np.isinf(converted) & np.isfinite(array))
    return np.asarray((array > _WHOLE) | (array < -_WHOLE))


def image_nodata(path: Path, stored: npt.DTypeLike, nodata: float | None) -> float | None:
    """The value that never-measured pixels have in memory: NaN in float32; None where samples cannot have `nodata`."""
    dtype = image_dtype(path, stored)
    if nodata is None:
        return None
    if dtype == np.float32:
        return math.nan
    whole = nodata.is_integer() and 0 <= nodata <= np.iinfo(dtype).max
    return nodata if whole else None


def unmeasured(pixels: Array, nodata: float) -> npt.NDArray[np.bool_]:
    """Which pixels (h, w) of (C, h, w) were never measured.

    NaN in one channel is enough; another value, which may also be a measurement, has to be in all of them.
    """
    if math.isnan(nodata):
        return np.asarray(np.isnan(pixels).any(axis=0))
    return np.asarray((pixels == nodata).all(axis=0))


def filled(pixels: Array, nodata: float | None, values: npt.ArrayLike) -> Array:
    """`pixels` (C, h, w) with the channel `values` (C,), rounded for integers, where nothing was measured."""
    if nodata is None:
        return pixels
    empty = unmeasured(pixels, nodata)
    if not empty.any():
        return pixels
    fill = np.asarray(values, np.float64)
    fill = fill if pixels.dtype.kind == "f" else fill.round()
    return np.where(empty, fill.astype(pixels.dtype)[:, None, None], pixels)


def count_not_finite(pixels: Array) -> int:
    """How many values are NaN or infinite."""
    return pixels.size - int(np.count_nonzero(np.isfinite(pixels))) if pixels.dtype.kind == "f" else 0


def not_finite(path: object, bad: int, values: int) -> DataError:
    """The error for a file of whose `values` that were read `bad` ones are NaN or infinite."""
    return DataError(
        f"{path} has values that are no numbers.", found=f"NaN or infinity in {bad} of {values} values read",
        expected="finite numbers", do="replace them in the image, or declare NaN as the nodata value of a GeoTIFF",
    )


def require_alike(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], where: str, channels: int, trained: str | None
) -> None:
    """Raise DataError unless an image is of the `channels` and of the type `trained`, if that is known, of the network.

    where: the file, for messages.
    """
    if len(shape) != 3 or 0 in shape:
        raise DataError(f"{where} is no image.", found=f"shape {shape}", expected="(C, H, W), each at least 1")
    if shape[0] != channels:
        raise DataError(
            f"{where} has {_count(shape[0])}.",
            found=_count(shape[0]),
            expected=f"{_count(channels)}, as in the images that the network was trained on",
            do="convert the image, or train on images like this one",
        )
    if trained is not None and dtype != np.dtype(trained):
        raise DataError(
            f"{where} holds {dtype} values.",
            found=str(dtype),
            expected=f"{trained}, as in the images that the network was trained on",
            do="convert the image, or train on images like this one",
        )
    if dtype not in (np.uint8, np.uint16) and dtype.kind != "f":
        raise DataError(f"{where} holds {dtype} values.", found=str(dtype), expected="uint8, uint16 or float32")


def _count(channels: int) -> str:
    return f"{channels} channel" + ("s" if channels != 1 else "")
