"""Writing label images, probabilities and pictures: a file appears under its name whole, or not at all.

Does not know what the values mean, nor in which order the windows come.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from keepmap.config import hidden_beside, whole_file
from keepmap.data.tiff_tags import METRES, tiff_options
from keepmap.data.values import unpack_colours
from keepmap.data.zarr_image import write_zarr
from keepmap.errors import DataError, OutputError
from keepmap.protocols import Array, Geometry, Window

_BIG = 2**32 - 2**25  # bytes of a file beyond which a TIFF has to be a BigTIFF
_TILE = 256  # side of the tiles of a TIFF, in px
_TILED = 2048  # a TIFF with a longer side is tiled
_HELD = 32 << 20  # bytes written to a mapped file after which its pages leave the memory
_LEVEL = 3  # of zlib: of label maps 1.4 times the bytes of 6, its default, in a third of the time


class LabelSink:
    """An ArraySink whose windows gather in an array (H, W), or (K, H, W) for windows (K, h, w).

    written: pixels that are in it already.
    """

    def __init__(self, path: Path, array: Array, written: int = 0) -> None:
        self.path = path
        self._array: Array | None = array
        self._missing: int = array.shape[-2] * array.shape[-1] - written
        self._held = 0

    def write(self, window: Window, labels: Array) -> None:
        """Put (h, w), or (K, h, w), at `window`; each pixel is to be written once."""
        if self._array is None:
            raise OutputError(f"{self.path} is closed and takes no more pixels.")
        self._array[(..., *window)] = labels
        self._missing -= (window[0].stop - window[0].start) * (window[1].stop - window[1].start)
        self._held += labels.size * self._array.itemsize
        if self._held > _HELD:
            _let_go(self._array)
            self._held = 0

    @property
    def pixels(self) -> Array:
        """The array as it is now, to look at and to change before the end. Raises OutputError if it was given up."""
        if self._array is None:
            raise OutputError(f"{self.path} is closed and has no more pixels.")
        return self._array

    @property
    def written(self) -> int:
        """How many pixels are in it."""
        height, width = self.pixels.shape[-2:]
        return int(height * width) - self._missing

    @property
    def begun(self) -> bool:
        """Whether there is a pixel in it."""
        return self._array is None or self.written > 0

    def flush(self) -> None:
        """Bring to the disk what gathers there."""
        if isinstance(self._array, np.memmap):
            self._array.flush()

    def finish(self) -> Array:
        """The whole array, which is given up. Raises OutputError if pixels were never written."""
        array, self._array = self._array, None
        if array is None or self._missing > 0:
            raise OutputError(f"{self.path} was not finished.", found=f"{self._missing} px were never written")
        return array


_S = TypeVar("_S", bound=LabelSink)


class _Writer(NamedTuple):
    """How one format is written. on_disk: the windows gather in a hidden file, not in memory; encode: None where that
    is the file."""

    on_disk: bool
    encode: Callable[[Array, Path, Geometry, float | None], None] | None
    whole: Callable[[Path], AbstractContextManager[Path]]


def open_sink(
    path: Path, shape: tuple[int, int], dtype: npt.DTypeLike, geometry: Geometry = Geometry(),  # noqa: B008
    nodata: float | None = None, written: int | None = None,
) -> AbstractContextManager[LabelSink]:  # fmt: skip
    """A sink for label values (H, W) in the format of the suffix: .png, .tif or .zarr.

    dtype: uint8 or uint16; uint32 for values of colours, which are written as RGB (see `values`).
    geometry: written into the file as far as its format can hold it. nodata: value that a TIFF declares to be none.
    written: for a job that may be stopped and taken up: the pixels that are in the hidden file, 0 for a new one. An
    error that is not about the image then leaves that file.
    Folders are made as needed. Raises OutputError for another suffix, where the disk refuses, or where pixels were
    never written.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise OutputError(
            f"{path} has a suffix for which no writer exists.", found=path.suffix, expected=", ".join(_WRITERS)
        )
    return _gather(path, _Layout(shape, np.dtype(dtype)), writer, geometry, nodata, written, LabelSink)


def hidden_file(path: Path) -> Path:
    """Where the pixels of `path` gather until it is whole."""
    return hidden_beside(path, ".pixels")


