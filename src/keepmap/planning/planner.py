"""Chooses: which network and why, then crop, batch and number of steps that fill the time.

Pure: the machine speaks through `Situation` and the measured cost of a step.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import Cost, Measure, Plan

_OVER_ENCODERS = ("encoder_unet", "fcn", "fcn_dilated")
_ENCODERS = {"fcn_dilated": "resnet50", "fcn_vgg16": "vgg16"}
"""The encoder of networks that leave no choice, or a smaller one."""
_CHOSEN = ("efficientnet_lite0", "resnet18")
"""The encoders that auto chooses between: light enough for any machine."""
START_WORDS = ("auto", "imagenet", "none")
"""What --weights takes beside the name of a file."""
_FEWEST_STEPS = 120
_WARM_UP = 30
_LEAST_DEVIATION = 0.01
"""Deviation that a channel at least counts as, as a share of the largest: a nearly constant one is not blown up."""
_STEP_OVER_FORWARD = 3
"""A step computes about three forward passes: one forward, two backward."""
_VALIDATION_SHARE = 0.06
_MOST_VALIDATIONS = 10
_UPRIGHT = 0.1
_SMALLEST_CROP = 64
_SMALLER_CROP = 128
_SMALLEST_BATCH = 2


@dataclass(frozen=True)
class Offer:
    """The published ImageNet weights of one encoder.

    at_hand: whether nothing has to be fetched.  get: what to do for them where they are not at hand.
    mean, deviation: (3,) of the raw 8-bit RGB values that they were trained with.
    """

    encoder: str
    at_hand: bool
    get: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True)
class Situation:
    """What the planner is told about the machine. device, precision: resolved, never auto.

    memory: bytes that training may use. validation_pixels: pixels of all held-out images.
    offers: the published ImageNet weights.
    begun:  network and options of the RUN that --init names.
    """

    device: str
    precision: str
    memory: int
    validation_pixels: int
    offers: tuple[Offer, ...]
    begun: tuple[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class Choice:
    """A network by name with its options, where its weights start, how its input is normalised, and why.

    encoder: the encoder that `pretrained` is about, "" for a network without one.
    because_mean: where mean and deviation come from.
    """

    network: str
    options: dict[str, Any]
    pretrained: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    because: str
    encoder: str = ""
    because_mean: str = "mean and deviation of the training images"


def choose_network(figures: Fingerprint, wanted: TrainOptions, here: Situation) -> Choice:
    """The network that the options name, or for auto the best that the data and the weights at hand allow."""
    choice = _choose(figures, wanted, here)
    options, because = dict(choice.options), choice.because
    if wanted.checkpointing:
        options["checkpointing"] = True
        because += "; --checkpointing"
    for name, value in (wanted.set or {}).items():
        options[name] = value
        because += f", --set {name}={_as_typed(value)}"
    return replace(choice, options=options, because=because)


def _as_typed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _choose(figures: Fingerprint, wanted: TrainOptions, here: Situation) -> Choice:
    name = "encoder_unet" if wanted.model == "auto" else wanted.model
    data = normalisation(figures)
    if here.begun is not None and (wanted.model, wanted.encoder, wanted.weights) == ("auto", "auto", "auto"):
        return Choice(*here.begun, False, *data, "the network of --init")
    if name not in (*_OVER_ENCODERS, *_ENCODERS):
        if wanted.encoder != "auto" or wanted.weights not in ("auto", "none"):
            raise _no_encoder(wanted)
        options = {} if "widths" in (wanted.set or {}) else _widths(name, here)
        narrower = f", half as wide as the classic one for the {here.device}" if options else ""
        return Choice(name, options, False, *data, f"--model {name}{narrower}")
    encoder, because = _choose_encoder(name, wanted, here)
    offer = next((offer for offer in here.offers if offer.encoder == encoder), None)
    pretrained, start = _choose_start(encoder, offer, wanted)
    options = {"encoder": encoder} if name in _OVER_ENCODERS else {}
    reason = Choice.because_mean
    if pretrained and offer is not None:
        rgb = figures.channels == 3 and figures.dtype == "uint8"
        data = (offer.mean, offer.deviation) if rgb else data
        other = f"{reason}: those of the weights are for 8-bit RGB, not {figures.channels} channels of {figures.dtype}"
        reason = "what the ImageNet weights were trained with" if rgb else other
    return Choice(name, options, pretrained, *data, f"{because}, {start}", encoder, reason)


def normalisation(figures: Fingerprint) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, deviation) of each channel by which images like these are normalised."""
    floor = _LEAST_DEVIATION * max(figures.deviation)
    return figures.mean, tuple(max(d, floor) for d in figures.deviation)


