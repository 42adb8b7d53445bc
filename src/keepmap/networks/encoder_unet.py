"""The U-Net decoder over an encoder, with a skip at every stride of the encoder and one at stride 1.

Knows no particular encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.encoders import build_encoder
from keepmap.networks.layers import Crop, DoubleConv, Encoder, Up, Upsample, beside, score, upsampling
from keepmap.networks.network import CHECKPOINTING, Network
from keepmap.networks.recompute import in_turn, recomputed


@dataclass(frozen=True)
class EncoderUNetConfig:
    """What an EncoderUNet is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    encoder: str = option("resnet18", "encoder, one of `keepmap models`, or timm:NAME")
    widths: tuple[int, ...] = option(
        (128, 64, 48, 32, 16), "channels of the decoder's levels, deep first; each doubles, the logits do the rest"
    )
    stem_skip: bool = option(True, "a skip at stride 1, from a double convolution, where the decoder rises so far")
    up: Up = option("bilinear", "bilinear, nearest: a 1x1 convolution and interpolation; transposed: learnt upsampling")
    narrow: bool = option(True, "upsampling also narrows to the level's width; false: as in imported weights")
    match: Literal["multiple", "resize"] = option(
        "multiple",
        "how maps fit skips at odd sizes: multiple: the image is padded to the stride; resize: repeated pixels fill "
        "just the skip, for imported weights",
    )
    head_kernel: Literal[1, 3] = option(1, "kernel of the last convolution, pixels; 3 for imported weights")
    checkpointing: bool = option(False, CHECKPOINTING)


class EncoderUNet(Network):
    """U-Net whose contracting path is an encoder.

    The skip at stride 1 has half the channels of its level: full resolution is where the time goes, and edges need few.
    Upsampling also narrows to the level's width, so the concatenation is no wider than it must be. A level has no skip
    where the encoder has no feature map of its stride: the first layer of some reduces an image 4 times.
    A decoder of fewer levels than the encoder halves the image ends at a stride of 2 or more, and its logits are
    interpolated to the image: full resolution is half of the arithmetic of a light network.
    """

    config: EncoderUNetConfig

    def __init__(self, config: EncoderUNetConfig) -> None:
        encoder = build_encoder(config.encoder, config.channels, checkpointing=config.checkpointing)
        _check(config, encoder)
        super().__init__(config, stride=encoder.strides[-1])
        widths = config.widths
        self.encoder = encoder
        rest = self.stride >> len(widths)
        stem = max(1, widths[-1] // 2) if config.stem_skip and rest == 1 else 0
        self.stem = DoubleConv(config.channels, stem) if stem else None
        maps = {1: stem, **dict(zip(encoder.strides, encoder.widths, strict=True))}
        skips = [maps.get(self.stride >> level, 0) for level in range(1, len(widths) + 1)]
        self.joined = tuple(skip > 0 for skip in skips)
        below = (encoder.widths[-1], *widths[:-1])
        lifted = widths if config.narrow else below
        self.up = nn.ModuleList(_upsampling(config, *pair) for pair in zip(below, widths, strict=True))
        self.trim = None if config.match == "multiple" else Crop(0)
        levels = zip(lifted, skips, widths, strict=True)
        self.merge = nn.ModuleList(DoubleConv(inputs + skip, width) for inputs, skip, width in levels)
        self.head = score(widths[-1], config.classes, config.head_kernel)
        self.enlarge = Upsample(rest) if rest > 1 else None

    def core(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> logits (N, K, *S)."""
        skips = [] if self.stem is None else [recomputed(self, in_turn(self.stem), [x])]
        finest = [x] if self.trim is not None else []
        skips.extend(self.encoder(x))
        del x
        for index, joined in enumerate(self.joined):
            values = [skips.pop(), *([skips.pop()] if joined else finest)]
            skips.append(recomputed(self, partial(self._rise, index), values))
        logits: Tensor = self.head(skips.pop())
        return logits if self.enlarge is None else self.enlarge(logits)

    def _rise(self, index: int, values: list[Tensor]) -> Tensor:
        """The value of a level on the way up, of the one below it and of its skip, if any; both leave the list.

        Where maps are cut to the extent of a skip, the finest level without one takes the image in its place.
        """
        skip = values.pop() if len(values) > 1 else None
        x = self.up[index](values.pop())
        if skip is not None:
            x = x if self.trim is None else self.trim(x, skip)
            x = beside(skip, x) if self.joined[index] else x
        del skip
        merged: Tensor = self.merge[index](x)
        return merged

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """The extent that `core` sees: multiples of the stride; with `resize` the image's own, one stride at the least.

        Repeating pixels until a skip is filled that is half as large rounded up, is repeating each twice and leaving
        out what exceeds it. So parts of the image equal the whole with `resize` too.
        """
        if self.config.match == "multiple":
            return super().padded(size)
        return tuple(torch.sym_max(self.stride, extent) for extent in size)  # type: ignore[no-untyped-call]


def _upsampling(config: EncoderUNetConfig, inputs: int, outputs: int) -> nn.Module:
    """Twice the extent, and unless it is not to be narrowed the width of the level."""
    return upsampling(config.up, inputs, outputs) if config.narrow else Upsample(2, nearest=config.up == "nearest")


def _check(config: EncoderUNetConfig, encoder: Encoder) -> None:
    """Raise OptionError where the fields do not go together."""
    levels = encoder.strides[-1].bit_length() - 1
    least = levels if config.match == "resize" else 1
    if not least <= len(config.widths) <= levels or min(config.widths) < 1:
        several = f"{levels}" if least == levels else f"{least} to {levels}"
        raise OptionError(
            f"widths of encoder_unet must be {several} positive numbers over {config.encoder}.",
            found=str(list(config.widths)),
            expected="such as 128, 64, 48, 32, 16",
        )
    if not config.narrow and config.up == "transposed":
        raise OptionError(
            "narrow=false of encoder_unet is for interpolation.", found="up=transposed", expected="nearest or bilinear"
        )
    if config.match == "resize" and (config.up != "nearest" or not encoder.rounds_up):
        raise OptionError(
            "match=resize of encoder_unet repeats pixels over encoders whose extents are rounded up.",
            found=f"up={config.up}, encoder={config.encoder}", expected="up=nearest and a ResNet",
        )  # fmt: skip
