"""Which crop and batch a step takes, and in how many parts, so that it fits the memory and there are enough of them.

Pure: what a step needs and takes it learns from the functions that it is handed. Chooses no number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import Cost, Measure, Needs, Setting
from keepmap.units import in_bytes

_FEWEST_STEPS = 120
_SMALLEST_CROP = 64
_SMALLER_CROP = 128
_LARGEST_CROP = 256
_SMALLEST_BATCH = 2
_LEAST_STATISTICS = 4
"""Crops that batch norm should see at once; before it sees fewer, activations are recomputed."""
_AREA_POWER, _STEADY_BATCH = 0.5, 8
"""Won with batches of 8 (benchmarks/ablation.py); lost with 2, whose statistics one image of a rare kind upsets."""


@dataclass(frozen=True)
class Fit:
    """The setting that is taken, what it costs, and a reason for each of its four numbers."""

    setting: Setting
    cost: Cost
    because: dict[str, str]


def fit(
    settings: Sequence[Sequence[Setting]],
    memory: int,
    seconds_left: Callable[[], float] | None,
    needs: Needs,
    measure: Measure,
) -> Fit:
    """The first setting that memory and time allow; the last that memory allows is taken however slow it is.

    settings: as `possible` returns them. A setting that would be too slow even if it were as efficient as the larger
    one before it is not measured. Raises OptionError where no setting fits the memory.
    """
    refused, fitting = "", []
    for ways in settings:
        chosen = next((way for way in ways if needs(way) <= memory), None)
        if chosen is None:
            smallest = f"{in_bytes(needs(ways[-1]))}, more than {in_bytes(memory)}"
            refused = f"{ways[0].batch} crops of {ways[0].crop} px need {smallest}"
        else:
            fitting.append((chosen, _why_in_parts(ways[0], chosen, needs, memory)))
    if not fitting:
        raise OptionError(
            "No training step fits the memory.", found=refused, expected="a step of less than that",
            do="pass a smaller --crop or --model, or more --memory",
        )  # fmt: skip
    setting, cost = fitting[0][0], measure(fitting[0][0])
    because = fitting[0][1]
    for smaller, parts in fitting[1:]:
        if not (slow := _slowness(setting, cost, seconds_left)):
            break
        refused, because = slow, parts
        cost = Cost(cost.seconds * _pixels(smaller) / _pixels(setting), cost.bytes)
        setting = smaller
        if smaller == fitting[-1][0] or not _slowness(setting, cost, seconds_left):
            cost = measure(setting)
    best = settings[0][0]
    changed = {"crop": setting.crop != best.crop, "batch": setting.batch != best.batch}
    return Fit(setting, cost, because | {name: refused for name, other in changed.items() if other})


def _why_in_parts(best: Setting, chosen: Setting, needs: Needs, memory: int) -> dict[str, str]:
    """Why a batch is computed as it is: in how many parts, recomputed or not."""
    fits = f"{chosen.batch} crops of {chosen.crop} px need {in_bytes(needs(chosen))} of {in_bytes(memory)}"
    short = f"without, {best.micro} crops at once need {in_bytes(needs(best))}, more than {in_bytes(memory)}"
    return {
        "micro": short if chosen.micro != best.micro else fits,
        "checkpointing": short if chosen.checkpointing != best.checkpointing else fits,
    }


def _slowness(setting: Setting, cost: Cost, seconds_left: Callable[[], float] | None) -> str:
    """Why steps of this cost are out of the question, or nothing. The smallest batch may do with fewer steps."""
    fewest = _FEWEST_STEPS if setting.batch > _SMALLEST_BATCH else _FEWEST_STEPS // 3
    if seconds_left is None or seconds_left() >= fewest * cost.seconds:
        return ""
    what = f"{setting.batch} crops of {setting.crop} px take {cost.seconds:.2f} s a step"
    return f"{what}, fewer than {fewest} steps in the time"


def _pixels(setting: Setting) -> int:
    return setting.crop**2 * setting.batch


def possible(
    figures: Fingerprint, wanted: TrainOptions, fixed: Mapping[str, Any], again: Sequence[bool], processes: int = 1
) -> tuple[list[list[Setting]], dict[str, str]]:
    """Crop and batch, the best first, each with the ways to take such a step, the fastest first; and why the first.

    What was asked for does not change. again: whether activations may be kept, recomputed, or either.
    processes: that share a batch equally. Raises OptionError where they cannot.
    """
    side, why = crop_of(figures, wanted)
    batches, steady = _batches(wanted.batch, processes)
    crops = [side] if wanted.crop is not None or side <= _SMALLER_CROP else [side, _SMALLER_CROP]
    sizes = [*((side, batch) for batch in batches), *((crop, batches[-1]) for crop in crops[1:])]
    settings = []
    for crop, batch in sizes:
        own = batch // processes
        parts = [min(own, fixed["micro"])] if "micro" in fixed else _parts(own)
        large = [part for part in parts if part >= min(own, _LEAST_STATISTICS)] or parts
        ways = [(part, recompute) for recompute in again for part in large]
        ways += [(part, again[-1]) for part in parts if part not in large]
        settings.append([Setting(crop, batch, part, recompute) for part, recompute in ways])
    return settings, {"crop": why, "batch": steady}


def _batches(wanted: int | None, processes: int) -> tuple[list[int], str]:
    """The batches to be tried, each of which the processes share equally, and why."""
    if wanted is not None and wanted % processes:
        raise OptionError(
            f"{processes} processes cannot share {wanted} crops equally.", found=f"--batch {wanted}",
            expected=f"a multiple of {processes}",
        )  # fmt: skip
    if wanted is not None:
        return [wanted], "--batch"
    fitting = [batch for batch in (8, 4, _SMALLEST_BATCH) if batch % processes == 0]
    shared = f", shared equally by {processes} processes" if processes > 1 else ""
    return fitting or [processes], f"steady gradients{shared}"


def _parts(batch: int) -> list[int]:
    """All of a batch at once, then halves of it, down to the fewest that batch norm can do with."""
    parts = [batch]
    while parts[-1] > _SMALLEST_BATCH:
        parts.append(max(_SMALLEST_BATCH, math.ceil(parts[-1] / 2)))
    return parts


def crop_of(figures: Fingerprint, wanted: TrainOptions) -> tuple[int, str]:
    """The side of the crops in pixels that the data ask for, and why."""
    if wanted.crop is not None:
        return wanted.crop, "--crop"
    height, width = figures.heights[1], figures.widths[1]
    crop = min(_LARGEST_CROP, max(_SMALLEST_CROP, 32 * math.ceil(min(height, width) / 32)))
    size = f"; a large object is {figures.large_object:.0f} px" if figures.large_object else ""
    return crop, f"the median image is {height}x{width}, and {_LARGEST_CROP} is enough context{size}"


def area_power(batch: int) -> tuple[float, str]:
    """By which power of its area an image comes, and why. batch: crops of a step."""
    if batch < _STEADY_BATCH:
        return 0.0, f"every image alike: {batch} crops are too few for steady statistics"
    return _AREA_POWER, "an image with four times the area of another comes twice as often"