def _no_encoder(wanted: TrainOptions) -> OptionError:
    return OptionError(
        f"--model {wanted.model} has no encoder.",
        found=f"--encoder {wanted.encoder}, --weights {wanted.weights}",
        expected="one of " + ", ".join(f"--model {name}" for name in _OVER_ENCODERS),
    )


def _choose_encoder(name: str, wanted: TrainOptions, here: Situation) -> tuple[str, str]:
    """The encoder of the network `name`, and why. Raises OptionError."""
    if name not in _OVER_ENCODERS and wanted.encoder != "auto":
        raise _no_encoder(wanted)
    if wanted.encoder != "auto":
        return wanted.encoder, f"--encoder {wanted.encoder}"
    if name in _ENCODERS:
        return _ENCODERS[name], f"--model {name}, over {_ENCODERS[name]}"
    if wanted.weights not in START_WORDS:
        raise OptionError(
            f"--weights {wanted.weights} is a file, and no encoder is named.", do="pass --encoder, the one it is of"
        )
    if wanted.weights == "none":
        return "resnet18", "--weights none"
    at_hand = [offer.encoder for offer in here.offers if offer.at_hand and offer.encoder in _CHOSEN]
    if at_hand:
        return min(at_hand, key=_CHOSEN.index), "the best encoder whose ImageNet weights are at hand"
    best = next((f" (for {o.encoder}'s: {o.get})" for o in here.offers if o.encoder == _CHOSEN[0]), "")
    return "resnet18", f"no ImageNet weights are at hand{best}"


def _choose_start(encoder: str, offer: Offer | None, wanted: TrainOptions) -> tuple[bool, str]:
    """Whether the encoder begins with trained weights, and in words what it begins with. Raises OptionError."""
    if wanted.weights == "none":
        return False, "random weights; without --weights none ImageNet's are taken where they are at hand"
    if wanted.weights not in START_WORDS:
        return True, f"weights of {wanted.weights}"
    if offer is not None and (offer.at_hand or wanted.weights == "imagenet"):
        return True, "ImageNet weights"
    if offer is None and wanted.weights == "imagenet":
        raise OptionError(
            f"--weights imagenet cannot be had for {encoder}.", expected="an encoder whose weights are published",
            do="pass --weights none, or --weights FILE",
        )  # fmt: skip
    better = f"; for the better ones: {offer.get}" if offer is not None else ""
    return False, f"random weights{better}"


def _widths(network: str, here: Situation) -> dict[str, Any]:
    """Channel widths of a network without an encoder: half of the classic ones where there is no GPU."""
    return {"widths": (32, 64, 128, 256, 512)} if network == "unet" and here.device == "cpu" else {}


def make_plan(
    choice: Choice,
    figures: Fingerprint,
    wanted: TrainOptions,
    here: Situation,
    *,
    seconds_left: Callable[[], float],
    measure: Measure,
) -> Plan:
    """The plan that fills the seconds left of --time, or the steps or epochs that were asked for."""
    timed = wanted.steps is None and wanted.epochs is None
    side, crop_because = _crop(figures, wanted)
    batch_because = "steady gradients" if wanted.batch is None else "--batch"
    left = seconds_left if timed else None
    crop, batch, cost, refused = _affordable(_settings(side, wanted), here.memory, left, measure)
    batch_because = refused or batch_because
    crop_because = crop_because if crop == side else batch_because
    draft = _fixed(choice, figures, wanted, here)
    draft = replace(draft, crop=crop, batch=batch, step_seconds=cost.seconds)
    lengths = _lengths(draft, figures, wanted, here.validation_pixels, seconds_left() if timed else None)
    because = {
        **draft.because,
        **lengths.because,
        "crop": crop_because,
        "batch": batch_because,
        "step_seconds": f"median of measured steps at crop {crop}, batch {batch}",
    }
    return replace(lengths, because=because)


