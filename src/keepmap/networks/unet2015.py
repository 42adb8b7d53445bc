"""The U-Net of the 2015 paper: convolutions without padding, skips cropped to the middle, 572 pixels in and 388 out.

Knows nothing of norms or encoders; the padded U-Net that the field uses today is `unet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.grid import Grid
from keepmap.networks.layers import Crop, activation, beside, conv, pool, score, transposed
from keepmap.networks.mirror import mirror
from keepmap.networks.network import CHECKPOINTING, Network
from keepmap.networks.reach import CONVS, TRANSPOSEDS
from keepmap.networks.recompute import in_turn, recomputed

LEAST_OUTPUT = 4
"""The smallest side of the logits at which every level still has rows: 4 = 2 x 4 - 4 is what two convolutions leave."""


@dataclass(frozen=True)
class UNet2015Config:
    """What a UNet2015 is built from. The default is the paper's network."""

    channels: int = option(1, "channels of the input image")
    classes: int = option(2, "classes, background included")
    widths: tuple[int, ...] = option((64, 128, 256, 512, 1024), "channels of each level, shallow first")
    dropout: float = option(0.5, "share of the values that training drops at the end of the contracting path")
    checkpointing: bool = option(False, CHECKPOINTING)


class UNet2015(Network):
    """U-Net with valid convolutions, as in the paper; images of any size, their border mirrored.

    `forward_valid` is the paper's network: (N, C, *S) -> (N, K, *(S - 184)) for sides of 188 + 16 k pixels. `forward`
    mirrors the border, as the paper does for the tiles of a large image, and returns the image's own size. Pixels that
    lie further from the border than the reach are computed from the image alone, so parts equal the whole.

    Source: Ronneberger, Fischer and Brox 2015 (U-Net), figure 1 and sections 2 and 3. Dropout stands after the two
    deepest levels of the contracting path, with the share of 0.5, as in the network that the authors published.
    """

    config: UNet2015Config
    zero_padded = False

    def __init__(self, config: UNet2015Config) -> None:
        _check(config)
        widths, drop = config.widths, config.dropout
        super().__init__(config, stride=2 ** (len(widths) - 1))
        pairs = list(pairwise(widths))
        deepest = len(pairs) - 1
        self.stem = _double(config.channels, widths[0], 0.0)
        self.pool = pool()
        self.down = nn.ModuleList(
            _double(inner, outer, drop if index >= deepest - 1 else 0.0) for index, (inner, outer) in enumerate(pairs)
        )
        self.up = nn.ModuleList(transposed(outer, inner) for inner, outer in reversed(pairs))
        self.merge = nn.ModuleList(_double(2 * inner, inner, 0.0) for inner, _ in reversed(pairs))
        self.head = score(widths[0], config.classes)
        self.trim = self._margins()
        _initialise(self)

    def core(self, x: Tensor) -> Tensor:
        """Values (N, C, *S) of valid sides -> logits (N, K, *(S - 184))."""
        x = recomputed(self, in_turn(self.stem), [x])
        levels = []
        for down in self.down:
            levels.append(x)
            x = recomputed(self, in_turn(self.pool, down), [x])
        levels.append(x)
        del x
        for index in range(len(self.up)):
            pair = [levels.pop(), levels.pop()]
            levels.append(recomputed(self, partial(self._rise, index), pair))
        logits: Tensor = self.head(levels.pop())
        return logits

    def _rise(self, index: int, values: list[Tensor]) -> Tensor:
        """The value of a level on the way up, of the one below it and of its skip, which it takes out of the list."""
        skip = values.pop()
        x = self.up[index](values.pop())
        x = beside(self.trim[index](skip, x), x)
        del skip
        merged: Tensor = self.merge[index](x)
        return merged

    def forward_valid(self, x: Tensor) -> Tensor:
        """Logits (N, K, *(S - 184)) of raw values x (N, C, *S): the paper's network, nothing mirrored.

        Each side must be 188 + 16 k pixels; ValueError naming the nearest such sides where one is not.
        """
        x = self.normalise(x)
        for side in x.shape[2:]:
            smaller, larger = self.valid_sides(side)
            if side not in (smaller, larger):
                raise ValueError(
                    f"a side of {side} px does not fit this network; the nearest are {smaller} and {larger}"
                )
        return self.core(x)

    def valid_sides(self, side: int) -> tuple[int, int]:
        """The nearest sides in pixels, not above and not below `side`, that `forward_valid` takes: 188 + 16 k.

        They are equal where it takes `side` itself; below the smallest, both are the smallest.
        """
        least, stride = LEAST_OUTPUT + 2 * self.pad_before, self.stride
        beyond = torch.sym_max(side - least, 0)  # type: ignore[no-untyped-call]
        return least + beyond // stride * stride, least + (beyond + stride - 1) // stride * stride

    def pad(self, x: Tensor) -> Tensor:
        """x inside its own mirror image: 92 pixels before it, and behind it as many as a valid side asks for."""
        return mirror(x, self.pad_before, self.padded(x.shape[2:]))

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """The valid sides at which an image of extent `size` is computed, its mirrored border included."""
        return tuple(self.valid_sides(extent + 2 * self.pad_before)[1] for extent in size)

    def size_note(self, size: Sequence[int]) -> list[str]:
        """Which sides `forward_valid` takes, and those nearest to an image of extent `size` with what comes out."""
        least, cut = self.valid_sides(1)[0], 2 * self.pad_before
        lines = [f"{least} + {self.stride} k px fit without a mirrored border, {cut} px less come out"]
        for extent in dict.fromkeys(size):
            fits = " or ".join(f"{side} -> {side - cut}" for side in dict.fromkeys(self.valid_sides(extent)))
            lines.append(f"nearest to {extent} px: {fits}")
        return lines

    def _margins(self) -> nn.ModuleList:
        """The crop of each skip onto the map that comes up to it, 4, 16, 40 and 88 px deep first; sets `pad_before`.

        Where each value's rows lie in the image is composed from layer to layer; each margin is the difference of two.
        """
        grid, skips, trims = _through(Grid(), self.stem), [], []
        for down in self.down:
            skips.append(grid)
            grid = _through(grid, self.pool, down)
        for up, merge in zip(self.up, self.merge, strict=True):
            grid = _through(grid, up)
            trims.append(Crop(skips.pop().rows_before(grid)))
            grid = _through(grid, merge)
        self.pad_before = Grid().rows_before(grid)
        return nn.ModuleList(trims)


