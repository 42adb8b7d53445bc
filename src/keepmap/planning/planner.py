"""Makes the plan: fits crop, batch and number of steps to memory and time, and gives every entry its reason.

Pure: the machine speaks through `Situation` and what a step was measured to cost. Which network is chosen elsewhere.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from keepmap.options import TrainOptions
from keepmap.planning.choice import Choice, Situation
from keepmap.planning.defaults import DEFAULTS
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.fitting import Fit, area_power, fit, possible
from keepmap.planning.plan import Draw, Drawing, Measure, Needs, Plan, Setting, loss_of_entries
from keepmap.planning.recipe import LossConfig, OptimiserConfig, effective_number
from keepmap.planning.settings import Asked
from keepmap.units import in_bytes

_WARM_UP = 30
_STEP_OVER_FORWARD = 3
"""A step computes about three forward passes: one forward, two backward."""
_VALIDATION_SHARE, _LONGEST_VALIDATION = 0.06, 0.1
"""Shares of the training time: of all validations, unless one takes longer; of one, which scores fewer images then."""
_MOST_VALIDATIONS = 10
_UPRIGHT = 0.1
_RARE = 0.02
"""Share of the pixels below which the rarest of three classes or more is hardly learnt, unless it counts more."""
_CLOSING = 2_000_000
"""Pixels that are predicted once more when a training is over, at most: for the temperature and for the report."""
_SHARE, _LITTLE = 0.5, 0.1
"""Shares of a step that drawing its batch may take: beside it, where it is slower than alone; in a thread that keeps
the one waiting that steps, or launches the kernels of a GPU."""
FIXED = "--set"
"""The reason of an entry that was fixed."""
_OBJECTS, _REGIONS = "gaps between the objects of the masks", "gaps between connected regions of a class"
Entries = dict[str, tuple[Any, str]]
"""Entry of the plan -> its value and the reason."""


def make_plan(
    choice: Choice,
    figures: Fingerprint,
    asked: Asked,
    here: Situation,
    *,
    seconds_left: Callable[[], float],
    needs: Needs,
    measure: Measure,
    draw: Draw,
) -> Plan:
    """The plan that fills the seconds left of --time, or the steps or epochs that were asked for.

    Raises OptionError where no step fits the memory.
    """
    wanted, fixed = asked.options, asked.fixed
    timed = wanted.steps is None and wanted.epochs is None
    on = bool(choice.options.get("checkpointing"))
    either = choice.recomputes and not on and "checkpointing" not in fixed
    settings, why = possible(figures, wanted, fixed, (False, True) if either else (on,), here.processes)
    fitted = fit(settings, here.memory, seconds_left if timed else None, needs, measure)
    setting = fitted.setting
    options = {**choice.options, **({"checkpointing": True} if setting.checkpointing else {})}
    step: Entries = {name: (getattr(setting, name), {**why, **fitted.because}[name]) for name in vars(setting)}
    entries: Entries = {
        **DEFAULTS,
        **_of_classes(figures, fixed.get("weighting")),
        **_of_choice(replace(choice, options=options)),
        "reach": (choice.reach, coverage(choice.reach, figures)),
        **_of_machine(here, wanted),
        "memory_format": (choice.memory_format, choice.because_format),
        **_of_data(figures),
        **step,
        **_of_step(fitted),
        **({"frozen_statistics": (True, choice.because_frozen)} if choice.because_frozen else {}),
        **{name: (value, FIXED) for name, value in fixed.items()},
    }

    forward = _forward(setting, fitted.cost.seconds)
    scored, validation = _scored(forward, here, fixed, seconds_left() if timed else None)

    def whole(workers: tuple[int, str]) -> Plan:
        left = seconds_left() - min(_CLOSING * forward, validation) if timed else None
        lengths = _lengths(setting, fitted.cost.seconds, figures, asked, validation, left)
        return _plan({**entries, **lengths, "validation_images": scored, "workers": workers}, asked, here)

    if wanted.workers is not None:
        return whole((wanted.workers, "--workers"))
    draft = whole((0, ""))
    return whole(_workers(draft, figures.images, here, draw(draft)))


def _plan(entries: Entries, asked: Asked, here: Situation) -> Plan:
    because = {name: FIXED if name in asked.said else reason for name, (_, reason) in entries.items()}
    if entries["border"][0]:
        because["border"] += f"; {_OBJECTS if here.instances else _REGIONS}"
    return Plan(**{name: value for name, (value, _) in entries.items()}, because=because)


def _workers(plan: Plan, images: int, here: Situation, drawing: Drawing) -> tuple[int, str]:
    """The fewest processes that draw batches as fast as steps are taken, 0 where a thread does, and why.

    An image is read once; a training that is short sees few of them again.
    """
    anew = min(1.0, images / (plan.steps * plan.batch))
    seconds = drawing.kept + anew * (drawing.read - drawing.kept)
    said = f"a batch is drawn in {seconds:.2g} s, a step takes {plan.step_seconds:.2g} s"
    share = seconds / plan.step_seconds
    if share <= (_LITTLE if drawing.between or plan.device == "cuda" else _SHARE):
        return 0, f"{said}: a thread does"
    needed = math.ceil(share / _SHARE)
    if needed <= here.workers:
        return needed, said
    most = f"{here.workers} are the most here" if here.workers else "processes that draw need Linux"
    return here.workers, f"{said}, which {needed} would hide; {most}"


def without_objects(plan: Plan) -> Plan:
    """`plan` for crops of which the classes alone are known, as a callable of the user's returns them."""
    reason = plan.because["border"].replace(_OBJECTS, _REGIONS)
    return replace(plan, because={**plan.because, "border": reason})


