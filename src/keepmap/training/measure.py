"""What an optimiser step and drawing its batch cost on this machine: seconds of a few real ones, memory computed.

Leaves the network that it is handed as it was.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from keepmap.networks.describe import parameters
from keepmap.networks.footprint import training_bytes
from keepmap.networks.recompute import let_recompute
from keepmap.planning.plan import Cost, Drawing, Setting
from keepmap.planning.recipe import OptimiserConfig
from keepmap.resources import Stopwatch
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine

_WARM, _TIMED = 2, 3
_CROPS, _CROP_SECONDS = 24, 0.5
"""Crops that are drawn to time drawing, and seconds after which no further one is."""
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
    make: Callable[[nn.Module], Engine],
    limit: float,
    processes: int = 1,
) -> Cost:
    """Median seconds of a step, and the bytes that it needs at its peak: on a GPU those of these steps.

    network: an `nn.Module` that is a Segmenter; `make` gets a copy. limit: seconds after which no further step is
    begun; at least one is timed, the first is not where there are more. processes: that share the crops; this one takes
    its part, alone, so that what they tell each other is not in it.
    """
    copied = copy.deepcopy(network)
    if setting.checkpointing:
        let_recompute(copied)
    engine = make(copied)
    engine.micro = setting.micro
    crop, batch = setting.crop, setting.batch // processes
    on_gpu = engine.fabric.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, network.channels, crop, crop, generator=generator) * 255
    y = torch.randint(network.classes, (batch, crop, crop), generator=generator)
    weights = torch.ones(y.shape) if engine.loss.border else None
    seconds: list[float] = []
    whole = Stopwatch()
    while len(seconds) < _WARM + _TIMED and (not seconds or whole.seconds < limit):
        watch = Stopwatch()
        engine.step(x, y, 1e-6, weights)
        seconds.append(watch.seconds)
    timed = seconds[min(_WARM, len(seconds) - 1) :]
    peak = torch.cuda.max_memory_allocated() if on_gpu else 0
    needed = peak or step_bytes(network, setting, precision=engine.precision, optimiser=engine.config)
    return Cost(statistics.median(timed), needed)


def measure_drawing(batches: Batches) -> Drawing:
    """What our share of a batch takes one thread, by the mean of a few crops, of which the first does not count.

    The store of `batches` should keep nothing: an image is read for its crop, and once more to time that alone.
    Raises what `Batches.draw` raises.
    """
    whole = Stopwatch()
    drawn: list[float] = []
    read: list[float] = []
    while len(drawn) < 2 or (len(drawn) < _CROPS and whole.seconds < _CROP_SECONDS):
        step, i = divmod(len(drawn), batches.sampler.batch)
        watch = Stopwatch()
        replace(batches, share=(i, batches.sampler.batch)).draw(step)
        drawn.append(watch.seconds)
        watch = Stopwatch()
        batches.store.get(batches.sampler.image(step, i))
        read.append(watch.seconds)
    crops = len(range(batches.share[0], batches.sampler.batch, batches.share[1]))
    anew, reading = crops * statistics.fmean(drawn[1:]), crops * statistics.fmean(read[1:])
    return Drawing(anew, max(0.0, anew - reading), between=batches.own is not None)
