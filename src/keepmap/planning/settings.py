"""What --set fixes: entries of the plan, and options of the network; which is which, and whether a value can be.

Knows the names of the plan only; the options of a network are checked where networks are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keepmap.config import field_value
from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.defaults import DEFAULTS
from keepmap.planning.plan import ENTRIES, Plan

_OF_TRAIN = {name: name for name in ("precision", "device", "crop", "batch", "checkpointing", "steps", "seed")}
_OF_TRAIN |= {"network": "model", "workers": "workers"}
"""Entry -> the option of `train` that fixes it too."""
_NOT_FIXED = {
    "options": "give each option of the network its value: --set widths=16,32,64",
    "pretrained": "--weights imagenet, --weights none or --weights FILE",
    "reach": "it follows from the network",
    "processes": "--devices, torchrun or srun",
    "seconds": "--time",
    "step_seconds": "it is measured",
    "step_bytes": "it follows from crop, micro and checkpointing",
    "validation_seconds": "it follows from the time of a step",
    "replanned_at": "it is written down when it happens",
    "memory": "--memory",
}
"""Entry -> what to do instead."""
_LIMITS: dict[str, tuple[float, float]] = {
    "deviation": (1e-6, 1e9),
    "micro": (1, 4096),
    "cache": (0, 1 << 60),
    "validate_every": (1, 10**9),
    "validation_images": (0, 10**9),
    "warm_up": (1, 10**9),
    "learning_rate": (0, 10),
    "encoder_rate": (0, 100),
    "weight_decay": (0, 10),
    "clipping": (1e-6, 1e9),
    "averaging": (0, 0.999999),
    **dict.fromkeys(("cross_entropy", "dice", "focal", "tversky", "class_weights"), (0, 1e6)),
    **dict.fromkeys(("focal_gamma", "tversky_alpha", "tversky_beta"), (0, 100)),
    "smoothing": (0, 1),
    "border": (0, 1e4),
    "sigma": (0.1, 100),
    "area_power": (0, 1),
    "class_rate": (0, 0.99),
    "scale": (0.05, 20),
    "invert": (0, 1),
    "gain": (0, 0.99),
    "shift": (0, 1e9),
}
"""Entry -> least and largest value of each of its numbers."""
CHANCES = ("rotation", "shear", "elastic", "colour", "contrast", "gamma", "noise", "blur", "coarse")
"""Entries that are (share of the crops, how far at most)."""
_ASCENDING = ("scale", "value_range")


@dataclass(frozen=True)
class Asked:
    """What a training is asked for. options: with what --set says of them, and in `set` the network's options alone.

    fixed: the other entries of the plan that --set gives. said: every entry that --set gives.
    """

    options: TrainOptions
    fixed: dict[str, Any]
    said: tuple[str, ...]


def asked(options: TrainOptions) -> Asked:
    """`options` with each NAME=VALUE of --set where it belongs: an entry of the plan before an option of the network.

    Raises OptionError for an entry that cannot be fixed, is fixed twice, or has a value that cannot be.
    """
    given = options.set or {}
    entries = {name: value for name, value in given.items() if name in ENTRIES}
    rest = {name: value for name, value in given.items() if name not in ENTRIES}
    values = {name: _checked(name, value) for name, value in entries.items()}
    moved = {_OF_TRAIN[name]: value for name, value in values.items() if name in _OF_TRAIN}
    for name in moved:
        if getattr(options, name) != getattr(TrainOptions(), name):
            raise OptionError(
                f"{name} is given twice.", found=f"--{name} {getattr(options, name)}, --set {name}={moved[name]}",
                expected="one of them",
            )  # fmt: skip
    fixed = {name: value for name, value in values.items() if name not in _OF_TRAIN or name == "checkpointing"}
    return Asked(replace(options, set=rest or None, **moved), fixed, tuple(entries))


def _checked(name: str, value: Any) -> Any:
    """`value` as the entry `name` holds it. Raises OptionError."""
    if name in _NOT_FIXED:
        raise OptionError(f"--set {name} fixes nothing.", found=f"--set {name}={value}", do=_NOT_FIXED[name])
    value = field_value(Plan, name, value, f"--set {name}")
    numbers = value if isinstance(value, tuple) else (value,)
    least, most = _LIMITS.get(name, (-math.inf, math.inf))
    if name in _LIMITS and not all(number is None or least <= number <= most for number in numbers):
        raise OptionError(f"--set {name}={value} cannot be.", found=str(value), expected=f"{least:g} to {most:g}")
    if name in CHANCES and not (0 <= numbers[0] <= 1 and DEFAULTS[name][0][1] <= numbers[1] < math.inf):
        raise OptionError(
            f"--set {name}={value} cannot be.", found=str(value), expected="a share of the crops, 0 to 1, and how far",
        )  # fmt: skip
    if name in _ASCENDING and not numbers[0] <= numbers[-1]:
        raise OptionError(f"--set {name}={value} cannot be.", found=str(value), expected="the smaller one first")
    return value


def counted(fixed: Mapping[str, Any], channels: int, classes: int) -> None:
    """Raise OptionError where a fixed entry that has a number for each channel or class has another count of them."""
    for name, count, each in (
        ("mean", channels, "channel"),
        ("deviation", channels, "channel"),
        ("class_weights", classes, "class"),
    ):
        if fixed.get(name) is not None and len(fixed[name]) != count:
            raise OptionError(
                f"--set {name} needs a number for each {each}.", found=f"{len(fixed[name])} numbers",
                expected=f"{count}, with commas" + ", such as 124," * (count == 1),
            )  # fmt: skip
