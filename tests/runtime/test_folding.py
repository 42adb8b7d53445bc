"""Folding batch norms changes nothing but the number of layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from keepmap.networks.catalogue import build_network
from keepmap.networks.network import Network
from keepmap.networks.reach import NORMS
from keepmap.networks.unet import UNetConfig
from keepmap.runtime.folding import fold_batch_norms

NETWORKS = [
    ("unet", {"widths": (4, 6, 8)}),
    ("unet", {"widths": (4, 6, 8), "up": "bilinear"}),
    ("unet", {"widths": (4, 6), "norm": "none"}),
    ("encoder_unet", {"widths": (16, 12, 8, 6, 4)}),
    ("encoder_unet", {"encoder": "efficientnet_lite0", "widths": (16, 12, 8, 6, 4)}),
    ("fcn", {"head_width": 8}),
]


def random_statistics(network: Network) -> Network:
    """The network in eval mode, its batch norms as if trained."""
    for layer in network.modules():
        if isinstance(layer, NORMS):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return network.eval()


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@torch.inference_mode()
def test_the_folded_network_computes_the_same_without_batch_norms(name, options) -> None:
    torch.manual_seed(0)
    network = random_statistics(build_network(name, channels=3, classes=3, options=options)).double()
    x = torch.randn(1, 3, 67, 70, dtype=torch.float64)
    want = network(x)
    folded = fold_batch_norms(copy.deepcopy(network))
    assert torch.allclose(folded(x), want, rtol=0, atol=1e-9 * float(want.abs().max()))
    assert not any(isinstance(layer, NORMS) for layer in folded.modules())


class Odd(Network):
    """Two convolutions whose batch norms must stay: one is read twice, the other's norm is used twice."""

    def __init__(self) -> None:
        super().__init__(UNetConfig(channels=2, classes=2), stride=1)
        self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)
        self.norm, self.twice = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def core(self, x: Tensor) -> Tensor:
        first = self.first(x)
        y = self.norm(first) + first
        return self.twice(self.second(self.twice(y)))


@torch.inference_mode()
def test_what_cannot_be_folded_stays() -> None:
    network = random_statistics(Odd())
    x = torch.randn(1, 2, 9, 9)
    want = network(x)
    folded = fold_batch_norms(network)
    assert torch.equal(folded(x), want)
    assert sum(isinstance(layer, NORMS) for layer in folded.modules()) == 2
