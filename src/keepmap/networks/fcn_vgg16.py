"""The FCN-32s, 16s and 8s of the paper as its reference code defines them: over VGG-16, pad 100, crops at the end.

Knows VGG-16 alone; the same idea over any encoder and without that padding is `fcn`, which is what a user picks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.grid import Grid
from keepmap.networks.layers import ACTIVATION, Crop, Scale, conv, dense_bilinear, zero_score
from keepmap.networks.network import CHECKPOINTING
from keepmap.networks.reach import POOLS
from keepmap.networks.recompute import in_turn, recomputed
from keepmap.networks.score_network import ScoreNetwork
from keepmap.networks.vgg import VGG, VGGS, WIDTHS

PAD = 100
"""Zeros around the image that its first convolution sees, pixels: enough for fc6 to fit into an image of one pixel."""
FC6 = 7
"""Kernel of the first fully connected layer: VGG-16 ends in 7x7 features."""
AT_ONCE = (0.01, 0.0001)
"""What pool4 and pool3 are multiplied by before their scores where all strides are trained at once."""

Upsamplers = Literal["fixed", "inner", "learned"]


@dataclass(frozen=True)
class FCNVGG16Config:
    """What an FCNVGG16 is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    skips: Literal[0, 1, 2] = option(2, "score maps fused into the deepest one: 0 is FCN-32s, 1 FCN-16s, 2 FCN-8s")
    at_once: bool = option(False, "scale pool4 and pool3 by 0.01 and 0.0001, to train all strides at once")
    up: Upsamplers = option("fixed", "fixed: bilinear for ever; inner: learned, but for the last; learned: all of it")
    widths: tuple[int, ...] = option(WIDTHS, "channels of each block of VGG-16, shallow first")
    head_width: int = option(4096, "channels of fc6 and fc7")
    dropout: float = option(0.5, "share of the values of fc6 and of fc7 that training drops")
    checkpointing: bool = option(False, CHECKPOINTING)


