"""What an optimiser step costs on this machine: seconds from a few real ones on noise, memory computed.

Leaves the network that it is handed as it was.
"""

from __future__ import annotations

import copy
import statistics
from typing import Any

import torch

from keepmap.networks.describe import parameters
from keepmap.networks.footprint import training_bytes
from keepmap.networks.recompute import let_recompute
from keepmap.planning.plan import Cost, Setting
from keepmap.planning.recipe import LossConfig, OptimiserConfig
from keepmap.resources import Stopwatch
from keepmap.training.engine import Engine

_WARM, _TIMED = 2, 3
_FLOAT = 4
"""Bytes of a weight, of its gradient, of each moment of the optimiser and of the average of the weight."""


def step_bytes(
    network: Any, setting: Setting, *, precision: str, optimiser: OptimiserConfig = OptimiserConfig()  # noqa: B008
) -> int:
    """The bytes that a step needs at its peak, computed, or counted where the layers of `network` are not known.

    network: an `nn.Module` that is a Segmenter. Left out are the images, Python and what a kernel needs inside itself.
    """
    width = 2 if precision == "bfloat16" else 4
    size = (setting.crop, setting.crop)
    if setting.checkpointing and not network.checkpointing:
        network = copy.deepcopy(network)
        let_recompute(network)
    activations = setting.micro * training_bytes(network, size, bytes_per_value=width)
    each = _FLOAT * (2 + (1 if optimiser.optimiser == "sgd" else 2) + (optimiser.averaging > 0))
    return activations + each * parameters(network)


def measure_step(
    network: Any,
    setting: Setting,
    *,
    device: str,
    precision: str,
    limit: float,
    optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
    loss: LossConfig = LossConfig(),  # noqa: B008
    processes: int = 1,
) -> Cost:
    """Median seconds of a step, and the bytes that it needs at its peak: on a GPU those of these steps.

    network: an `nn.Module` that is a Segmenter. limit: seconds after which no further step is begun; at least one is
    timed, the first is not where there are more. processes: that share the crops; this one takes its part, alone, so
    that what they tell each other is not in it.
    """
    copied = copy.deepcopy(network)
    if setting.checkpointing:
        let_recompute(copied)
    engine = Engine(copied, device=device, precision=precision, optimiser=optimiser, loss=loss)
    engine.micro = setting.micro
    crop, batch = setting.crop, setting.batch // processes
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
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
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    needed = peak or step_bytes(network, setting, precision=precision, optimiser=optimiser)
    return Cost(statistics.median(timed), needed)
