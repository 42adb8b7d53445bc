"""Arrays in a file without a name that is mapped into memory: it goes with its processes, also where they are killed.

Does not know what the arrays are. Processes that were forked share the file: what one puts there, all get.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keepmap.protocols import Array

_ALIGNED = 64  # bytes that an array begins at a multiple of
Layout = Sequence[tuple[npt.DTypeLike, tuple[int, ...]]]
"""Type and shape of each of some arrays."""


class Scratch:
    """A place for the arrays of each of `layouts` in a file in `folder`; as much of the disk as was put there is used.

    Raises OSError where the folder takes no file.
    """

    def __init__(self, folder: Path, layouts: Sequence[Layout]) -> None:
        self._layouts = layouts
        sizes = [sum(map(_rounded, map(_bytes, layout))) for layout in layouts]
        self._starts = list(accumulate(sizes, initial=_rounded(len(layouts))))
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(self._starts[-1])
            self._map = mmap.mmap(file.fileno(), self._starts[-1])
            self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        self._map[: len(layouts)] = bytes(len(layouts))  # whether there is anything, a byte for each

    def get(self, place: int) -> tuple[Array, ...] | None:
        """The arrays at `place`, which may not be written to; None if none were put there."""
        if not self._map[place]:
            return None
        arrays, start = [], self._starts[place]
        for one in self._layouts[place]:
            dtype, shape = np.dtype(one[0]), one[1]
            count = _bytes(one) // dtype.itemsize
            array = np.frombuffer(self._map, dtype, count, start).reshape(shape)
            array.flags.writeable = False
            arrays.append(array)
            start += _rounded(_bytes(one))
        return tuple(arrays)

    def put(self, place: int, arrays: Sequence[Array]) -> None:
        """Write arrays of the planned layout. Raises OSError where the disk refuses."""
        start = self._starts[place]
        for array, one in zip(arrays, self._layouts[place], strict=True):
            self._write(start, np.ascontiguousarray(array).data.cast("B"))
            start += _rounded(_bytes(one))
        self._map[place] = 1

    def _write(self, start: int, content: memoryview) -> None:
        """Through the file where that can be: on a full disk, writing to the map would end the process."""
        if not hasattr(os, "pwrite"):
            self._map[start : start + len(content)] = bytes(content)
            return
        while len(content):
            written = os.pwrite(self._handle, content, start)
            start, content = start + written, content[written:]


def _bytes(one: tuple[npt.DTypeLike, tuple[int, ...]]) -> int:
    return int(np.prod(one[1], dtype=np.int64)) * np.dtype(one[0]).itemsize


def _rounded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
