"""Counted bytes against computed ones, and the rule for networks of which only the counted are known."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from keepmap.networks.catalogue import build_network
from keepmap.networks.describe import peak_bytes
from keepmap.networks.footprint import counted_bytes, memory_of, training_bytes
from keepmap.networks.network import Network

CASES = [("unet", {"widths": (8, 16, 24)}), ("encoder_unet", {"encoder": "resnet18"}), ("fcn_dilated", {"width": 16})]


@pytest.fixture(params=CASES, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    name, options = request.param
    return build_network(name, channels=3, classes=4, options=options)


class Foreign(nn.Module):
    """A network of keepmap behind a face that hides what it is made of."""

    def __init__(self, inside: Network) -> None:
        super().__init__()
        self.inside = inside
        self.channels, self.classes, self.stride = inside.channels, inside.classes, inside.stride
        self.reach, self.local = inside.reach, inside.local

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


def test_what_is_counted_is_what_is_computed_or_little_less(network: Network) -> None:
    """Of two images in training half is taken, as a norm may need both; what both share then counts once."""
    size = (96, 128)
    assert counted_bytes(network, size) == pytest.approx(peak_bytes(network, size), rel=0.01)
    trained = peak_bytes(network, size, training=True)
    assert 0.7 * trained <= counted_bytes(network, size, training=True) <= 1.01 * trained


def test_a_network_without_known_layers_is_counted(network: Network) -> None:
    known, foreign = (memory_of(each, bytes_per_value=4) for each in (network, Foreign(network)))
    for size in ((128, 96), (512, 640)):
        assert foreign(*size) == pytest.approx(known(*size), rel=0.05)
    assert training_bytes(network, (64, 64), bytes_per_value=4) == peak_bytes(network, (64, 64), training=True)
    counted = counted_bytes(network, (64, 64), training=True)
    assert training_bytes(Foreign(network), (64, 64), bytes_per_value=2) == counted, "float32, an upper bound"


def test_counting_changes_nothing(network: Network) -> None:
    network.train()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    counted_bytes(network, (32, 32), training=True)
    counted_bytes(network, (32, 32))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)
