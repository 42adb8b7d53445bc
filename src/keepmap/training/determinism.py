"""Computing that gives the same bits each time: torch's algorithms and its number of threads.

Knows no training; which random numbers are drawn is decided by seed and step, elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from keepmap.protocols import Progress


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Within the block torch computes the same bits each time, or raises RuntimeError where it cannot; off: nothing.

    For CUDA this has to begin before its first matrix product. How sums are split depends on the threads as well.
    """
    if not on:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def agreed_threads(before: int, progress: Progress) -> int:
    """The number of torch's threads; where it is not the one of `before`, that is said, or if `deterministic` undone.

    before: the number that a training began with, 0 for one that begins.
    """
    now = torch.get_num_threads()
    if before and before != now and torch.are_deterministic_algorithms_enabled():
        torch.set_num_threads(before)
    elif before and before != now:
        progress.say(f"note    {now} threads, before {before}: sums differ in their last bits, and so will the weights")
    return torch.get_num_threads()
