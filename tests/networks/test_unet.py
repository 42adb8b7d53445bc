"""The U-Net against the same arithmetic written with plain functions, and the field's parameter count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.errors import OptionError
from keepmap.networks.unet import UNet, UNetConfig


def double(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    for index in (0, 1):
        weight = state[f"{name}.{index}.conv.weight"]
        x = F.conv2d(x, weight, state.get(f"{name}.{index}.conv.bias"), padding=1)
        if f"{name}.{index}.norm.weight" in state:
            norm = [state[f"{name}.{index}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
            x = F.batch_norm(x, *norm)
        x = F.relu(x)
    return x


def plain_unet(state: dict[str, Tensor], x: Tensor, depth: int) -> Tensor:
    """The double-convolution U-Net of the field, its decoder interpolating to the skip's size."""
    skips = [double(state, "stem", x)]
    for level in range(depth):
        skips.append(double(state, f"down.{level}", F.max_pool2d(skips[-1], 2)))
    x = skips.pop()
    for level in range(depth):
        if f"up.{level}.weight" in state:
            x = F.conv_transpose2d(x, state[f"up.{level}.weight"], state[f"up.{level}.bias"], stride=2)
        else:
            x = F.interpolate(x, size=skips[-1].shape[2:], mode="bilinear")
            x = F.conv2d(x, state[f"up.{level}.0.weight"], state[f"up.{level}.0.bias"])
        x = double(state, f"merge.{level}", torch.cat([skips.pop(), x], 1))
    return F.conv2d(x, state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("options", [{}, {"up": "bilinear"}, {"norm": "none"}])
def test_equals_the_networks_arithmetic_in_plain_functions(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = UNet(UNetConfig(3, 4, widths=(6, 8, 10, 12), **options))
    for _ in range(3):
        network(torch.randn(2, 3, 48, 32))
    network.eval()
    x = torch.randn(2, 3, 48, 32)
    with torch.inference_mode():
        assert torch.allclose(network(x), plain_unet(network.state_dict(), x, 3), atol=1e-5)


def test_the_classic_has_the_fields_parameter_count() -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig(3, 2))
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_037_698


@pytest.mark.parametrize(
    ("options", "reach"),
    [({}, 107), ({"up": "bilinear"}, 122), ({"widths": (8,) * 6}, 219), ({"widths": (8,)}, 2)],
)
def test_known_reaches(options: dict[str, Any], reach: int) -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig(3, 2, **options))
    assert network.reach == (reach, reach)
    assert network.stride == 2 ** (len(network.config.widths) - 1)


@pytest.mark.parametrize("options", [{"widths": ()}, {"widths": (4, 0)}, {"up_kernel": 3}, {"up_padding": 1}])
def test_impossible_configurations_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        UNet(UNetConfig(3, 2, **options))
