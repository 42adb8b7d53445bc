"""The layers that every network is built from, and the tables that turn a spatial rank into a torch class.

Knows no network. This is the only file where a layer of fixed spatial rank is named, so rank stays data elsewhere.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keepmap.errors import OptionError
from keepmap.networks.depthwise import depthwise_conv2d, is_slow
from keepmap.networks.norms import Norm, normalisation

Act = Literal["relu", "leaky_relu", "gelu", "silu"]
Up = Literal["bilinear", "nearest", "transposed"]
Match = Literal["multiple", "pad", "crop", "resize"]

Convolution = nn.Conv2d | nn.Conv3d

CONV: dict[int, type[Convolution]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
PAD: dict[int, type[nn.ZeroPad2d | nn.ZeroPad3d]] = {2: nn.ZeroPad2d, 3: nn.ZeroPad3d}
AVERAGE: dict[int, type[nn.AvgPool2d | nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
GLOBAL_AVERAGE: dict[int, type[nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d]] = {
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}
ACTIVATION: dict[str, type[nn.ReLU | nn.ReLU6 | nn.LeakyReLU]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
}
"""Activations that overwrite their input: their gradient needs nothing but what they return."""
SMOOTH: dict[str, type[nn.GELU | nn.SiLU]] = {"gelu": nn.GELU, "silu": nn.SiLU}
LINEAR: dict[int, str] = {2: "bilinear", 3: "trilinear"}


class Encoder(nn.Module):
    """A backbone: (N, C, *S) -> feature maps, those of keepmap five from stride 2 down to stride 32.

    widths:  channels of each feature map, shallow first.
    strides: pixels of the input per pixel of each feature map, shallow first. A decoder asks for powers of 2, each
             twice the one before, that need not begin at 2.
    rounds_up: whether every map has half the extent of the one before it rounded up, whatever that extent is.
    checkpointing: whether training recomputes its parts (see `recompute`).
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)
    rounds_up = False
    checkpointing = False


class Upsample(nn.Upsample):
    """Linear interpolation by a fixed integer factor with `align_corners=False`: (N, C, *S) -> (N, C, *S x factor).

    nearest: repeats each pixel instead of interpolating linearly.
    aligned: with `align_corners=True`, for imported weights: what a pixel reads depends on the extent of the whole.
    """

    def __init__(self, factor: int = 2, *, nearest: bool = False, aligned: bool = False, ndim: int = 2) -> None:
        mode = "nearest" if nearest else LINEAR[ndim]
        super().__init__(scale_factor=float(factor), mode=mode, align_corners=None if nearest else aligned)
        self.factor = factor
        self.nearest = nearest
        self.aligned = aligned


