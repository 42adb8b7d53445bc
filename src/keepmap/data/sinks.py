"""Writing label images, probabilities and pictures: a file appears under its name whole, or not at all.

Does not know what the values mean, nor in which order the windows come.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from keepmap.config import whole_file
from keepmap.errors import OutputError
from keepmap.protocols import Array, ArraySink, Window

_Encoder = Callable[[Array, Path], None]


class FileSink:
    """An ArraySink whose windows gather in an array, in memory or mapped to a hidden file beside the target.

    shape: (H, W), or (K, H, W) for windows (K, h, w). encode writes the whole array to the path it is given; None if
    the mapped file is the result already. Raises OutputError where the disk refuses, or pixels were never written.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], array: Array, encode: _Encoder | None, mapped: Path | None
    ) -> None:
        self.path = path
        self._array: Array | None = array
        self._encode = encode
        self._mapped = mapped
        self._missing = shape[-2] * shape[-1]

    def write(self, window: Window, labels: Array) -> None:
        """Put (h, w), or (K, h, w), at `window`; each pixel is to be written once."""
        if self._array is None:
            raise OutputError(f"{self.path} is closed and takes no more pixels.")
        self._array[(..., *window)] = labels
        self._missing -= (window[0].stop - window[0].start) * (window[1].stop - window[1].start)

    def __enter__(self) -> FileSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Name the file, if all pixels came and no exception passes through; remove what is left."""
        partial = partial_path(self.path)
        try:
            if kind is None:
                self._finish(partial)
        except OSError as failure:
            raise _refused(self.path, failure) from failure
        finally:
            self._array = None
            for leftover in (partial, self._mapped):
                if leftover is not None:
                    leftover.unlink(missing_ok=True)

    def _finish(self, partial: Path) -> None:
        if self._missing > 0:
            raise OutputError(f"{self.path} was not finished.", found=f"{self._missing} px were never written")
        array = self._array
        if self._encode is not None and array is not None:
            self._encode(array, partial)
        elif isinstance(array, np.memmap):
            array.flush()
        del array
        self._array = None  # a mapped file cannot be renamed everywhere
        (partial if self._encode is not None else self._mapped or partial).replace(self.path)


def partial_path(path: Path) -> Path:
    """The hidden file beside `path` in which it grows."""
    return path.with_name(f".{path.name}.partial")


def open_sink(path: Path, shape: tuple[int, int], dtype: npt.DTypeLike) -> ArraySink:
    """A sink for label values (H, W), uint8 or uint16: .png, held in memory, or .tif, held on disk and compressed.

    Folders are made as needed. Raises OutputError for another suffix, or where the folder cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        _make_folder(path)
        return FileSink(path, shape, np.zeros(shape, dtype), _encode_png, None)
    if suffix in (".tif", ".tiff"):
        mapped = path.with_name(f".{path.name}.pixels")
        return FileSink(path, shape, _map(path, mapped, shape, dtype), _encode_tiff, mapped)
    raise OutputError(f"{path} has a suffix for which no writer exists.", found=suffix, expected=".png or .tif")


def open_probabilities(path: Path, shape: tuple[int, int, int]) -> FileSink:
    """A sink for float32 windows (K, h, w) of one .npy array (K, H, W), which is never held in memory."""
    mapped = partial_path(path)
    return FileSink(path, shape, _map(path, mapped, shape, np.float32), None, mapped)


def write_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write an RGB picture (H, W, 3) uint8 as PNG, whole or not at all. Raises OutputError."""
    _make_folder(path)
    with whole_file(path) as partial:
        _encode_png(picture, partial)


def write_array(path: Path, array: Array) -> None:
    """Write an array as .npy, whole or not at all. Raises OutputError."""
    _make_folder(path)
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(path, error) from error


def _map(path: Path, mapped: Path, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A zero array on disk, in a .npy file named `mapped`."""
    _make_folder(path)
    try:
        array = np.lib.format.open_memmap(mapped, mode="w+", dtype=np.dtype(dtype), shape=shape)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a fatal signal while writing
            with mapped.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, mapped.stat().st_size)
        return array
    except OSError as error:
        mapped.unlink(missing_ok=True)
        raise _refused(path, error) from error


def _encode_png(array: Array, path: Path) -> None:
    Image.fromarray(array).save(path, format="PNG")


def _encode_tiff(array: Array, path: Path) -> None:
    colour: Literal["minisblack"] = "minisblack"
    tifffile.imwrite(path, array, photometric=colour, compression="zlib", predictor=False, metadata=None)


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written.", found=error.strerror or str(error), expected="a writable folder with free space"
    )
