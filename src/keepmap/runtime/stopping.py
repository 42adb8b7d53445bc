"""Whether somebody still waits for what a thread computes: looked at between the layers of a pass.

Knows neither who waits nor what is computed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar


class Cancelled(Exception):
    """Nobody waits for the result any more."""


class Stop:
    """Said once, from any thread, to what computes on another."""

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._told: list[Callable[[], object]] = []

    def cancel(self) -> None:
        """Let the computation end at its next step."""
        with self._lock:  # nobody who has left `telling` is told
            self.cancelled = True
            for call in self._told:
                call()

    def check(self) -> None:
        """Raise Cancelled if it was."""
        if self.cancelled:
            raise Cancelled

    @contextlib.contextmanager
    def telling(self, call: Callable[[], object]) -> Iterator[None]:
        """Let `cancel` call `call` for as long as the block lasts; at once where it came before."""
        with self._lock:
            self._told.append(call)
            late = self.cancelled
        if late:
            call()
        try:
            yield
        finally:
            with self._lock:
                self._told.remove(call)


CURRENT: ContextVar[Stop | None] = ContextVar("stop", default=None)
"""Of the one for whom the present thread computes."""


def check() -> None:
    """Raise Cancelled where nobody waits for what this thread computes."""
    stop = CURRENT.get()
    if stop is not None:
        stop.check()


@contextlib.contextmanager
def ended_by(call: Callable[[], object]) -> Iterator[None]:
    """A block that `call` ends from another thread; that it failed is Cancelled then."""
    stop = CURRENT.get()
    if stop is None:
        yield
        return
    with stop.telling(call):
        try:
            yield
        except Exception:
            stop.check()
            raise


@contextlib.contextmanager
def computing_for(stops: Sequence[Stop | None]) -> Iterator[None]:
    """A block that this thread computes for several; it is cancelled once all of them are. None never is."""
    common = Stop()

    def look() -> None:
        if all(stop is not None and stop.cancelled for stop in stops):
            common.cancel()

    with contextlib.ExitStack() as stack:
        for stop in stops:
            if stop is not None:
                stack.enter_context(stop.telling(look))
        before = CURRENT.set(common)
        try:
            yield
        finally:
            CURRENT.reset(before)