def _affordable(
    settings: Sequence[tuple[int, int]], memory: int, seconds_left: Callable[[], float] | None, measure: Measure
) -> tuple[int, int, Cost, str]:
    """The first (crop, batch) that memory and time allow, or the last; its cost; what spoke against the one before.

    A setting that would be refused even if it were as efficient as the larger one before it is not measured.
    """
    (crop, batch), refused = settings[0], ""
    cost = measure(crop, batch)
    for smaller in settings[1:]:
        if not (objection := _objection(cost, batch, memory, seconds_left)):
            break
        refused = f"{batch} crops of {crop} px take {objection}"
        share = smaller[0] ** 2 * smaller[1] / (crop**2 * batch)
        crop, batch = smaller
        cost = Cost(cost.seconds * share, int(cost.bytes * share))
        if smaller == settings[-1] or not _objection(cost, batch, memory, seconds_left):
            cost = measure(crop, batch)
    return crop, batch, cost, refused


def _objection(cost: Cost, batch: int, memory: int, seconds_left: Callable[[], float] | None) -> str:
    """Why steps of this cost are out of the question, or nothing. The smallest batch may do with fewer steps."""
    fewest = _FEWEST_STEPS if batch > _SMALLEST_BATCH else _FEWEST_STEPS // 3
    if cost.bytes > memory:
        return f"{cost.bytes / 2**30:.1f} GB, more than the free memory"
    if seconds_left is not None and seconds_left() < fewest * cost.seconds:
        return f"{cost.seconds:.2f} s a step, fewer than {fewest} steps in the time"
    return ""


def _settings(side: int, wanted: TrainOptions) -> list[tuple[int, int]]:
    """(crop, batch), the best first; the last is taken whatever it costs. What was asked for does not change."""
    batches = [8, 4, _SMALLEST_BATCH] if wanted.batch is None else [wanted.batch]
    crops = [side] if wanted.crop is not None or side <= _SMALLER_CROP else [side, _SMALLER_CROP]
    return [*((side, batch) for batch in batches), *((crop, batches[-1]) for crop in crops[1:])]


def _crop(figures: Fingerprint, wanted: TrainOptions) -> tuple[int, str]:
    if wanted.crop is not None:
        return wanted.crop, "--crop"
    side = min(figures.median_height, figures.median_width)
    crop = min(256, max(_SMALLEST_CROP, 32 * math.ceil(side / 32)))
    return crop, f"the median image is {figures.median_height}x{figures.median_width}; 256 is enough context"