class _Layout(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@contextmanager
def _gather(
    path: Path, layout: _Layout, writer: _Writer, geometry: Geometry, nodata: float | None, written: int | None,
    kind: type[_S],
) -> Iterator[_S]:  # fmt: skip
    _make_folder(path)
    hidden, kept = hidden_file(path), False
    sink: _S | None = None
    with writer.whole(path) as part:
        try:
            on_disk = writer.on_disk or written is not None
            sink = kind(path, _map(hidden, *layout, bool(written)) if on_disk else np.zeros(*layout), written or 0)
            yield sink
            if writer.encode is None:
                sink.finish()  # and let go of the map, since a mapped file cannot be renamed everywhere
                hidden.replace(part)
            else:
                writer.encode(sink.finish(), part, geometry, nodata)
        except BaseException as error:
            begun = bool(written) if sink is None else sink.begun
            kept = written is not None and begun and not isinstance(error, DataError)
            raise
        finally:
            if not kept:
                hidden.unlink(missing_ok=True)


class ProbabilitySink(LabelSink):
    """A LabelSink for probabilities: float32 windows (K, h, w), kept as float32, as float16, or as round(255 p)."""

    def write(self, window: Window, labels: Array) -> None:
        """Put (K, h, w) at `window`."""
        coarse = self.pixels.dtype == np.uint8
        super().write(window, np.rint(labels * np.float32(255)) if coarse else labels)


def open_probabilities(
    path: Path, shape: tuple[int, int, int], dtype: npt.DTypeLike = np.float32, written: int | None = None
) -> AbstractContextManager[ProbabilitySink]:
    """A sink for float32 windows (K, h, w) of one .npy array (K, H, W) of `dtype`, which is never held in memory.

    dtype: float32, float16, or uint8 for 255 times the probability, rounded. written: as of `open_sink`.
    """
    layout = _Layout(shape, np.dtype(dtype))
    return _gather(path, layout, _NPY, Geometry(), None, written, ProbabilitySink)


def write_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write an RGB picture (H, W, 3) uint8 as PNG, whole or not at all. Raises OutputError."""
    _make_folder(path)
    with whole_file(path) as partial:
        _encode_png(picture, partial, Geometry(), None)


def write_pieces(path: Path, pieces: Iterable[str]) -> None:
    """Write a text piece by piece, whole or not at all. Raises OutputError."""
    _make_folder(path)
    with whole_file(path) as part, part.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.writelines(pieces)


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


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], taken_up: bool) -> npt.NDArray[Any]:
    """An array on disk, in a .npy file: of zeros, or the one that is there. Raises OutputError if that is another."""
    if taken_up:
        there = np.lib.format.open_memmap(path, mode="r+")
        if (there.shape, there.dtype) != (shape, dtype):
            raise OutputError(f"{path} is not what was begun.", found=f"{there.dtype} {there.shape}", do="remove it")
        return there
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a fatal signal while writing
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError:
            path.unlink()  # nothing is in it that could be taken up
            raise
    return array


def _let_go(array: Array) -> None:
    """Take the pages of a mapped file out of the memory of this process: what is in them is the file's."""
    file: Any = array.base
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


@contextmanager
def _whole_folder(path: Path) -> Iterator[Path]:
    """As `whole_file`, for a folder: one that is there already makes room when the new one is complete."""
    partial, old = hidden_beside(path, ".partial"), hidden_beside(path, ".old")
    try:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
        yield partial
        if path.exists():
            path.replace(old)
        partial.replace(path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def _encode_png(array: Array, path: Path, geometry: Geometry, _: float | None) -> None:
    options: dict[str, Any] = {"compress_level": _LEVEL}
    if geometry.spacing is not None and geometry.unit in METRES:
        inch = METRES["inch"] / METRES[geometry.unit]
        options["dpi"] = (inch / geometry.spacing[1], inch / geometry.spacing[0])
    Image.fromarray(_shown(array)).save(path, format="PNG", **options)


def _encode_tiff(array: Array, path: Path, geometry: Geometry, nodata: float | None) -> None:
    coloured, tiled = array.dtype == np.uint32, max(array.shape) > _TILED
    ome = path.name.lower().removesuffix(".partial").endswith((".ome.tif", ".ome.tiff"))
    shape, dtype = ((*array.shape, 3), np.dtype(np.uint8)) if coloured else (array.shape, array.dtype)
    axes = "YXS" if coloured else "YX"
    colour: Literal["rgb", "minisblack"] = "rgb" if coloured else "minisblack"
    tifffile.imwrite(
        path, _tiles(array) if tiled else _shown(array), shape=shape, dtype=dtype,
        photometric=colour, compression="zlib", compressionargs={"level": _LEVEL}, predictor=False,
        tile=(_TILE, _TILE) if tiled else None, bigtiff=math.prod(shape) * dtype.itemsize > _BIG,
        **tiff_options(geometry, nodata, ome_axes=axes if ome else None),
    )  # fmt: skip


def _tiles(values: Array) -> Iterator[Array]:
    """The tiles of a mask, (_TILE, _TILE) or of colours (_TILE, _TILE, 3), row by row; 0 beyond its end."""
    for top in range(0, values.shape[0], _TILE):
        for left in range(0, values.shape[1], _TILE):
            part = _shown(values[top : top + _TILE, left : left + _TILE])
            missing = [(0, _TILE - side) for side in part.shape[:2]]
            yield np.pad(part, (*missing, *[(0, 0)] * (part.ndim - 2)))
        _let_go(values)


def _encode_zarr(array: Array, path: Path, geometry: Geometry, _: float | None) -> None:
    write_zarr(array, path, geometry)


def _shown(array: Array) -> Array:
    """Label values as files hold them: colours (H, W, 3), numbers as they are."""
    if array.dtype != np.uint32:
        return array
    colours = np.empty((*array.shape, 3), np.uint8)
    for top in range(0, array.shape[0], _TILE):
        colours[top : top + _TILE] = unpack_colours(array[top : top + _TILE])
    return colours


_TIFF = _Writer(True, _encode_tiff, whole_file)
_NPY = _Writer(True, None, whole_file)
_WRITERS = {
    ".png": _Writer(False, _encode_png, whole_file),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".zarr": _Writer(True, _encode_zarr, _whole_folder),
}


def _refused(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written.", found=error.strerror or str(error), expected="a writable folder with free space"
    )
