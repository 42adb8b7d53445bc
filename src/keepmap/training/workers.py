"""Forked processes that draw batches, one pipe each, so that the death of one is seen at once by the end of its pipe.

Knows neither images nor steps beyond their numbers; what is drawn, and what to do about a death, is decided elsewhere.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

import torch

from keepmap.errors import KeepmapError, OptionError
from keepmap.resources import thread_count
from keepmap.training.lock import let_go_in_child

T = TypeVar("T")
_MOST_PLANNED, _MOST_WORKERS = 8, 256


class WorkerDied(Exception):
    """The process that was to send the next answer is gone."""


class Workers(Generic[T]):
    """`number` processes that answer `draw(step)` for the steps from `first` on, each in its turn.

    Each draws every number-th step and waits until its last answer is taken. A shared queue would not do: a process
    that is killed while it writes holds it up for ever. Linux only. They end with this process.
    """

    def __init__(self, draw: Callable[[int], T], first: int, number: int) -> None:
        fork = multiprocessing.get_context("fork")
        self._first = first
        self._ends: list[Connection] = []
        self._processes = []
        for turn in range(number):
            mine, its = fork.Pipe(duplex=False)
            self._ends.append(mine)
            process = fork.Process(
                target=_answer, args=(draw, count(first + turn, number), its, tuple(self._ends)), daemon=True
            )
            process.start()
            its.close()
            self._processes.append(process)

    def answer(self, step: int) -> T:
        """What was drawn for `step`; asked for in order, each once. Raises WorkerDied, and what `draw` raises."""
        try:
            answer = self._ends[(step - self._first) % len(self._ends)].recv()
        except (EOFError, OSError) as error:
            raise WorkerDied(f"step {step}") from error
        if isinstance(answer, KeepmapError):
            raise answer
        drawn: T = answer
        return drawn

    def close(self) -> None:
        """Kill the processes, which hold nothing that is needed; an `answer` under way in a thread ends."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


def _answer(draw: Callable[[int], object], steps: count[int], its: Connection, ends: Sequence[Connection]) -> None:
    """In the process: draw and send until the other end of the pipe is gone. Signals and the lock are the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    let_go_in_child()
    for end in ends:
        end.close()
    torch.set_num_threads(1)
    for step in steps:
        try:
            drawn = draw(step)
        except KeepmapError as error:
            drawn = error
        try:
            its.send(drawn)
        except OSError:
            return


def most_workers(processes: int) -> int:
    """The most workers that a plan gives each of `processes` on this machine: one a core, none without a safe fork."""
    return min(_MOST_PLANNED, max(1, thread_count() // processes)) if sys.platform == "linux" else 0


def check_workers(wanted: int | None) -> None:
    """Raise OptionError where so many cannot be: for an absurd number, and where there is no fork that is safe."""
    if wanted is not None and not 0 <= wanted <= _MOST_WORKERS:
        raise OptionError(f"--workers {wanted} cannot be.", found=str(wanted), expected=f"0 to {_MOST_WORKERS}")
    if wanted and sys.platform != "linux":
        raise OptionError("--workers needs Linux.", found=f"--workers {wanted}", expected="--workers 0: a thread draws")
