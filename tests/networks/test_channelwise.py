"""Layers over the channels of each pixel against the 1x1 convolution and the norm that they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from keepmap.networks.channelwise import ChannelLinear, ChannelNorm


def test_a_matrix_is_a_1x1_convolution() -> None:
    torch.manual_seed(0)
    layer, x = ChannelLinear(5, 3), torch.randn(2, 5, 4, 7)
    expected = F.conv2d(x, layer.weight[:, :, None, None], layer.bias)
    assert layer.out_channels == 3
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_a_norm_sees_one_pixel_at_a_time() -> None:
    torch.manual_seed(0)
    layer, x = ChannelNorm(6), 10 + 3 * torch.randn(2, 6, 4, 7)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    deviation = (x.var(1, keepdim=True, unbiased=False) + layer.eps).sqrt()
    expected = (x - x.mean(1, keepdim=True)) / deviation * layer.weight[:, None, None] + layer.bias[:, None, None]
    assert torch.allclose(layer(x), expected, atol=1e-5)
    poisoned = x.clone()
    poisoned[0, 2, 1, 3] = float("nan")
    bad = layer(poisoned).isnan()
    assert bad[0, :, 1, 3].all()
    assert bad.sum() == 6
