"""The U-Net of the field: padded double convolutions, max-pooling, and a skip at every level down to stride 1.

Knows nothing of encoders made elsewhere; the valid convolutions of the 2015 paper are another network.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.layers import DoubleConv, Norm, Up, pool, score, transposed, widened
from keepmap.networks.network import Network


@dataclass(frozen=True)
class UNetConfig:
    """What a UNet is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    widths: tuple[int, ...] = option((64, 128, 256, 512, 1024), "channels of each level, shallow first")
    norm: Norm = option("batch", "batch: batch normalisation after each convolution; none: a bias instead")
    up: Up = option("transposed", "transposed: learnt upsampling; bilinear: interpolation and a convolution")
    up_kernel: int = option(2, "kernel of the transposed convolution, pixels")
    up_padding: int = option(0, "padding of the transposed convolution, pixels")
    up_output_padding: int = option(0, "output padding of the transposed convolution, pixels")


class UNet(Network):
    """U-Net with double convolutions, any depth and widths.

    Source: Ronneberger, Fischer and Brox 2015, with zero padding and batch normalisation as commonly used since.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        widths = config.widths
        if not widths or min(widths) < 1:
            raise OptionError("widths of unet must be positive.", found=str(list(widths)), expected="as in 16, 32, 64")
        super().__init__(config, stride=2 ** (len(widths) - 1))
        pairs = list(pairwise(widths))
        self.stem = DoubleConv(config.channels, widths[0], norm=config.norm)
        self.pool = pool()
        self.down = nn.ModuleList(DoubleConv(inner, outer, norm=config.norm) for inner, outer in pairs)
        self.up = nn.ModuleList(_upsampling(config, outer, inner) for inner, outer in reversed(pairs))
        self.merge = nn.ModuleList(DoubleConv(2 * inner, inner, norm=config.norm) for inner, _ in reversed(pairs))
        self.head = score(widths[0], config.classes)

    def core(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> logits (N, K, *S)."""
        x = self.stem(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = self.pool(x)
            x = down(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = up(x)
            x = torch.cat([skips.pop(), x], 1)
            x = merge(x)
        logits: Tensor = self.head(x)
        return logits


def _upsampling(config: UNetConfig, inputs: int, outputs: int) -> nn.Module:
    """Twice the extent, from the deeper level's channels to this level's."""
    if config.up == "transposed":
        return transposed(
            inputs, outputs, kernel=config.up_kernel, padding=config.up_padding, output_padding=config.up_output_padding
        )
    return widened(inputs, outputs)
