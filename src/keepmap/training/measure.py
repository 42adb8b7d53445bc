"""What an optimiser step costs on this machine, from a few real ones on noise.

Leaves the network that it is handed as it was.
"""

from __future__ import annotations

import copy
import statistics

import torch
from torch import nn

from keepmap.planning.plan import Cost
from keepmap.resources import Stopwatch, peak_memory
from keepmap.training.engine import Engine

_WARM, _TIMED = 2, 3


def measure_step(
    network: nn.Module, crop: int, batch: int, *, channels: int, classes: int, device: str, precision: str, limit: float
) -> Cost:
    """Median seconds of a step at `batch` crops of `crop` pixels, and the bytes that the process grew to.

    limit: seconds after which no further step is begun; at least one is timed, the first is not where there are more.
    """
    engine = Engine(copy.deepcopy(network), device=device, precision=precision, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, channels, crop, crop, generator=generator) * 255
    y = torch.randint(classes, (batch, crop, crop), generator=generator)
    seconds: list[float] = []
    whole = Stopwatch()
    while len(seconds) < _WARM + _TIMED and (not seconds or whole.seconds < limit):
        watch = Stopwatch()
        engine.step(x, y, 1e-6)
        seconds.append(watch.seconds)
    timed = seconds[min(_WARM, len(seconds) - 1) :]
    used = torch.cuda.max_memory_allocated() if device == "cuda" else peak_memory()
    return Cost(statistics.median(timed), used)
