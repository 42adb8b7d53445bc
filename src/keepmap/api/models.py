"""The verbs on networks: build, list, describe and check them.

Nothing here reads or writes a file.
"""

from __future__ import annotations

from typing import Any

from keepmap.networks import contract
from keepmap.networks.candidate import Segmenter
from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.describe import LevelRow, ModelRow, describe, sketch, summarise
from keepmap.networks.network import Network


def build_model(name: str, *, channels: int, classes: int, **options: Any) -> Network:
    """A network by name, with random weights: (N, channels, *S) raw values to logits (N, classes, *S).

    options: fields of the network's own dataclass; a misspelt one raises OptionError with the nearest valid name.
    """
    return build_network(name, channels=channels, classes=classes, options=options)


def list_models() -> list[ModelRow]:
    """Every network with its default options: name, parameters, stride in pixels, reach in pixels."""
    return [summarise(name) for name in NETWORKS]


def describe_network(
    name: str, *, size: tuple[int, int], channels: int = 3, classes: int = 2, **options: Any
) -> list[LevelRow]:
    """One network at one image size (H, W) in pixels, level by level: extent, channels, reach, bytes."""
    return describe(sketch(name, channels=channels, classes=classes, options=options), size)


def check_segmenter(network: Segmenter, *, seed: int = 0) -> None:
    """Prove on copies of a network, keepmap's or your own, what keepmap takes for granted of one.

    network: an `nn.Module` with channels, classes, stride, reach (before, after), local and forward: raw values
             (N, channels, H, W) to logits (N, classes, H, W). seed: of all that is drawn.
    Raises ContractError naming the first clause that does not hold.
    """
    contract.check_segmenter(network, seed=seed)
