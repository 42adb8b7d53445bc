"""A request under way: whether it was cancelled, and how far it is.

Knows neither what is computed nor who waits for it.
"""

from __future__ import annotations

from contextvars import ContextVar

from keepmap.protocols import Silent


class Cancelled(Exception):
    """Nobody waits for the result any more."""


class Ticket(Silent):
    """What a request and its computation share; a Tracker that counts.

    total: units of the whole, of which `done` are finished. Read and written from several threads.
    """

    def __init__(self) -> None:
        self.cancelled = False
        self.total = 0.0
        self.done = 0.0

    def cancel(self) -> None:
        """Let the computation end at its next step."""
        self.cancelled = True

    def check(self) -> None:
        """Raise Cancelled if it was."""
        if self.cancelled:
            raise Cancelled

    def advance(self, done: float = 1, **figures: float | str) -> None:
        """`done` more units are finished. Raises Cancelled."""
        self.done += done
        self.check()

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


CURRENT: ContextVar[Ticket | None] = ContextVar("ticket", default=None)
"""The request that the present thread computes for."""
