"""A network that is handed over as an object: whether it can be trained on these data, and what the plan says of it.

Knows no class of the user's: it asks for what a Segmenter offers. How it is saved is decided in `runs`.
"""

from __future__ import annotations

from typing import Any

import torch

from keepmap.errors import ContractError, OptionError
from keepmap.networks.candidate import Segmenter, candidate
from keepmap.networks.catalogue import is_listed, network_recipe
from keepmap.networks.contract import check_clause
from keepmap.networks.network import Network
from keepmap.options import TrainOptions
from keepmap.planning.choice import Choice, normalisation
from keepmap.planning.fingerprint import Fingerprint

_CHOOSING = ("model", "encoder", "set", "weights")
_RELIED_ON = ("size", "state_dict")
"""Clauses of the contract without which no RUN comes about; `check_segmenter` proves them all, which takes longer."""

GIVEN = "the object that was handed over as network="
"""Why the plan has the network that it has."""


def adopt(network: Segmenter, options: TrainOptions) -> Any:
    """A copy of the user's network to be trained, in float32 on the CPU, after what can be refused without the data.

    Raises OptionError for an option that chooses a network too, ContractError for a module that is no Segmenter.
    """
    said = [f"--{name} {value}" for name in _CHOOSING if (value := getattr(options, name)) != _default(name)]
    if said:
        raise OptionError(
            "network= is the network; there is nothing left to choose.", found=", ".join(said),
            do="leave these options out, or leave out network=",
        )  # fmt: skip
    copied = candidate(network).module
    for clause in _RELIED_ON:
        check_clause(network, clause)
    if not any(parameter.requires_grad for parameter in copied.parameters()):
        raise OptionError("network= has no parameter to train.", expected="one at least with requires_grad")
    _check_heads(copied)
    return copied


def choose_given(network: Any, figures: Fingerprint, classes: int, wanted: TrainOptions) -> Choice:
    """What the plan says of a network that `adopt` returned; its normalisation is set where it has one not set yet.

    Raises OptionError where the network is made for other channels or classes than the data have.
    """
    for name, own, needed in (
        ("channels", network.channels, figures.channels),
        ("classes", network.classes, classes),
    ):
        if own != needed:
            raise OptionError(
                f"The network is made for {own} {name}, the data have {needed}.", found=f"{name}={own}",
                expected=f"{name}={needed}", do=f"build the network with {needed} {name}",
            )  # fmt: skip
    mean, deviation = normalisation(figures)
    source = "the training images; the network gets raw values, and the borders of crops this mean"
    if isinstance(network, Network):
        source = "the training images"
        if network.mean.any() or not torch.equal(network.std, torch.ones_like(network.std)):
            mean, deviation = tuple(network.mean.tolist()), tuple(network.std.tolist())
            source = "the network that was handed over"
        network.set_normalisation(mean, deviation)
    name, options = network_recipe(network) if is_listed(network) else (type(network).__name__, {})
    if wanted.checkpointing:
        if not is_listed(network):
            raise OptionError("network= cannot recompute its activations.", found="--checkpointing", do="leave it out")
        options["checkpointing"] = True
    because = GIVEN
    return Choice(name, options, False, mean, deviation, because, because_mean=source, recomputes=is_listed(network))


def _default(name: str) -> Any:
    return getattr(TrainOptions(), name)


def _check_heads(network: Any) -> None:
    """Raise ContractError where `forward_deep` and `deep_heads` do not say the same."""
    if not hasattr(network, "forward_deep") and not hasattr(network, "deep_heads"):
        return
    heads = getattr(network, "deep_heads", None)
    if heads == ():
        return
    found = 0
    if heads is not None and hasattr(network, "forward_deep"):
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            side = 2 * network.stride
            found = len(network.eval().forward_deep(torch.zeros(1, network.channels, side, side)))
    if heads is None or found != len(heads):
        raise ContractError(
            "What the network says of its heads for training does not fit together.", clause="forward_deep",
            found=f"deep_heads {heads}, and {found} logits from forward_deep",
            expected="deep_heads: (stride, weight of its loss) for each of the logits that forward_deep returns",
            do="declare both, or neither",
        )  # fmt: skip
