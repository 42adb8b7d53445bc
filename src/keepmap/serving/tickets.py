"""A request under way: whether it was cancelled, and how far it is.

Knows neither what is computed nor who waits for it.
"""

from __future__ import annotations

from keepmap.protocols import Silent
from keepmap.runtime.stopping import Stop


class Ticket(Stop, Silent):
    """What a request and its computation share; a Tracker that counts.

    total: units of the whole, of which `done` are finished. Read and written from several threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0
        self.done = 0.0

    def advance(self, done: float = 1, **figures: float | str) -> None:
        """`done` more units are finished. Raises Cancelled."""
        self.done += done
        self.check()

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0
