"""The next window is read while one is in use, in the order that was said, and nothing is left running."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from keepmap.errors import DataError
from keepmap.inference.ahead import OneAtATime, read_ahead
from keepmap.protocols import Array, Geometry, Window

WINDOWS: list[Window] = [(slice(top, top + 2), slice(0, 3)) for top in range(0, 8, 2)]


def test_the_next_window_is_read_meanwhile_and_no_further_one() -> None:
    begun: list[Window] = []
    second = threading.Event()

    def read(window: Window) -> Array:
        begun.append(window)
        if len(begun) == 2:
            second.set()
        return np.array(window[0].start)

    with read_ahead(read, WINDOWS) as given:
        assert given(WINDOWS[0]) == 0
        assert second.wait(10)  # though nobody asked for it
        assert begun == WINDOWS[:2]
        assert [int(given(window)) for window in WINDOWS[1:]] == [2, 4, 6]
    assert begun == WINDOWS
    assert not [t for t in threading.enumerate() if t.name.startswith("keepmap-ahead")]


def test_one_window_needs_no_thread_and_another_than_the_next_is_an_error() -> None:
    with read_ahead(lambda window: np.array(threading.active_count()), WINDOWS[:1]) as given:
        assert given(WINDOWS[0]) == threading.active_count()
        with pytest.raises(ValueError, match="comes next"):
            given(WINDOWS[1])


def test_an_error_is_told_where_its_window_is_asked_for() -> None:
    def read(window: Window) -> Array:
        if window == WINDOWS[1]:
            raise DataError("damaged")
        return np.zeros(1)

    with read_ahead(read, WINDOWS) as given:
        given(WINDOWS[0])
        with pytest.raises(DataError, match="damaged"):
            given(WINDOWS[1])


class Source:
    """An image that notices two readers."""

    path, shape, dtype, nodata, orientation = Path("x.tif"), (1, 4, 5), np.dtype(np.uint8), 7.0, 1
    geometry = Geometry()
    inside = worst = 0

    def read(self, window: Window | None = None) -> Array:
        self.inside += 1
        threading.Event().wait(0.002)
        self.worst = max(self.worst, self.inside)
        self.inside -= 1
        return np.zeros(self.shape)


def test_one_thread_at_a_time_reads() -> None:
    source = Source()
    guarded = OneAtATime(source)
    threads = [threading.Thread(target=guarded.read) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.worst == 1
    assert (guarded.shape, guarded.nodata, guarded.path) == (source.shape, 7.0, source.path)
