"""Whether what the options ask for is possible, as far as that can be told without a look at the data.

Decides nothing: what is left open, the plan decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keepmap.data.groups import check_rule
from keepmap.errors import OptionError, nearest
from keepmap.networks.catalogue import NETWORKS, network_config
from keepmap.networks.encoders import check_encoder
from keepmap.networks.timm_encoder import PREFIX
from keepmap.options import TrainOptions, parse_size, parse_time
from keepmap.planning.choice import START_WORDS
from keepmap.planning.plan import ENTRIES
from keepmap.resources import resolve_device
from keepmap.training.workers import check_workers

MARGIN = 9.0
"""Seconds kept back for starting Python, which takes about 5, for the last save, the charts and the last lines."""
_DEFAULT_TIME = "10m"
_LEAST_SECONDS = 11.0
_RANGES = (("seed", 0, 2**32 - 1), ("steps", 1, 10**9), ("epochs", 1, 10**9), ("crop", 32, 8192), ("batch", 1, 4096),
           ("devices", 1, 1024))  # fmt: skip


def budget_of(options: TrainOptions) -> float:
    """Seconds of --time. Raises OptionError where time, steps and epochs are given together, or one is absurd."""
    given = {name: getattr(options, name) for name in ("time", "steps", "epochs")}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise OptionError(
            "A training has one length.",
            found=", ".join(f"--{name} {value}" for name, value in given.items()),
            expected="one of --time, --steps, --epochs",
        )
    seconds = parse_time(options.time or _DEFAULT_TIME)
    if seconds < _LEAST_SECONDS:
        raise OptionError(
            f"--time {options.time} is too short to train in.",
            expected=f"at least {_LEAST_SECONDS:.0f} s: starting alone takes {MARGIN:.0f} s",
        )
    return seconds


def checked(options: TrainOptions) -> str:
    """The device, after every name and number was found to be possible, which needs no look at the data."""
    for name, least, most in _RANGES:
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise OptionError(f"--{name} {value} cannot be.", found=str(value), expected=f"{least} to {most}")
    if options.model not in ("auto", *NETWORKS):
        expected = nearest(options.model, ("auto", *NETWORKS))
        raise OptionError(f"There is no model {options.model}.", found=options.model, expected=expected)
    if options.encoder != "auto":
        check_encoder(options.encoder)
    if options.encoder.startswith(PREFIX) and options.weights == "imagenet":
        raise OptionError(
            "ImageNet weights of timm's networks are not fetched.", found=f"--encoder {options.encoder}",
            do="pass --weights FILE, the state dict of timm's classifier, or --weights none",
        )  # fmt: skip
    if options.weights not in START_WORDS and not Path(options.weights).is_file():
        raise OptionError(
            f"--weights {options.weights} is no file.", found=options.weights,
            expected=nearest(options.weights, (*START_WORDS, "FILE")),
        )  # fmt: skip
    if options.set:
        _check_set(options.model, options.set)
    if options.memory:
        parse_size(options.memory)
    check_workers(options.workers)
    check_rule(options.group_by)
    return resolve_device(options.device)


def _check_set(model: str, wanted: Mapping[str, Any]) -> None:
    """Raise OptionError where --set names neither an entry of the plan nor an option of the network `model`."""
    said = ", ".join(f"--set {name}" for name in wanted)
    if "encoder" in wanted:
        raise OptionError("The encoder has an option of its own.", found=said, do=f"--encoder {wanted['encoder']}")
    if model == "auto":
        close = nearest(next(iter(wanted)), ENTRIES)
        hint = "" if close.startswith("one of") else f"{close} Or "
        raise OptionError(
            "--set is for the entries of plan.json and for a network that --model names.",
            found=f"{said} with --model auto",
            expected=f"{hint}--model NAME: which options there are depends on the network",
            do="keepmap models lists them",
        )  # fmt: skip
    names = [name for name in wanted if name not in NETWORKS[model][0].__dataclass_fields__]
    if names and names[0] not in ("channels", "classes"):
        known = [*NETWORKS[model][0].__dataclass_fields__, *ENTRIES]
        raise OptionError(
            f"--set {names[0]} is neither an option of {model} nor an entry of plan.json.", found=names[0],
            expected=nearest(names[0], known),
        )  # fmt: skip
    network_config(model, channels=1, classes=2, options=wanted)
