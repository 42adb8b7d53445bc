"""The U-Net of the field: padded convolutions, and a skip at every level down to stride 1; with what practice added.

Knows nothing of encoders made elsewhere; the valid convolutions of the 2015 paper are another network, `unet2015`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.blocks import AttentionGate, Context, ResidualBlock
from keepmap.networks.layers import (
    Act,
    ConvStack,
    Join,
    Match,
    Upsample,
    begin_bilinear,
    beside,
    conv,
    conv_norm_act,
    pool,
    score,
    transposed,
    widened,
)
from keepmap.networks.mirror import mirror
from keepmap.networks.network import CHECKPOINTING, Network
from keepmap.networks.norms import Norm
from keepmap.networks.recompute import in_turn, recomputed

RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
"""Residual blocks of each level of nnU-Net's residual encoders; every deeper level has 6."""


@dataclass(frozen=True)
class UNetConfig:
    """What a UNet is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    widths: tuple[int, ...] = option((64, 128, 256, 512, 1024), "channels of each level, shallow first")
    norm: Norm = option("batch", "normalisation after each convolution: batch, instance, group, or none and a bias")
    act: Act = option("relu", "activation after each convolution: relu, leaky_relu, gelu or silu")
    block: Literal["plain", "residual"] = option(
        "plain", "plain: convolutions; residual: residual blocks on the way down"
    )
    blocks: tuple[int, ...] = option((2,), "convolutions, or residual blocks, of each level; one number is for all")
    decoder_blocks: tuple[int, ...] = option((2,), "convolutions of each level on the way up, shallow first")
    down: Literal["pool", "stride"] = option(
        "pool", "pool: max-pooling; stride: the first convolution of a level halves"
    )
    up: Literal["bilinear", "nearest", "transposed", "aligned"] = option(
        "transposed",
        "transposed: learnt upsampling; bilinear, nearest: a 1x1 convolution and interpolation; aligned: interpolation "
        "with aligned corners and half the channels on the way up, for imported weights",
    )
    up_kernel: int = option(2, "kernel of the transposed convolution, pixels")
    up_padding: int = option(0, "padding of the transposed convolution, pixels")
    up_output_padding: int = option(0, "output padding of the transposed convolution, pixels")
    up_init: Literal["random", "bilinear"] = option("random", "how transposed convolutions begin: random, or bilinear")
    match: Match = option(
        "multiple",
        "how maps fit skips at odd sizes: multiple: the image is padded to the stride; for imported weights pad: zeros "
        "around the map, crop: of the skip, resize: of the map",
    )
    attention: bool = option(False, "attention gates on the skips")
    context: bool = option(False, "a global context at the deepest level: every pixel sees the whole image")
    deep: int = option(0, "levels below the finest that have logits of their own, for deep supervision")
    residual_encoder: int = option(
        0,
        "side in pixels of the training crops for which this is nnU-Net's residual-encoder U-Net, such as 512: it sets "
        "widths, blocks, decoder_blocks, block, norm, act and down; 0: these count. ResEnc M, L and XL are this rule "
        "with the crops that fill 8, 24 and 40 GB",
    )
    checkpointing: bool = option(False, CHECKPOINTING)

    def __post_init__(self) -> None:
        """Set what `residual_encoder` does. Raises OptionError where one of it was set to something else."""
        if not self.residual_encoder:
            return
        default = {field.name: field.default for field in fields(self)}
        for name, value in residual_encoder(self.residual_encoder).items():
            given = getattr(self, name)
            if given not in (default[name], value):
                raise OptionError(
                    f"residual_encoder of unet sets {name}, which is set to something else.", found=f"{name}={given}",
                    expected=f"{name}={value}", do="leave one of them out",
                )
            object.__setattr__(self, name, value)


class UNet(Network):
    """U-Net of any depth and widths, in the form that the field uses and with what practice has added to it.

    Source: Ronneberger, Fischer and Brox 2015, with zero padding and batch normalisation as commonly used since.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        _check(config)
        widths = config.widths
        super().__init__(config, stride=2 ** (len(widths) - 1))
        self.zero_padded = config.match != "crop"
        levels = range(len(widths) - 1)[::-1]
        self.stem = _contracting(config, 0)
        self.pool = pool() if config.down == "pool" else nn.Identity()
        self.down = nn.ModuleList(_contracting(config, level) for level in range(1, len(widths)))
        self.context = Context(widths[-1]) if config.context else None
        self.gate = _gates(config) if config.attention else None
        self.up = nn.ModuleList(_upsampling(config, level) for level in levels)
        self.join = None if config.match == "multiple" else Join(config.match, nearest=config.up == "nearest")
        self.merge = nn.ModuleList(_merging(config, level) for level in levels)
        self.head = score(_above(config, 0), config.classes)
        self.deep = nn.ModuleList(score(_above(config, level), config.classes) for level in range(1, config.deep + 1))

    def core(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> logits (N, K, *S)."""
        values = [x]
        del x  # the list alone holds it, and it dies once it has been read
        return self._expand(self._contract(values))[-1]

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        """Logits of raw values x (N, C, *S) for deep supervision: those of `forward`, then those of the levels below.

        Level l has (N, K, *T) with T = S / 2^l rounded up (where `match` pads nothing to the stride: down), for `deep`
        levels. Raises ValueError as `forward` does.
        Source: Isensee et al. 2021 (nnU-Net); Dou et al. 2016 (deep supervision).
        """
        size = x.shape[2:]
        logits = self._expand(self._contract([self.prepare(x)]), deep=self.config.deep)[::-1]
        for level, found in enumerate(logits):
            wanted = (-(-extent // 2**level) for extent in size)
            logits[level] = self.crop(found, [min(pair) for pair in zip(wanted, found.shape[2:], strict=True)])
        return logits

    @property
    def deep_heads(self) -> tuple[tuple[int, float], ...]:
        """(stride, weight of its loss) of each of the logits of `forward_deep`; none without deep supervision.

        Each level weighs half of the one above and the lowest that could have logits nothing; they sum to 1.
        Source: Isensee et al. 2021 (nnU-Net).
        """
        if not self.config.deep:
            return ()
        lowest = len(self.config.widths) - 2
        weights = [0.0 if level == lowest else 0.5**level for level in range(self.config.deep + 1)]
        return tuple((2**level, weight / sum(weights)) for level, weight in enumerate(weights))

    def pad(self, x: Tensor) -> Tensor:
        """x with zeros, or where skips are cropped its mirrored border, at the bottom and right, as far as `padded`."""
        return mirror(x, 0, self.padded(x.shape[2:])) if self.config.match == "crop" else super().pad(x)

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """The extent that `core` sees of an image of extent `size`.

        `multiple` and `crop`: multiples of the stride, at least two of them; the least at which a cropped result covers
        the image. `pad` and `resize`: the image's own, but at least the one row (two where the norm needs statistics of
        the image) of the deepest level without which the networks that they reproduce fail.
        """
        if self.config.match in ("multiple", "crop"):
            return super().padded(size)
        least = self.stride * (2 if self.config.norm in ("instance", "group") else 1)
        return tuple(torch.sym_max(least, extent) for extent in size)  # type: ignore[no-untyped-call]

    def _contract(self, values: list[Tensor]) -> list[Tensor]:
        """The last value of each level on the way down, shallow first; takes the padded values out of the list."""
        x = recomputed(self, in_turn(self.stem), values)
        levels = []
        for down in self.down:
            levels.append(x)
            x = recomputed(self, in_turn(self.pool, down), [x])
        if self.context is not None:
            x = self.context(x)
        levels.append(x)
        return levels

    def _expand(self, levels: list[Tensor], deep: int = 0) -> list[Tensor]:
        """The logits of the `deep` levels below the finest, then its own; takes the values of the way down."""
        logits = []
        for index in range(len(self.up)):
            pair = [levels.pop(), levels.pop()]
            levels.append(recomputed(self, partial(self._rise, index), pair))
            if 1 < len(levels) <= deep + 1:
                logits.append(self.deep[len(levels) - 2](levels[-1]))
        logits.append(self.head(levels.pop()))
        return logits

    def _rise(self, index: int, values: list[Tensor]) -> Tensor:
        """The value of a level on the way up, of the one below it and of its skip, which it takes out of the list."""
        skip = values.pop()
        x = values.pop()
        if self.gate is not None:
            skip = self.gate[index](skip, x)
        x = self.up[index](x)
        x = beside(skip, x) if self.join is None else self.join(skip, x)
        del skip
        merged: Tensor = self.merge[index](x)
        return merged


def residual_encoder(patch: int) -> dict[str, Any]:
    """Fields of the residual-encoder U-Net (ResEnc M, L and XL) of nnU-Net Revisited for images of rank 2.

    patch: side in pixels of the training crops. The three presets share this rule and differ in the memory that they
           fill, 8, 24 and 40 GB, hence in the patch; levels halve it until less than 8 px are left.
    Source: Isensee et al. 2024 (nnU-Net Revisited), and nnU-Net's planner for the widths. Convolutions before a norm
    have no bias here, which changes no value that the network can compute. Raises OptionError for less than 1 px.
    """
    if patch < 1:
        raise OptionError("residual_encoder of unet is a side in pixels.", found=str(patch), expected="such as 512")
    levels = max(1, patch.bit_length() - 2)
    blocks = (*RESIDUAL_BLOCKS, *[RESIDUAL_BLOCKS[-1]] * levels)[:levels]
    return {
        "widths": tuple(min(32 * 2**level, 512) for level in range(levels)), "blocks": blocks, "decoder_blocks": (1,),
        "block": "residual", "norm": "instance", "act": "leaky_relu", "down": "stride",
    }  # fmt: skip


def _contracting(config: UNetConfig, level: int) -> nn.Module:
    """The convolutions of a level on the way down; a residual network begins with a plain one."""
    outputs = config.widths[level]
    inputs = config.widths[level - 1] if level else config.channels
    stride = 2 if level and config.down == "stride" else 1
    count = _of_level(config.blocks, level)
    if config.block == "plain":
        return ConvStack(inputs, outputs, count=count, stride=stride, norm=config.norm, act=config.act)
    layers: list[nn.Module] = []
    if not level:
        layers.append(conv_norm_act(inputs, outputs, norm=config.norm, act=config.act))
        inputs = outputs
    layers.append(ResidualBlock(inputs, outputs, stride=stride, norm=config.norm, act=config.act))
    layers += [ResidualBlock(outputs, outputs, norm=config.norm, act=config.act) for _ in range(count - 1)]
    return nn.Sequential(*layers)


def _upsampling(config: UNetConfig, level: int) -> nn.Module:
    """From the level below to the extent and, unless it is `aligned`, the width of this one."""
    inputs, outputs = _above(config, level + 1), config.widths[level]
    if config.up == "aligned":
        return Upsample(2, aligned=True)
    if config.up != "transposed":
        if config.match == "resize":
            return nn.Sequential(conv(inputs, outputs, 1, bias=True))
        return widened(inputs, outputs, nearest=config.up == "nearest")
    layer = transposed(
        inputs, outputs, kernel=config.up_kernel, padding=config.up_padding, output_padding=config.up_output_padding
    )
    return begin_bilinear(layer) if config.up_init == "bilinear" else layer


def _merging(config: UNetConfig, level: int) -> nn.Module:
    """The convolutions of a level on the way up, over the skip and what comes up to it."""
    skip, outputs, count = config.widths[level], _above(config, level), _of_level(config.decoder_blocks, level)
    if config.up == "aligned":
        inputs = skip + _above(config, level + 1)
        return ConvStack(inputs, outputs, middle=inputs // 2, count=count, norm=config.norm, act=config.act)
    return ConvStack(2 * skip, outputs, count=count, norm=config.norm, act=config.act)


def _above(config: UNetConfig, level: int) -> int:
    """The channels that the way up leaves a level with; the deepest level's own at the deepest."""
    halved = config.up == "aligned" and 0 < level < len(config.widths) - 1
    return max(1, config.widths[level] // 2) if halved else config.widths[level]


def _gates(config: UNetConfig) -> nn.ModuleList:
    levels = range(len(config.widths) - 1)[::-1]
    return nn.ModuleList(AttentionGate(config.widths[level], _above(config, level + 1)) for level in levels)


def _of_level(numbers: tuple[int, ...], level: int) -> int:
    return numbers[level] if len(numbers) > 1 else numbers[0]


def _check(config: UNetConfig) -> None:
    """Raise OptionError where the fields do not go together."""
    widths, depth = config.widths, len(config.widths)
    if not widths or min(widths) < 1:
        raise OptionError("widths of unet must be positive.", found=str(list(widths)), expected="as in 16, 32, 64")
    for name, numbers, levels in (
        ("blocks", config.blocks, depth),
        ("decoder_blocks", config.decoder_blocks, depth - 1),
    ):
        if len(numbers) not in (1, levels) or min(numbers, default=1) < 1:
            raise OptionError(
                f"{name} of unet must be one positive number, or {levels} of them.", found=str(list(numbers))
            )
    if not 0 <= config.deep < max(depth - 1, 1):
        raise OptionError(
            "deep of unet counts levels between the finest and the deepest.",
            found=str(config.deep),
            expected=f"0 to {max(depth - 2, 0)} for {depth} widths",
        )
    if config.match != "multiple" and (config.attention or config.down == "stride"):
        raise OptionError(
            f"match={config.match} goes with max-pooling and without attention gates only.",
            found="attention" if config.attention else "down=stride",
            do="use match=multiple",
        )
    if config.up_init == "bilinear" and config.up != "transposed":
        raise OptionError(
            "up_init=bilinear is for transposed convolutions.", found=f"up={config.up}", expected="up=transposed"
        )
