"""The U-Net decoder over an encoder, with a skip at every stride of the encoder and one at stride 1.

Knows no particular encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.encoders import build_encoder
from keepmap.networks.layers import DoubleConv, Up, score, upsampling
from keepmap.networks.network import Network


@dataclass(frozen=True)
class EncoderUNetConfig:
    """What an EncoderUNet is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    encoder: str = option("resnet18", "encoder, one of `keepmap models`, or timm:NAME")
    widths: tuple[int, ...] = option(
        (128, 64, 48, 32, 16), "channels of the decoder's levels, one a halving, deep first"
    )
    stem_skip: bool = option(True, "a skip at stride 1, from a double convolution on the input")
    up: Up = option("bilinear", "bilinear, nearest: a 1x1 convolution and interpolation; transposed: learnt upsampling")


class EncoderUNet(Network):
    """U-Net whose contracting path is an encoder.

    The skip at stride 1 has half the channels of its level: full resolution is where the time goes, and edges need few.
    Upsampling also narrows to the level's width, so the concatenation is no wider than it must be. A level has no skip
    where the encoder has no feature map of its stride: the first layer of some reduces an image 4 times.
    """

    config: EncoderUNetConfig

    def __init__(self, config: EncoderUNetConfig) -> None:
        encoder = build_encoder(config.encoder, config.channels)
        super().__init__(config, stride=encoder.strides[-1])
        widths = config.widths
        levels = self.stride.bit_length() - 1
        if len(widths) != levels or min(widths) < 1:
            raise OptionError(
                f"widths of encoder_unet must be {levels} positive numbers over {config.encoder}.",
                found=str(list(widths)),
                expected="such as 128, 64, 48, 32, 16",
            )
        self.encoder = encoder
        narrow = max(1, widths[-1] // 2) if config.stem_skip else 0
        self.stem = DoubleConv(config.channels, narrow) if config.stem_skip else None
        maps = {1: narrow, **dict(zip(encoder.strides, encoder.widths, strict=True))}
        skips = [maps.get(self.stride >> level, 0) for level in range(1, levels + 1)]
        self.joined = tuple(skip > 0 for skip in skips)
        below = (encoder.widths[-1], *widths[:-1])
        ups = zip(below, widths, strict=True)
        self.up = nn.ModuleList(upsampling(config.up, inputs, outputs) for inputs, outputs in ups)
        self.merge = nn.ModuleList(DoubleConv(width + skip, width) for width, skip in zip(widths, skips, strict=True))
        self.head = score(widths[-1], config.classes)

    def core(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> logits (N, K, *S)."""
        skips = [] if self.stem is None else [self.stem(x)]
        skips.extend(self.encoder(x))
        x = skips.pop()
        for up, merge, joined in zip(self.up, self.merge, self.joined, strict=True):
            x = up(x)
            if joined:
                x = torch.cat([skips.pop(), x], 1)
            x = merge(x)
        logits: Tensor = self.head(x)
        return logits