def recipe_of(fixed: Mapping[str, Any], figures: Fingerprint) -> tuple[LossConfig, OptimiserConfig]:
    """Loss and optimiser of the plan to be made, which its steps are measured with."""
    free = {**DEFAULTS, **_of_classes(figures, fixed.get("weighting"))}
    entries = {**{name: value for name, (value, _) in free.items()}, **fixed}
    names = {f.name for f in fields(OptimiserConfig)} & entries.keys()
    return loss_of_entries(entries), OptimiserConfig(**{name: entries[name] for name in names})


def coverage(reach: tuple[int, int], figures: Fingerprint) -> str:
    """Whether an output pixel sees a large object, in words."""
    seen, large = sum(reach) + 1, figures.large_object
    if not large:
        return "no object was measured"
    objects = f"of the objects one in ten is larger than {large:.0f} px"
    return f"it sees {seen} px; {objects}" if seen >= large else f"it sees {seen} px, too few: {objects}"


def _of_choice(choice: Choice) -> Entries:
    return {
        "network": (choice.network, choice.because),
        "options": (choice.options, choice.because),
        "pretrained": (choice.pretrained, choice.because),
        "mean": (choice.mean, choice.because_mean),
        "deviation": (choice.deviation, choice.because_mean),
    }


def _of_step(fitted: Fit) -> Entries:
    size = f"{fitted.setting.batch} crops of {fitted.setting.crop} px"
    return {
        "area_power": area_power(fitted.setting.batch),
        "step_seconds": (fitted.cost.seconds, f"median of measured steps of {size}"),
        "step_bytes": (fitted.cost.bytes, "weights, gradients, moments and what a pass keeps"),
    }


def _of_machine(here: Situation, wanted: TrainOptions) -> Entries:
    share = f"{in_bytes(here.cache)} {here.because_memory}"
    of_images = share if here.image_bytes > here.cache else f"all of them; they may take {share}"
    fastest = f"what the {here.device} computes fastest"
    return {
        "device": (here.device, "the fastest of this machine" if wanted.device == "auto" else "--device"),
        "precision": (here.precision, fastest if wanted.precision == "auto" else "--precision"),
        "memory": (here.memory, f"the most that a step may take, {here.because_memory}"),
        "cache": (min(here.cache, here.image_bytes), f"for decoded images, {of_images}"),
        "seed": (wanted.seed, "--seed"),
        "processes": (here.processes, "a device each" if here.processes > 1 else "one device"),
    }


def _of_data(figures: Fingerprint) -> Entries:
    """What the figures of the data say about augmentation."""
    furthest = max(
        (abs(offset) for offset, share in zip(figures.row_offsets, figures.class_shares, strict=True) if share >= 0.01),
        default=0.0,
    )
    mixed = figures.dtype == "uint8" and 0.05 <= figures.brighter <= 0.95
    deviation = statistics.fmean(figures.deviation)
    extremes = ", smallest to largest value" * (figures.dtype == "float32")
    darker = f"the first class is darker than the others in {figures.brighter:.0%} of the images"
    off = f"the mean row of a class is up to {furthest:.2f} image heights from the middle"
    return {
        "upright": (furthest > _UPRIGHT, off),
        "invert": (0.15 if mixed else 0.0, darker),
        "shift": (round(0.4 * deviation, 3), f"0.4 times {deviation:.3g}, the deviation of the training images"),
        "value_range": (figures.value_range, f"{figures.dtype} images{extremes}"),
    }


