"""The layers that every network is built from, and the tables that turn a spatial rank into a torch class.

Knows no network. This is the only file where a layer of fixed spatial rank is named, so rank stays data elsewhere.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from keepmap.errors import OptionError
from keepmap.networks.depthwise import depthwise_conv2d, is_slow

Norm = Literal["batch", "none"]
Up = Literal["bilinear", "transposed"]

CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
PAD: dict[int, type[nn.ZeroPad2d | nn.ZeroPad3d]] = {2: nn.ZeroPad2d, 3: nn.ZeroPad3d}
ACTIVATION: dict[str, type[nn.ReLU | nn.ReLU6]] = {"relu": nn.ReLU, "relu6": nn.ReLU6}
LINEAR: dict[int, str] = {2: "bilinear", 3: "trilinear"}


class Encoder(nn.Module):
    """A backbone: (N, C, *S) -> five feature maps, from stride 2 down to stride 32.

    widths:  channels of each feature map, shallow first.
    strides: pixels of the input per pixel of each feature map, shallow first.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)


class Upsample(nn.Upsample):
    """Linear interpolation by a fixed integer factor with `align_corners=False`: (N, C, *S) -> (N, C, *S x factor)."""

    def __init__(self, factor: int = 2, *, ndim: int = 2) -> None:
        super().__init__(scale_factor=float(factor), mode=LINEAR[ndim], align_corners=False)
        self.factor = factor


class DepthwiseConv(nn.Conv2d):
    """A convolution of rank 2 with one filter per channel, without bias, whose gradients are fast in bfloat16 too."""

    def __init__(self, channels: int, kernel: int, *, stride: int, padding: int) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H / stride, W / stride)."""
        if self.bias is not None or isinstance(self.padding, str) or not is_slow(x, self.kernel_size, self.stride):
            return super().forward(x)
        return depthwise_conv2d(x, self.weight, self.stride, self.padding)


def conv(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    padding: int | None = None,
    bias: bool = False,
    ndim: int = 2,
) -> nn.Conv2d | nn.Conv3d:
    """A convolution padded with kernel // 2 zeros on each side unless told; weights as He et al. 2015 (fan-in)."""
    zeros = kernel // 2 if padding is None else padding
    layer = CONV[ndim](inputs, outputs, kernel, stride, zeros, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def pool(kernel: int = 2, *, stride: int = 2, padding: int = 0, ndim: int = 2) -> nn.Module:
    """Max-pooling."""
    return POOL[ndim](kernel, stride, padding)


def pad(before: int, after: int, *, ndim: int = 2) -> nn.Module:
    """Zeros before and after every axis alike, in pixels."""
    sides: Any = (before, after) * ndim
    return PAD[ndim](sides)


def score(inputs: int, classes: int, *, ndim: int = 2) -> nn.Module:
    """The 1x1 convolution from features to one logit per class."""
    return CONV[ndim](inputs, classes, 1)


def conv_norm_act(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    norm: Norm = "batch",
    act: str | None = "relu",
    ndim: int = 2,
) -> nn.Sequential:
    """Convolution, normalisation and activation, named `conv`, `norm` and `act`; without norm the first has a bias."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = conv(inputs, outputs, kernel, stride=stride, bias=norm == "none", ndim=ndim)
    if norm == "batch":
        layers["norm"] = NORM[ndim](outputs)
    if act is not None:
        layers["act"] = ACTIVATION[act](inplace=True)
    return nn.Sequential(layers)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by normalisation and ReLU: (N, inputs, *S) -> (N, outputs, *S)."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm = "batch", ndim: int = 2) -> None:
        super().__init__(
            conv_norm_act(inputs, outputs, norm=norm, ndim=ndim), conv_norm_act(outputs, outputs, norm=norm, ndim=ndim)
        )


def transposed(
    inputs: int,
    outputs: int,
    *,
    factor: int = 2,
    kernel: int = 2,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    ndim: int = 2,
) -> nn.ConvTranspose2d | nn.ConvTranspose3d:
    """A transposed convolution that enlarges by exactly `factor`; OptionError where the three numbers do not give it.

    Its output has (n - 1) factor - 2 padding + kernel + output_padding rows, so the last three must add up to factor.
    """
    sound = kernel >= 1 and padding >= 0 and 0 <= output_padding < factor
    if not sound or kernel - 2 * padding + output_padding != factor:
        raise OptionError(
            f"A transposed convolution with these numbers does not enlarge exactly {factor} times.",
            found=f"kernel {kernel}, padding {padding}, output padding {output_padding}",
            expected=f"kernel - 2 padding + output padding = {factor}, with 0 <= output padding < {factor}",
            do="use 2, 0, 0 or 4, 1, 0 or 3, 1, 1 for a factor of 2",
        )
    layer = TRANSPOSED[ndim](inputs, outputs, kernel, factor, padding, output_padding, groups=groups)
    taps = (kernel / factor) ** ndim * inputs / groups
    nn.init.normal_(layer.weight, std=1 / math.sqrt(taps))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def widened(inputs: int, outputs: int, *, ndim: int = 2) -> nn.Sequential:
    """A 1x1 convolution, then linear interpolation to twice the extent.

    The two commute, border and bias included, so narrowing first costs a quarter and changes no value.
    """
    return nn.Sequential(conv(inputs, outputs, 1, bias=True, ndim=ndim), Upsample(2, ndim=ndim))


def bilinear_weight(kernel: int, factor: int, *, ndim: int = 2) -> Tensor:
    """The filter (kernel, ...) float32 with which a transposed convolution of stride `factor` interpolates linearly.

    Source: Long, Shelhamer and Darrell 2015, section 3.3 (upsampling is initialised to bilinear interpolation).
    """
    distance = torch.arange(kernel, dtype=torch.float32) - (kernel - 1) / 2
    line = (1 - distance.abs() / factor).clamp(min=0)
    weight = line
    for _ in range(ndim - 1):
        weight = weight[..., None] * line
    return weight
