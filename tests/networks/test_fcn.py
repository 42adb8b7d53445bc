"""What the fully convolutional networks have beside the contract of all networks."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from keepmap.errors import OptionError
from keepmap.networks.fcn import FCN, FCNConfig


@pytest.mark.parametrize(("skips", "factors"), [(0, [32]), (1, [2, 16]), (2, [2, 2, 8])])
def test_skips_decide_the_upsampling(skips: Literal[0, 1, 2], factors: list[int]) -> None:
    network = FCN(FCNConfig(3, 4, skips=skips, head_width=8))
    layers = [*network.lift, network.up]
    assert [layer.stride[0] for layer in layers] == factors
    assert [layer.kernel_size[0] for layer in layers] == [2 * factor for factor in factors]
    assert all(layer.groups == 4 for layer in layers)


def test_begins_as_the_bilinear_interpolation_of_fused_scores() -> None:
    torch.manual_seed(0)
    network = FCN(FCNConfig(3, 4, skips=2, head_width=8)).eval()
    x = torch.randn(1, 3, 192, 160)
    with torch.inference_mode():
        *_, eighth, sixteenth, last = network.encoder(x)
        fused = F.interpolate(network.head(last), scale_factor=2.0, mode="bilinear") + network.score[0](sixteenth)
        fused = F.interpolate(fused, scale_factor=2.0, mode="bilinear") + network.score[1](eighth)
        expected = F.interpolate(fused, scale_factor=8.0, mode="bilinear")
        inner = (..., slice(64, -64), slice(64, -64))
        assert torch.allclose(network(x)[inner], expected[inner], atol=1e-4 * float(expected.abs().max()))


def test_an_impossible_head_is_refused() -> None:
    with pytest.raises(OptionError, match="head_width"):
        FCN(FCNConfig(3, 4, head_width=0))
