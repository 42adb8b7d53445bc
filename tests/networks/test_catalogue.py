"""Names, options and weights of networks."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from keepmap.errors import OptionError
from keepmap.networks.catalogue import (
    NETWORKS,
    build_network,
    network_config,
    network_recipe,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_defaults_build_and_the_recipe_is_json(name: str) -> None:
    with torch.device("meta"):
        network = build_network(name, channels=4, classes=5)
    assert (network.channels, network.classes) == (4, 5)
    found, options = network_recipe(network)
    assert found == name
    assert network_config(name, channels=4, classes=5, options=json.loads(json.dumps(options))) == network.config


@pytest.mark.parametrize("name", NETWORKS)
def test_every_option_is_explained_and_frozen(name: str) -> None:
    kind = NETWORKS[name][0]
    assert all(field.metadata.get("help") for field in dataclasses.fields(kind))
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().channels = 4


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unett", {}, "did you mean unet?"),
        ("unet", {"options": {"widhts": [8]}}, "did you mean widths?"),
        ("unet", {"options": {"up": "bilinaer"}}, "did you mean bilinear?"),
        ("fcn", {"options": {"skips": 3}}, "skips"),
        ("fcn", {"options": {"encoder": "resnet19"}}, "did you mean resnet18?"),
        ("unet", {"options": {"channels": 3}}, "channels is no option"),
        ("unet", {"channels": 0}, "at least 1"),
        ("unet", {"classes": 1}, "at least 2"),
    ],
)
def test_what_does_not_exist_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        build_network(name, **{"channels": 3, "classes": 2, **arguments})
    assert message in str(caught.value)