def _lengths(
    draft: Plan, figures: Fingerprint, wanted: TrainOptions, validation_pixels: int, seconds: float | None
) -> Plan:
    """`draft` with steps, warm-up and validation interval. seconds: for the training, None where steps are fixed."""
    cost = draft.step_seconds
    validation = validation_pixels * cost / (_STEP_OVER_FORWARD * draft.batch * draft.crop**2)
    if wanted.steps is not None:
        steps, because = wanted.steps, "--steps"
    elif wanted.epochs is not None:
        steps = math.ceil(wanted.epochs * figures.images / draft.batch)
        because = f"--epochs {wanted.epochs}, {figures.images} images each"
    else:
        left = seconds or 0.0
        count = _validations(left, validation)
        steps = max(1, int((left - (count + 1) * validation) / cost))
        because = f"{left:.0f} s left at {cost:.3f} s a step, {count} validations of about {validation:.1f} s"
    count = _validations(steps * cost, validation)
    reasons = {
        "steps": because,
        "replanned_at": "step at which the steps were counted anew, 0 for not yet",
        "seconds": "no limit" if seconds is None else "what --time leaves after reading and measuring",
        "validate_every": f"{count} times: {_VALIDATION_SHARE:.0%} of the training time, but once at least",
        "validation_seconds": "the forward part of a step, for the pixels that are held out",
        "warm_up": f"{_WARM_UP} steps, or a tenth of a short training",
    }
    return replace(
        draft,
        steps=steps,
        seconds=seconds,
        replanned_at=0,
        validate_every=max(1, math.ceil(steps / count)),
        validation_seconds=round(validation, 3),
        warm_up=min(_WARM_UP, max(1, steps // 10)),
        because=reasons,
    )


def replan(plan: Plan, *, step: int, seconds: float) -> Plan:
    """`plan` with as many steps as the time allows at the pace of the training itself. For plans with a time only.

    step, seconds: where the training stands, before its first validation. Raises ValueError without a time.
    """
    if plan.seconds is None:
        raise ValueError("a plan without a time has its steps already")
    pace = seconds / step
    validation = plan.validation_seconds * pace / plan.step_seconds
    left = plan.seconds - seconds
    count = _validations(left, validation)
    steps = step + max(1, int((left - (count + 1) * validation) / pace))
    reason = f"counted anew at step {step}, at {pace:.3f} s a step"
    return replace(
        plan,
        steps=steps,
        step_seconds=pace,
        validation_seconds=round(validation, 3),
        validate_every=max(1, math.ceil(steps / count)),
        replanned_at=step,
        because={
            **plan.because,
            **dict.fromkeys(("steps", "step_seconds", "validation_seconds", "validate_every", "replanned_at"), reason),
        },
    )


def _validations(seconds: float, each: float) -> int:
    return max(1, min(_MOST_VALIDATIONS, int(_VALIDATION_SHARE * seconds / max(each, 1e-3))))


def _fixed(choice: Choice, figures: Fingerprint, wanted: TrainOptions, here: Situation) -> Plan:
    """What does not depend on a measured step; the lengths are filled in afterwards."""
    furthest = max(
        (abs(offset) for offset, share in zip(figures.row_offsets, figures.class_shares, strict=True) if share >= 0.01),
        default=0.0,
    )
    upright = furthest > _UPRIGHT
    mixed = figures.dtype == "uint8" and 0.05 <= figures.brighter <= 0.95
    return Plan(
        network=choice.network, options=choice.options, pretrained=choice.pretrained,
        mean=choice.mean, deviation=choice.deviation, device=here.device, precision=here.precision,
        crop=0, batch=0, step_seconds=0.0, steps=0, seconds=None, replanned_at=0,
        validate_every=0, validation_seconds=0.0, warm_up=0,
        learning_rate=2e-3, weight_decay=1e-2, scale=(0.6, 1.7), upright=upright,
        invert=0.15 if mixed else 0.0, gain=0.3, shift=round(0.4 * statistics.fmean(figures.deviation), 3),
        value_range=figures.value_range, seed=wanted.seed,
        because={
            "network": choice.because,
            "options": choice.because,
            "pretrained": choice.because,
            "mean": choice.because_mean,
            "deviation": choice.because_mean,
            "device": f"--device {wanted.device}",
            "precision": "what this device computes fastest" if wanted.precision == "auto" else "--precision",
            "learning_rate": "AdamW with cosine decay",
            "weight_decay": "AdamW",
            "scale": "objects vary in size and distance",
            "upright": f"the mean row of a class is up to {furthest:.2f} image heights from the middle",
            "invert": f"the first class is darker than the others in {figures.brighter:.0%} of the images",
            "gain": "exposure varies",
            "shift": "0.4 standard deviations of the training images, in raw values",
            "value_range": f"{figures.dtype} images" + ", smallest to largest value" * (figures.dtype == "float32"),
            "seed": "--seed",
        },
    )  # fmt: skip
