"""What an optimiser step costs on this machine: seconds from a few real ones on noise, memory from its layers.

Leaves the network that it is handed as it was.
"""

from __future__ import annotations

import copy
import statistics
from typing import Any

import torch

from keepmap.networks.describe import parameters
from keepmap.networks.footprint import training_bytes
from keepmap.planning.plan import Cost
from keepmap.planning.recipe import LossConfig, OptimiserConfig
from keepmap.resources import Stopwatch
from keepmap.training.engine import Engine

_WARM, _TIMED = 2, 3
_FLOAT = 4
"""Bytes of a weight, of its gradient, of each moment of the optimiser and of the average of the weight."""


def measure_step(
    network: Any,
    crop: int,
    batch: int,
    *,
    device: str,
    precision: str,
    limit: float,
    optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
    loss: LossConfig = LossConfig(),  # noqa: B008
) -> Cost:
    """Median seconds of a step at `batch` crops of `crop` pixels, and the bytes that it needs at its peak.

    network: an `nn.Module` that is a Segmenter. The bytes are computed, or counted where its layers are not known.
    limit: seconds after which no further step is begun; at least one is timed, the first is not where there are more.
    """
    engine = Engine(copy.deepcopy(network), device=device, precision=precision, optimiser=optimiser, loss=loss)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, network.channels, crop, crop, generator=generator) * 255
    y = torch.randint(network.classes, (batch, crop, crop), generator=generator)
    weights = torch.ones(y.shape) if loss.border else None
    seconds: list[float] = []
    whole = Stopwatch()
    while len(seconds) < _WARM + _TIMED and (not seconds or whole.seconds < limit):
        watch = Stopwatch()
        engine.step(x, y, 1e-6, weights)
        seconds.append(watch.seconds)
    timed = seconds[min(_WARM, len(seconds) - 1) :]
    width = 2 if precision == "bfloat16" else 4
    activations = batch * training_bytes(network, (crop, crop), bytes_per_value=width)
    each = _FLOAT * (2 + (1 if optimiser.optimiser == "sgd" else 2) + (optimiser.averaging > 0))
    return Cost(statistics.median(timed), activations + each * parameters(network))
