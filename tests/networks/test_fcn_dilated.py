"""The dilated FCN against torchvision's definition of it in plain functions and numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.errors import OptionError
from keepmap.networks.catalogue import build_network
from keepmap.networks.describe import parameters
from keepmap.networks.fcn_dilated import FCNDilated, FCNDilatedConfig

COUNTS = {
    ("resnet50", False): 32_957_013, ("resnet50", True): 35_322_218,
    ("resnet101", False): 51_949_141, ("resnet101", True): 54_314_346,
}  # fmt: skip
"""Of torchvision's fcn_resnet50 and fcn_resnet101 at 21 classes, without and with the auxiliary head."""


def tiny(**options: Any) -> FCNDilated:
    torch.manual_seed(0)
    return FCNDilated(FCNDilatedConfig(2, 3, width=4, **options)).eval()


def plain_head(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = F.conv2d(x, state[f"{name}.0.weight"], padding=1)
    x = F.batch_norm(x, *(state[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")))
    return F.conv2d(F.relu(x), state[f"{name}.4.weight"], state[f"{name}.4.bias"])


@pytest.mark.parametrize("case", COUNTS, ids=str)
def test_parameters_are_the_published_ones(case: tuple[str, bool]) -> None:
    encoder, aux = case
    with torch.device("meta"):
        network = build_network("fcn_dilated", channels=3, classes=21, options={"encoder": encoder, "aux": aux})
    assert parameters(network) == COUNTS[case]
    assert network.stride == 8


@pytest.mark.parametrize("size", [(1, 1), (8, 24), (33, 47)])
def test_resize_stretches_the_scores_as_torchvision_does(size: tuple[int, int]) -> None:
    network, x = tiny(match="resize", aux=True), torch.randn(2, 2, *size)
    state = network.state_dict()
    with torch.inference_mode():
        *_, before, last = network.encoder(x)
        expected = [
            F.interpolate(plain_head(state, name, features), size=size, mode="bilinear", align_corners=False)
            for name, features in (("head", last), ("aux", before))
        ]
        assert last.shape[2:] == tuple(-(-side // 8) for side in size)
        assert torch.allclose(network(x), expected[0], atol=1e-5 * float(expected[0].abs().max()))
        for one, other in zip(network.forward_deep(x), expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5 * float(other.abs().max()))


def test_the_two_ways_to_match_agree_at_multiples_of_the_stride_alone() -> None:
    multiple, resize = tiny(), tiny(match="resize")
    with torch.inference_mode():
        for size, agree in (((32, 48), True), ((33, 48), False)):
            x = torch.randn(1, 2, *size)
            assert multiple(x).shape == resize(x).shape == (1, 3, *size)
            assert torch.allclose(multiple(x), resize(x), atol=1e-5) is agree
    assert multiple.local
    assert not resize.local


def test_the_auxiliary_head_is_trained_beside_the_first() -> None:
    network = tiny(aux=True).train()
    assert (tiny().deep_heads, network.deep_heads) == ((), ((1, 1.0), (1, 0.5)))
    first, second = network.forward_deep(torch.randn(2, 2, 40, 33))
    assert first.shape == second.shape == (2, 3, 40, 33)
    (first.square().sum() + 0.5 * second.square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.aux.parameters())


def test_the_first_of_the_two_are_the_logits() -> None:
    network, x = tiny(aux=True), torch.randn(1, 2, 30, 21)
    with torch.inference_mode():
        assert torch.equal(network.forward_deep(x)[0], network(x))
        assert len(tiny().forward_deep(x)) == 1
    assert set(tiny().state_dict()) < set(network.state_dict())


def test_an_impossible_width_is_refused() -> None:
    with pytest.raises(OptionError, match="width"):
        FCNDilated(FCNDilatedConfig(3, 2, width=0))
