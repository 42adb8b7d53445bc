"""Turns Ctrl-C and SIGTERM into a question that the loop asks after every step.

The second Ctrl-C is no question any more: it stops at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interrupt:
    """signal: number of the signal that arrived, 0 while there was none."""

    signal: int = 0


@contextmanager
def caught_signals() -> Iterator[Interrupt]:
    """Hold back the first SIGINT or SIGTERM; outside the main thread signals are left as they are."""
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupt.signal:
            raise KeyboardInterrupt
        interrupt.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
