"""Which axis of a plain array counts channels, and an ArraySource for anything that is sliced like an array.

Opens no file: `npy_image` and `zarr_image` do, and hand over what they found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keepmap.data import headers
from keepmap.data.samples import as_image, image_dtype
from keepmap.errors import DataError, KeepmapError
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Geometry, Window


class Sliceable(Protocol):
    """An array in memory, on disk or in chunks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""

    def __getitem__(self, index: Any) -> Any: ...


class ArrayImage:
    """An ArraySource and a mask reader over the array that `open_array` returns anew for each window.

    axes: one letter for each axis of the array: y, x, c for channels, anything else counts frames.
    Raises DataError, when made for what the shape shows, else on reading.
    """

    nodata = None
    orientation = 1

    def __init__(
        self, path: Path, open_array: Callable[[], Sliceable], axes: str, options: ImageOptions,
        geometry: Geometry = Geometry(),  # noqa: B008
    ) -> None:  # fmt: skip
        self.path = path
        self._open = open_array
        self._axes = axes
        array = open_array()
        self.stored = np.dtype(array.dtype)
        sizes = dict(zip(axes, array.shape, strict=True))
        headers.require_pixels(path, sizes["y"], sizes["x"], sizes["y"] * sizes["x"])
        frames = {axis: n for axis, n in sizes.items() if axis not in "cyx"}
        number = headers.choose_frame(path, math.prod(frames.values()), options.frame)
        place = np.unravel_index(number, tuple(frames.values())) if frames else ()
        self._frame = {axis: int(i) for axis, i in zip(frames, place, strict=True)}
        self.shape = (sizes.get("c", 1), sizes["y"], sizes["x"])
        self.dtype = image_dtype(path, self.stored)
        self.geometry = geometry

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w) as an image; None reads all. Raises DataError."""
        return as_image(self.path, self.read_stored(window))

    def read_stored(self, window: Window | None = None) -> Array:
        """The window (C, h, w) in the type of the file, native byte order; None reads all. Raises DataError."""
        rows, columns = window or (slice(0, self.shape[1]), slice(0, self.shape[2]))
        index: dict[str, slice | int] = {"y": rows, "x": columns, "c": slice(None), **self._frame}
        try:
            part = np.asarray(self._open()[tuple(index[axis] for axis in self._axes)])
        except KeepmapError:
            raise
        except Exception as error:
            raise headers.damaged(self.path, error) from error
        left = [axis for axis in self._axes if axis in "cyx"]
        part = part.transpose([left.index(axis) for axis in "cyx" if axis in left])
        part = part if "c" in left else part[np.newaxis]
        return np.array(part, self.stored.newbyteorder("="), order="C")


def guess_axes(path: Path, shape: tuple[int, ...]) -> str:
    """The axes of an array that does not name them: (H, W), or three with channels last or first; four: frames first.

    The shorter one of the first and the last axis counts channels, the last one where they are equal.
    Raises DataError for any other number of axes, and for an axis of length 0.
    """
    if not 2 <= len(shape) <= 4 or 0 in shape:
        raise DataError(
            f"{path} is no image.", found=f"shape {shape}", expected="(H, W), (H, W, C) or (C, H, W)",
            do="save each image as an array of its own",
        )
    if len(shape) == 2:
        return "yx"
    first, last = shape[-3], shape[-1]
    return "t" * (len(shape) == 4) + ("cyx" if first < last else "yxc")