def _of_classes(figures: Fingerprint, fixed: str | None) -> Entries:
    """What the classes count in the loss, and how often a crop is drawn around one. fixed: the weighting, by --set."""
    shares = ", ".join(f"{share:.2%}" for share in figures.class_shares)
    rarest = min((share for share in figures.class_shares if share), default=1.0)
    rare = len(figures.class_shares) > 2 and rarest < _RARE
    of_shares = f"shares of the pixels {shares}"
    weights: dict[str, Any] = {
        "equal": (None, "all classes count 1"),
        "root_median_frequency": (tuple(math.sqrt(weight) for weight in figures.median_frequency), of_shares),
        "median_frequency": (figures.median_frequency, of_shares),
        "effective_number": (
            effective_number(np.multiply(figures.image_shares, figures.images)), "images that have the class"
        ),
    }  # fmt: skip
    chosen = fixed or ("root_median_frequency" if rare else "equal")
    seldom = f"the rarest of the {len(figures.class_shares)} classes has {rarest:.2%} of the pixels"
    return {
        "weighting": (chosen, seldom if rare else f"dice balances the classes; {seldom}"),
        "class_weights": weights[chosen],
        "class_rate": (0.0, f"off; the classes have {shares} of the pixels"),
    }


def _lengths(
    setting: Setting, cost: float, figures: Fingerprint, asked: Asked, validation: float, seconds: float | None
) -> Entries:
    """Steps, warm-up and validation interval. validation: seconds of one; seconds: of all, None for fixed steps."""
    wanted, every = asked.options, asked.fixed.get("validate_every")
    if wanted.steps is not None:
        steps, because = wanted.steps, "--steps"
    elif wanted.epochs is not None:
        steps = math.ceil(wanted.epochs * figures.images / setting.batch)
        because = f"--epochs {wanted.epochs}, {figures.images} images each"
    else:
        left = seconds or 0.0
        steps, count = _steps_in(left, cost, validation, every)
        because = f"{left:.0f} s left at {cost:.3f} s a step, {count} validations of about {validation:.1f} s"
    count = _validations(steps * cost, validation)
    interval = f"{_VALIDATION_SHARE:.0%} of the training time, but once at least"
    return {
        "steps": (steps, because),
        "replanned_at": (0, "step at which the steps were counted anew, 0 for not yet"),
        "seconds": (seconds, "no limit" if seconds is None else "what --time leaves beside reading and the report"),
        "validate_every": (every or max(1, math.ceil(steps / count)), FIXED if every else interval),
        "validation_seconds": (round(validation, 3), "the forward part of a step, for the pixels that are scored"),
        "warm_up": (
            asked.fixed.get("warm_up") or min(_WARM_UP, max(1, steps // 10)),
            f"{_WARM_UP} steps, or a tenth of a short training",
        ),
    }


def _scored(
    forward: float, here: Situation, fixed: Mapping[str, Any], left: float | None
) -> tuple[tuple[int, str], float]:
    """How many held-out images a validation scores, 0 for all, and why; and its seconds. forward: those of a pixel."""
    count, whole = here.validation_images, here.validation_pixels * forward
    entry = 0, f"all that are held out, {count}"
    if "validation_images" in fixed:
        entry = fixed["validation_images"], FIXED
    elif left is not None and whole > _LONGEST_VALIDATION * left:
        images = max(1, int(count * _LONGEST_VALIDATION * left / whole))
        entry = images, f"to score all {count} takes about {whole:.0f} s of the {left:.0f} s left"
    return entry, whole * min(entry[0] or count, count) / count


def _forward(setting: Setting, cost: float) -> float:
    """Seconds of the forward pass of a pixel. cost: seconds of a step."""
    return cost / (_STEP_OVER_FORWARD * setting.batch * setting.crop**2)


def _steps_in(seconds: float, cost: float, validation: float, every: int | None) -> tuple[int, int]:
    """(steps, validations) that fill `seconds`, with one validation to spare; every: steps between two, if fixed."""
    if every is not None:
        steps = max(1, int((seconds - 2 * validation) / (cost + validation / every)))
        return steps, math.ceil(steps / every)
    count = _validations(seconds, validation)
    return max(1, int((seconds - (count + 1) * validation) / cost)), count


def replan(plan: Plan, *, step: int, seconds: float, pace: float, validation: float | None = None) -> Plan:
    """`plan` with as many steps as the time allows at the pace of the training itself. For plans with a time only.

    step, seconds: where the training stands. pace: seconds that a step takes; validation: that one took, if any was.
    Raises ValueError without a time.
    """
    if plan.seconds is None:
        raise ValueError("a plan without a time has its steps already")
    if validation is None:
        validation = plan.validation_seconds * pace / plan.step_seconds
    every = plan.validate_every if plan.because.get("validate_every") == FIXED else None
    more, count = _steps_in(plan.seconds - seconds, pace, validation, every)
    reason = f"counted anew at step {step}, at {pace:.3f} s a step"
    changed: dict[str, Any] = {
        "steps": step + more,
        "step_seconds": pace,
        "validation_seconds": round(validation, 3),
        "replanned_at": step,
        **({} if every else {"validate_every": max(1, math.ceil((step + more) / count))}),
    }
    return replace(plan, **changed, because={**plan.because, **dict.fromkeys(changed, reason)})


def _validations(seconds: float, each: float) -> int:
    return max(1, min(_MOST_VALIDATIONS, int(_VALIDATION_SHARE * seconds / max(each, 1e-3))))