def _through(grid: Grid, *parts: nn.Module) -> Grid:
    """Where the rows lie after all layers of `parts`."""
    for part in parts:
        for layer in part if isinstance(part, nn.Sequential) else (part,):
            grid = grid.through(layer)
    return grid


def _double(inputs: int, outputs: int, dropped: float) -> nn.Sequential:
    """Two 3x3 convolutions without padding, each followed by ReLU, and dropout where anything is dropped."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [conv(channels, outputs, padding=0, bias=True), activation("relu")]
    return nn.Sequential(*layers, *([nn.Dropout(dropped)] if dropped else []))


def _initialise(network: nn.Module) -> None:
    """Weights from N(0, sqrt(2 / N)) with N the values that one output value is computed from, biases zero.

    Source: Ronneberger, Fischer and Brox 2015, section 3; an up-convolution computes each value from one pixel.
    """
    for layer in network.modules():
        if isinstance(layer, CONVS):
            _draw(layer.weight, layer.bias, prod(layer.kernel_size) * layer.in_channels)
        elif isinstance(layer, TRANSPOSEDS):
            _draw(layer.weight, layer.bias, layer.in_channels)


def _draw(weight: Tensor, bias: Tensor | None, values: int) -> None:
    nn.init.normal_(weight, std=(2 / values) ** 0.5)
    if bias is not None:
        nn.init.zeros_(bias)


def _check(config: UNet2015Config) -> None:
    if not config.widths or min(config.widths) < 1:
        raise OptionError(
            "widths of unet2015 must be positive.", found=str(list(config.widths)), expected="as in 64, 128, 256"
        )
    if not 0 <= config.dropout < 1:
        raise OptionError(
            "dropout of unet2015 is out of range.", found=str(config.dropout), expected="0 <= dropout < 1"
        )
