"""Fully convolutional networks over an encoder: FCN-32s, 16s and 8s as one class.

Knows no particular encoder; the networks of the paper, over VGG-16 and with its padding, are another network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.encoders import build_encoder
from keepmap.networks.layers import bilinear_weight, conv_norm_act, score, transposed
from keepmap.networks.score_network import ScoreNetwork


@dataclass(frozen=True)
class FCNConfig:
    """What an FCN is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    encoder: str = option("resnet18", "encoder, one of `keepmap models`")
    skips: Literal[0, 1, 2] = option(2, "score maps fused into the deepest one: 0 is FCN-32s, 1 FCN-16s, 2 FCN-8s")
    head_width: int = option(256, "channels of the two convolutions that replace the fully connected layers")


class FCN(ScoreNetwork):
    """FCN-32s, 16s or 8s: scores at stride 32, 16 and 8 fused by addition, upsampling initialised bilinearly.

    Source: Long, Shelhamer and Darrell 2015, section 4.
    """

    config: FCNConfig

    def __init__(self, config: FCNConfig) -> None:
        encoder = build_encoder(config.encoder, config.channels)
        super().__init__(config, stride=encoder.strides[-1])
        if config.head_width < 1:
            raise OptionError("head_width of fcn must be positive.", found=str(config.head_width), expected="as in 256")
        classes, width, skips = config.classes, config.head_width, config.skips
        self.encoder = encoder
        self.head = nn.Sequential(
            conv_norm_act(encoder.widths[-1], width), conv_norm_act(width, width, 1), score(width, classes)
        )
        self.score = nn.ModuleList(score(inputs, classes) for inputs in encoder.widths[-2::-1][:skips])
        self.lift = nn.ModuleList(_interpolation(classes, 2) for _ in range(skips))
        self.score_stride = encoder.strides[-1 - skips]
        self.up = _interpolation(classes, self.score_stride)

    def coarse(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> the score map (N, K, *T) at stride 32, 16 or 8."""
        features = self.encoder(x)[-1 - self.config.skips :]
        x = self.head(features.pop())
        for lift, fused in zip(self.lift, self.score, strict=True):
            x = lift(x) + fused(features.pop())
        return x


def _interpolation(classes: int, factor: int) -> nn.Module:
    """A learnt upsampling of each score map on its own that begins as bilinear interpolation."""
    layer = transposed(classes, classes, factor=factor, kernel=2 * factor, padding=factor // 2, groups=classes)
    with torch.no_grad():
        layer.weight.copy_(bilinear_weight(2 * factor, factor).expand_as(layer.weight))
    return layer