class Join(nn.Module):
    """A skip (N, A, *S) beside an upsampled map (N, B, *T) whose extent may be another: (N, A + B, ...).

    match: pad:    zeros around the map, half of those missing before it, rounded down, as the most copied U-Net does;
           crop:   the middle of the skip;
           resize: the map interpolated to the skip (nearest: by repeating pixels).
    """

    def __init__(self, match: Literal["pad", "crop", "resize"], *, nearest: bool = False) -> None:
        super().__init__()
        self.match = match
        self.nearest = nearest

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """The extent of the skip, or with `crop` that of the map."""
        if self.match == "resize":
            mode, aligned = ("nearest", None) if self.nearest else (LINEAR[x.ndim - 2], False)
            return beside(skip, F.interpolate(x, skip.shape[2:], mode=mode, align_corners=aligned))
        missing = [wide - narrow for wide, narrow in zip(skip.shape[2:], x.shape[2:], strict=True)]
        if self.match == "pad":
            x = F.pad(x, [side for gap in reversed(missing) for side in (gap // 2, gap - gap // 2)])
        else:
            for axis, gap in enumerate(missing, start=2):
                skip = skip.narrow(axis, gap // 2, x.shape[axis])
        return beside(skip, x)


class Product(nn.Module):
    """Every channel of x (N, C, *S) times one map of weights (N, 1, *S): (N, C, *S)."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x * weights."""
        return x * weights


class Crop(nn.Module):
    """Cuts `before` rows off the near end of each axis, and off the far end down to the extent of another value."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before = before

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """The rows of x (N, C, *S) from `before` on, as many as `like` (N, ?, *T) has; its values are not read."""
        for axis, extent in enumerate(like.shape[2:], start=2):
            x = x.narrow(axis, self.before, extent)
        return x


class Scale(nn.Module):
    """Multiplies by a constant that is not learnt: (N, C, *S) -> (N, C, *S)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """factor * x."""
        return x * self.factor


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
    dilation: int = 1,
    bias: bool = False,
    ndim: int = 2,
) -> Convolution:
    """A convolution padded with dilation * (kernel // 2) zeros on each side unless told.

    Weights as He et al. 2015 (fan-in).
    """
    zeros = dilation * (kernel // 2) if padding is None else padding
    layer = CONV[ndim](inputs, outputs, kernel, stride, zeros, dilation, bias=bias)
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def pool(kernel: int = 2, *, stride: int = 2, padding: int = 0, ceil: bool = False, ndim: int = 2) -> nn.Module:
    """Max-pooling. ceil: a last window that the value fills only in part counts too, as in Caffe."""
    return POOL[ndim](kernel, stride, padding, ceil_mode=ceil)


def pad(before: int, after: int, *, ndim: int = 2) -> nn.Module:
    """Zeros before and after every axis alike, in pixels."""
    sides: Any = (before, after) * ndim
    return PAD[ndim](sides)


def score(inputs: int, classes: int, kernel: int = 1, *, ndim: int = 2) -> nn.Module:
    """The convolution from features to one logit per class, 1x1 unless told."""
    return CONV[ndim](inputs, classes, kernel, padding=kernel // 2)


def zero_score(inputs: int, classes: int) -> nn.Module:
    """The 1x1 `score`, all zero: it says nothing until it has learnt."""
    layer = score(inputs, classes)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def activation(act: str) -> nn.Module:
    """The activation called `act`, a name of ACTIVATION or SMOOTH."""
    return ACTIVATION[act](inplace=True) if act in ACTIVATION else SMOOTH[act]()


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
    if norm != "none":
        layers["norm"] = normalisation(norm, outputs, ndim=ndim)
    if act is not None:
        layers["act"] = activation(act)
    return nn.Sequential(layers)


class ConvStack(nn.Sequential):
    """`count` 3x3 convolutions, each with normalisation and activation: (N, inputs, *S) -> (N, outputs, *S / stride).

    middle: channels of all but the last, `outputs` unless told. stride: of the first.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        middle: int | None = None,
        count: int = 2,
        stride: int = 1,
        norm: Norm = "batch",
        act: Act = "relu",
        ndim: int = 2,
    ) -> None:
        widths = [inputs, *[middle or outputs] * (count - 1), outputs]
        strides = [stride, *[1] * (count - 1)]
        super().__init__(
            *(
                conv_norm_act(before, after, stride=step, norm=norm, act=act, ndim=ndim)
                for before, after, step in zip(widths[:-1], widths[1:], strides, strict=True)
            )
        )


class DoubleConv(ConvStack):
    """Two 3x3 convolutions, each followed by normalisation and ReLU: (N, inputs, *S) -> (N, outputs, *S)."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm = "batch", ndim: int = 2) -> None:
        super().__init__(inputs, outputs, norm=norm, ndim=ndim)


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


def widened(inputs: int, outputs: int, *, nearest: bool = False, ndim: int = 2) -> nn.Sequential:
    """A 1x1 convolution, then linear interpolation (nearest: repeated pixels) to twice the extent.

    The two commute, border and bias included, so narrowing first costs a quarter and changes no value.
    """
    return nn.Sequential(conv(inputs, outputs, 1, bias=True, ndim=ndim), Upsample(2, nearest=nearest, ndim=ndim))


def upsampling(up: Up, inputs: int, outputs: int, *, ndim: int = 2) -> nn.Module:
    """Twice the extent, and from `inputs` to `outputs` channels."""
    return (
        transposed(inputs, outputs, ndim=ndim)
        if up == "transposed"
        else widened(inputs, outputs, nearest=up == "nearest", ndim=ndim)
    )


def beside(*values: Tensor) -> Tensor:
    """The channels of all `values` (N, *, *S), in turn: (N, sum, *S). On a CPU gradients arrive in one piece each.

    torch's would be views with gaps, on which its gradient of interpolation takes ten times as long.
    """
    for value in () if torch.compiler.is_compiling() else values:
        if isinstance(value, Tensor) and value.requires_grad and value.device.type == "cpu":
            value.register_hook(_in_one_piece)  # type: ignore[no-untyped-call]
    return torch.cat(values, 1)


def _in_one_piece(gradient: Tensor) -> Tensor:
    last = torch.channels_last if gradient.ndim == 4 else torch.channels_last_3d
    dense = gradient.is_contiguous() or gradient.is_contiguous(memory_format=last)
    return gradient if dense else gradient.clone()


def begin_bilinear(layer: nn.ConvTranspose2d | nn.ConvTranspose3d) -> nn.ConvTranspose2d | nn.ConvTranspose3d:
    """The same layer, beginning as a random 1x1 convolution followed by linear interpolation; any numbers of channels.

    No pattern of the grid is left in what it makes of a constant image. Raises OptionError where its kernel is too
    small to interpolate: with 2 taps for a factor of 2 each output pixel reads a single input pixel.
    """
    factor, kernel, ndim = layer.stride[0], layer.kernel_size[0], len(layer.stride)
    if kernel <= factor:
        raise OptionError(
            f"A transposed convolution of kernel {kernel} cannot interpolate by {factor}.",
            found=f"kernel {kernel}",
            expected=f"kernel {factor + 1} or more",
            do="for a factor of 2 use kernel 4 and padding 1, or kernel 3, padding 1 and output padding 1",
        )
    spatial = bilinear_weight(kernel, factor, ndim=ndim)
    with torch.no_grad():
        mixed = torch.randn(layer.weight.shape[:2]) / math.sqrt(layer.in_channels)
        layer.weight.copy_(mixed[(..., *[None] * ndim)] * spatial)
    return layer


def dense_bilinear(classes: int, factor: int, *, ndim: int = 2) -> nn.ConvTranspose2d | nn.ConvTranspose3d:
    """The upsampling of the reference FCN: kernel 2 factor, no padding, no bias, a weight for each pair of classes.

    Linear interpolation of each class on its own, zeros between classes. It returns (n + 1) factor rows for n, of which
    the first and last `factor` lack a neighbour; cutting them off is up to the network.
    Source: Shelhamer, Long and Darrell 2017, reference code (surgery.py, `interp`).
    """
    layer = TRANSPOSED[ndim](classes, classes, 2 * factor, factor, bias=False)
    each = torch.arange(classes)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[each, each] = bilinear_weight(2 * factor, factor, ndim=ndim)
    return layer


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
