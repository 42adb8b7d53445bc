"""From a file of another library's weights to a RUN that predicts.

Knows how a RUN is written; what the other libraries call their tensors is in `sources`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keepmap import __version__
from keepmap.data.classes import read_classes
from keepmap.data.labels import LabelSet, default_colours
from keepmap.errors import OptionError, first_few, nearest
from keepmap.networks.catalogue import build_network, network_recipe
from keepmap.networks.network import Network
from keepmap.options import ImportOptions
from keepmap.protocols import Progress
from keepmap.runs import RunConfig, RunFolder, write_tensors
from keepmap.weights.download import fetch
from keepmap.weights.foreign import check_fit, read_weights
from keepmap.weights.published import SEGMENTATION
from keepmap.weights.sources import SOURCES, Source, without_biases

PUBLISHED = "published"
"""In place of a file: the weights that the source itself has published."""
DTYPE = "uint8"
"""Of the images that imported networks are for: all sources were trained on 8-bit images."""
_BUFFERS = ("mean", "std")


def import_file(file: str, source: str, run: RunFolder, options: ImportOptions, progress: Progress) -> None:
    """Write the RUN of a network of SOURCES whose state dict is in `file`.

    Raises OptionError for an unknown source, and where labels or normalisation do not fit or must be given;
    WeightsError for a file of another network, or one that is broken or unsafe; OutputError; DownloadError.
    """
    if source not in SOURCES:
        raise OptionError(f"There is no source {source}.", found=source, expected=nearest(source, SOURCES))
    origin = SOURCES[source]
    run.check_free()
    path = _file(file, source, options, progress)
    foreign = read_weights(path)
    state = without_biases(foreign.tensors)
    network = _network(origin, state, path, source)
    labels = _labels(network.classes, origin, options, foreign.others)
    _normalise(network, origin, options, source)
    name, fields = network_recipe(network)
    run.create()
    write_tensors(run.model_file, network.state_dict(), source=source, file=path.name)
    run.write_config(RunConfig(name, fields, network.channels, DTYPE, labels, __version__))
    progress.say(f"network {name}, {network.channels} channels of {DTYPE}, from {path.name}")
    progress.say(f"classes {labels.count}: {first_few(labels.names)}; values {labels.values[0]} to {labels.values[-1]}")
    progress.say(f"values  minus {_rounded(network.mean)}, divided by {_rounded(network.std)}")


def _file(file: str, source: str, options: ImportOptions, progress: Progress) -> Path:
    if file != PUBLISHED:
        return Path(file)
    if source not in SEGMENTATION:
        raise OptionError(
            f"{source} has no published weights that keepmap knows.",
            expected="a FILE, or one of " + ", ".join(SEGMENTATION),
        )
    return fetch(SEGMENTATION[source], progress, offline=options.offline)


def _network(origin: Source, state: Mapping[str, Tensor], path: Path, source: str) -> Network:
    """The network with the weights of the file. Raises WeightsError where they are of another."""
    recipe = origin.recipe(state)
    if recipe.classes == 1:
        state = {name: _with_background(name, tensor, origin) for name, tensor in state.items()}
        recipe = replace(recipe, classes=2)
    network = build_network(recipe.network, channels=recipe.channels, classes=recipe.classes, options=recipe.options)
    own = {name: tensor for name, tensor in network.state_dict().items() if name not in _BUFFERS}
    fitting = check_fit(state, {origin.theirs(name): tensor for name, tensor in own.items()}, path, source)
    turned = {name: origin.turned(name, fitting[origin.theirs(name)], recipe) for name in own}
    network.load_state_dict(turned, strict=False)
    return network.eval()


def _with_background(name: str, tensor: Tensor, origin: Source) -> Tensor:
    """Two scores from one: a background that always scores 0, so that softmax gives what the sigmoid gave."""
    return torch.cat([torch.zeros_like(tensor), tensor]) if name.startswith(origin.scores) else tensor


def _labels(count: int, origin: Source, options: ImportOptions, others: Mapping[str, Any]) -> LabelSet:
    """What the classes mean: --classes, the names of the source, or numbers.

    Label values are those that --classes gives, else the `mask_values` in the file (milesial's training writes them),
    else 0 to K - 1.
    """
    names: Sequence[str] = [f"class {index}" for index in range(count)] if count > 2 else ("background", "foreground")
    values = _values(count, others.get("mask_values"))
    if options.classes is not None:
        listed = read_classes(Path(options.classes))
        names, values = listed.names, listed.values or values
        if len(names) != count:
            raise OptionError(
                f"{options.classes} does not name the classes of these weights.", found=f"{len(names)} names",
                expected=f"{count}, one a line in the order of the network's scores",
            )  # fmt: skip
    elif len(origin.names) == count:
        names = origin.names
    return LabelSet(values, tuple(names), None, default_colours(count))


def _values(count: int, stored: Any) -> tuple[int, ...]:
    """The label values of `count` classes: those stored where they are just that, else 0 to count - 1."""
    known = isinstance(stored, list) and all(type(value) is int and 0 <= value < 2**16 for value in stored)
    return tuple(stored) if known and len(stored) == len(set(stored)) == count else tuple(range(count))


def _normalise(network: Network, origin: Source, options: ImportOptions, source: str) -> None:
    """Set what the source normalises with, or --mean and --std. Raises OptionError."""
    channels = network.channels
    given = {
        "mean": origin.mean if options.mean is None else options.mean,
        "std": origin.std if options.std is None else options.std,
    }
    for name, numbers in given.items():
        if len(numbers) not in (1, channels):
            raise OptionError(
                f"--{name} of {source} must have one number for each channel.",
                found=f"{len(numbers)}: {list(numbers)}",
                expected=f"{channels}, or one for all",
                do=f"pass --{name}, in raw values from 0 to 255",
            )
    if not all(abs(m) <= 255 for m in given["mean"]) or not all(1 <= s <= 65535 for s in given["std"]):
        raise OptionError(
            "--mean and --std are in raw values.", found=f"mean {list(given['mean'])}, std {list(given['std'])}",
            expected="for 8-bit images means from 0 to 255 and deviations from 1",
            do="multiply by 255 what is meant for images from 0 to 1",
        )  # fmt: skip
    mean, std = (tuple(numbers) * (channels // len(numbers)) for numbers in given.values())
    network.set_normalisation(mean, std)


def _rounded(values: Tensor) -> str:
    return ", ".join(f"{value:.6g}" for value in values.tolist())
