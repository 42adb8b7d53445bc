"""Chooses the network: which one, over which encoder, where its weights start, how its input is normalised, and why.

Pure: what weights are at hand it learns from `Situation`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import MemoryFormat

_OVER_ENCODERS = ("encoder_unet", "fcn", "fcn_dilated")
_ENCODERS = {"fcn_dilated": "resnet50", "fcn_vgg16": "vgg16"}
"""The encoder of networks that leave no choice, or a smaller one."""
_CHOSEN = ("efficientnet_lite0", "resnet18")
"""The encoders that auto chooses between: light enough for any machine."""
START_WORDS = ("auto", "imagenet", "none")
"""What --weights takes beside the name of a file."""
_LEAST_DEVIATION = 0.01
"""Deviation that a channel at least counts as, as a share of the largest: a nearly constant one is not blown up."""
_WITH_NORM = ("unet",)
"""Networks whose option `norm` says how they normalise."""
_WHOLE = "residual_encoder"
"""The option of a unet that sets its widths and norm."""
_MOST_LEVELS = 7
"""Of a unet that is planned; its stride is 64 then."""


def _unlimited(widths: tuple[int, ...]) -> int:
    """The sight of a network that is never too shallow."""
    return sys.maxsize


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
class Begun:
    """The RUN that --init names: network and options, channels and dtype of its images.

    mean, deviation: of each channel, by which its network normalises; empty of one that takes raw values.
    """

    network: str
    options: dict[str, Any]
    channels: int
    dtype: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True)
class Situation:
    """What the planner is told about the machine. device, precision: resolved, never auto.

    memory: bytes that a step may take; cache: that decoded images may take; because_memory: the end of both reasons.
    image_bytes: what all images take decoded. validation_pixels: of all held-out images,
    which are validation_images.
    processes: that train together, each with this memory and a part of the batch.
    instances: whether the masks number objects. workers: the most that may draw its batches.
    offers: the published ImageNet weights.
    begun:  the RUN that --init names.
    sight:  the widths of a unet -> pixels along each axis that an output pixel depends on.
    """

    device: str
    precision: str
    memory: int
    validation_pixels: int
    offers: tuple[Offer, ...]
    begun: Begun | None = None
    cache: int = 1 << 30
    image_bytes: int = 0
    because_memory: str = "of what is free"
    sight: Callable[[tuple[int, ...]], int] = _unlimited
    processes: int = 1
    instances: bool = False
    workers: int = 0
    validation_images: int = 1

    @property
    def apart(self) -> bool:
        """Whether the crops of a batch lie in processes whose batch norms cannot be synchronised."""
        return self.processes > 1 and self.device == "cpu"


@dataclass(frozen=True)
class Choice:
    """A network by name with its options, where its weights start, how its input is normalised, and why.

    encoder: the encoder that `pretrained` is about, "" for a network without one.
    because_mean: where mean and deviation come from. recomputes: whether it can recompute its activations.
    reach: (before, after) in pixels, known once it is built. because_frozen: why its batch norm must keep the
    statistics that it begins with, "" where it need not. memory_format: in which it trains; because_format: why.
    """

    network: str
    options: dict[str, Any]
    pretrained: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    because: str
    encoder: str = ""
    because_mean: str = "mean and deviation of the training images"
    recomputes: bool = True
    reach: tuple[int, int] = (0, 0)
    because_frozen: str = ""
    memory_format: MemoryFormat = "contiguous"
    because_format: str = "what all networks compute in"


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
    name = _of_auto(wanted, here) if wanted.model == "auto" else wanted.model
    data = normalisation(figures)
    if here.begun is not None and (wanted.model, wanted.encoder, wanted.weights) == ("auto", "auto", "auto"):
        return Choice(here.begun.network, here.begun.options, False, *data, "the network of --init")
    if name not in (*_OVER_ENCODERS, *_ENCODERS):
        if wanted.encoder != "auto" or wanted.weights not in ("auto", "none"):
            raise _no_encoder(wanted)
        given = {name for name, value in (wanted.set or {}).items() if value}
        options, why = ({}, "") if given & {"widths", _WHOLE} else _widths(name, figures, here)
        if here.apart and name in _WITH_NORM and not given & {"norm", _WHOLE}:
            options = {**options, "norm": "group"}
            why += f", group norm: batch norm is synchronised on GPUs only, and there are {here.processes} processes"
        said = f"--model {name}" if wanted.model != "auto" else f"{name}: no ImageNet weights are at hand"
        return Choice(name, options, False, *data, f"{said}{why}")
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


def _of_auto(wanted: TrainOptions, here: Situation) -> str:
    """What auto stands for: over an encoder, unless batch norm would have to learn without statistics."""
    trained = any(offer.at_hand and offer.encoder in _CHOSEN for offer in here.offers)
    asked = wanted.encoder != "auto" or wanted.weights not in ("auto", "none")
    random = wanted.weights == "none" or not trained
    return "unet" if here.apart and random and not asked else "encoder_unet"


def normalisation(figures: Fingerprint) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, deviation) of each channel by which images like these are normalised."""
    floor = _LEAST_DEVIATION * max(figures.deviation)
    return figures.mean, tuple(max(d, floor) for d in figures.deviation)


def normalised_as(begun: Begun, choice: Choice, figures: Fingerprint) -> Choice:
    """`choice` with the normalisation that the weights of --init were trained with, where it is for such images."""
    if not begun.mean:
        return choice
    if (begun.channels, begun.dtype) == (figures.channels, figures.dtype):
        because = "what the weights of --init were trained with"
        return replace(choice, mean=begun.mean, deviation=begun.deviation, because_mean=because)
    other = f"those of --init are for {begun.channels} channels of {begun.dtype}"
    return replace(choice, because_mean=f"{choice.because_mean}; {other}, not {figures.channels} of {figures.dtype}")


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


def _widths(network: str, figures: Fingerprint, here: Situation) -> tuple[dict[str, Any], str]:
    """Channel widths of a network without an encoder, and why.

    Half of the classic ones where there is no GPU, and deeper where an output pixel would not see a large object.
    """
    if network != "unet":
        return {}, ""
    half = here.device == "cpu"
    widths: tuple[int, ...] = (32, 64, 128, 256, 512) if half else (64, 128, 256, 512, 1024)
    narrower = f", half as wide as the classic one for the {here.device}" if half else ""
    classic = len(widths)
    while here.sight(widths) < figures.large_object and len(widths) < _MOST_LEVELS:
        widths = (*widths, widths[-1])
    if len(widths) == classic:
        return ({"widths": widths} if half else {}), narrower
    deeper = f", {len(widths)} levels for objects of {figures.large_object:.0f} px"
    return {"widths": widths}, narrower + deeper