class FCNVGG16(ScoreNetwork):
    """The paper's FCN-32s, 16s or 8s over VGG-16: pad 100, dense bilinear upsampling, crops derived from the layers.

    `pad` adds 99 zeros on each side and the first convolution its own one. Pooling rounds up. All this happens around a
    part of an image just as around the whole, out of reach of what is kept, so parts equal the whole.
    Score layers begin at zero.
    Source: Shelhamer, Long and Darrell 2017 (Fully Convolutional Networks), section 4, and its reference code.
    """

    config: FCNVGG16Config

    def __init__(self, config: FCNVGG16Config) -> None:
        _check(config)
        encoder = VGG(config.channels, VGGS["vgg16"], widths=config.widths, ceil=True)
        super().__init__(config, stride=encoder.strides[-1])
        classes, skips = config.classes, config.skips
        self.pad_before = PAD - 1
        self.score_stride = encoder.strides[-1 - skips]
        self.encoder = encoder
        self.encoder.checkpointing = config.checkpointing
        self.head = _head(config)
        self.scale = nn.ModuleList(Scale(factor) if config.at_once else nn.Identity() for factor in AT_ONCE[:skips])
        self.score = nn.ModuleList(zero_score(width, classes) for width in config.widths[-2::-1][:skips])
        self.lift = nn.ModuleList(dense_bilinear(classes, 2).requires_grad_(config.up != "fixed") for _ in range(skips))
        self.up = dense_bilinear(classes, self.score_stride).requires_grad_(config.up == "learned")
        self.trim = self._aligned()

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """The extent that `core` sees of an image of extent `size`: 99 zeros on every side, 225 rows at the least.

        Below 27 px the reference has a single row of scores, which an exported network could not tell from many; here
        more zeros below and right make it two. From 27 px on all is as in the reference.
        """
        least = FC6 * self.stride + 1
        return tuple(torch.sym_max(extent + 2 * self.pad_before, least) for extent in size)  # type: ignore[no-untyped-call]

    def coarse(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> the score map (N, K, *T) at stride 32, 16 or 8."""
        features = self.encoder(x)
        x = recomputed(self, in_turn(self.head), [features.pop()])
        for lift, scale, fused, trim in zip(self.lift, self.scale, self.score, self.trim, strict=True):
            x = lift(x)
            skip = fused(scale(features.pop()))
            x = x + trim(skip, x)
        return x

    def _aligned(self) -> nn.ModuleList:
        """The crop of each skip's scores onto the upsampled map, sets `crop_before` and `score_crop` too.

        Where each value's rows lie in the image is composed from layer to layer; each crop is the difference of two.
        """
        grid, pooled = Grid().without(-self.pad_before), []
        for layer in self.encoder.features:
            grid = grid.through(layer)
            if isinstance(layer, POOLS):
                pooled.append(grid)
        for layer in self.head:
            grid = grid.through(layer)
        trims = []
        for lift, skip in zip(self.lift, pooled[-2::-1], strict=False):
            grid = grid.through(lift)
            trims.append(Crop(skip.rows_before(grid)))
        self.score_crop = max(0, ceil(-grid.origin / grid.step))
        self.crop_before = grid.through(self.up).rows_before(Grid())
        return nn.ModuleList(trims)


def as_convolution(weight: Tensor, kernel: int) -> Tensor:
    """The matrix (O, C * k * k) of a layer on flattened (C, k, k) features as a kernel (O, C, k, k); k is `kernel`.

    A convolution with it computes at every place what the layer computed at one. ValueError where it does not divide.
    """
    outputs, values = weight.shape
    if values % kernel**2:
        raise ValueError(f"a matrix of {values} columns is no {kernel}x{kernel} kernel over any number of channels")
    return weight.reshape(outputs, values // kernel**2, kernel, kernel)


def from_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a VGG-16 classifier under the names of FCNVGG16, fully connected layers as convolutions.

    state: torchvision's names (features.N, classifier.0, classifier.3). Its last layer, the classes of ImageNet, is
           left out, as in the paper; score and upsampling layers remain to be set.
    Raises ValueError naming a tensor that is missing.
    """
    converted = {f"encoder.{name}": tensor for name, tensor in state.items() if name.startswith("features.")}
    for source, target, kernel in (("classifier.0", "fc6", FC6), ("classifier.3", "fc7", 1)):
        for name in (f"{source}.weight", f"{source}.bias"):
            if name not in state:
                raise ValueError(f"these are not the weights of a VGG-16 classifier: {name} is missing")
        converted[f"head.{target}.weight"] = as_convolution(state[f"{source}.weight"], kernel)
        converted[f"head.{target}.bias"] = state[f"{source}.bias"]
    return converted


def _check(config: FCNVGG16Config) -> None:
    if len(config.widths) != len(WIDTHS) or min(*config.widths, config.head_width) < 1:
        raise OptionError(
            f"widths of fcn_vgg16 must be {len(WIDTHS)} positive numbers, and head_width positive.",
            found=f"{list(config.widths)} and {config.head_width}",
            expected="such as 64, 128, 256, 512, 512 and 4096",
        )
    if not 0 <= config.dropout < 1:
        raise OptionError(
            "dropout of fcn_vgg16 must be a share.", found=str(config.dropout), expected="0 up to below 1"
        )


def _head(config: FCNVGG16Config) -> nn.Sequential:
    """fc6 and fc7 as convolutions without padding, and the scores of the deepest features."""
    width = config.head_width
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, inputs, kernel in (("fc6", config.widths[-1], FC6), ("fc7", width, 1)):
        layers[name] = conv(inputs, width, kernel, padding=0, bias=True)
        layers[f"{name}_act"] = ACTIVATION["relu"](inplace=True)
        layers[f"{name}_drop"] = nn.Dropout(config.dropout)
    layers["score"] = zero_score(width, config.classes)
    return nn.Sequential(layers)
