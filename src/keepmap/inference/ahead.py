"""Reading the next part of an image in a thread while one is computed.

Knows windows and what reads them. No torch operation runs in that thread: its own threads would come on top of those
that compute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

from keepmap.protocols import Array, ArraySource, Window


@contextmanager
def read_ahead(read: Callable[[Window], Array], windows: Iterable[Window]) -> Iterator[Callable[[Window], Array]]:
    """A function that gives what `read` gives; once it has given one of `windows`, the next is being read.

    Raises ValueError for a window that is not the next of `windows`, and what `read` raises when it is asked for.
    """
    coming, waiting = iter(windows), deque[tuple[Window, Future[Array]]]()
    with ThreadPoolExecutor(1, "keepmap-ahead") as thread:

        def begin() -> None:
            window = next(coming, None)
            if window is not None:
                waiting.append((window, thread.submit(read, window)))

        def give(window: Window) -> Array:
            expected, future = waiting.popleft() if waiting else (next(coming, None), None)
            if window != expected:
                raise ValueError(f"{window} is not the window that comes next")
            array = read(window) if future is None else future.result()
            begin()
            return array

        yield give


class OneAtATime:
    """An ArraySource that is read by one thread at a time."""

    def __init__(self, source: ArraySource) -> None:
        self.path, self.shape, self.dtype = source.path, source.shape, source.dtype
        self.nodata, self.orientation, self.geometry = source.nodata, source.orientation, source.geometry
        self._source, self._lock = source, Lock()

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w)."""
        with self._lock:
            return self._source.read(window)
