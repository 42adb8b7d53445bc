"""EfficientNet-Lite0 as an encoder.

Knows no decoder and no weights; the head and the classifier of the original are left out.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from keepmap.networks.layers import ACTIVATION, DepthwiseConv, Encoder, conv, pad
from keepmap.networks.norms import BatchNorm
from keepmap.networks.recompute import in_turn, recomputed

_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride, expansion, width and number of blocks of each stage. Source: Tan and Le 2019, table 1."""
_FEATURES = (0, 2, 4, 10, 15)
"""The last block of each stride."""


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow: (N, inputs, *S) -> (N, outputs, *S / stride). A shortcut where shapes agree.

    Source: Sandler et al. 2018 (MobileNetV2), section 3.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = _unit(inputs, width, 1) if expansion > 1 else None
        self.depthwise = _unit(width, width, kernel, stride=stride, depthwise=True)
        self.project = _unit(width, outputs, 1, act=False)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """The narrow result, added to x where shapes agree."""
        y = x if self.expand is None else self.expand(x)
        y = self.depthwise(y)
        narrow: Tensor = self.project(y)
        if self.shortcut:
            narrow += x
        return narrow


class EfficientNetLite0(Encoder):
    """The convolutional part of EfficientNet-Lite0: (N, C, *S) -> five feature maps. ReLU6 and no squeeze-excitation.

    Padding is TensorFlow's "same", which at even extents is the constant (0, 1) for 3x3 and (1, 2) for 5x5 at stride 2.
    Source: Tan and Le 2019 (EfficientNet); the Lite variants are Google's, 2020.
    """

    widths = (16, 24, 40, 112, 320)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = _unit(channels, 32, 3, stride=2)
        blocks, inputs = [], 32
        for kernel, stride, expansion, width, count in _STAGES:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(InvertedResidual(inputs, width, kernel=kernel, stride=step, expansion=expansion))
                inputs = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of stride 2, 4, 8, 16 and 32."""
        x = recomputed(self, in_turn(self.stem), [x])
        features = []
        for index, block in enumerate(self.blocks):
            x = recomputed(self, in_turn(block), [x])
            if index in _FEATURES:
                features.append(x)
        return features


def _unit(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, depthwise: bool = False, act: bool = True
) -> nn.Sequential:
    """Convolution with TensorFlow's "same" padding, batch norm with its epsilon of 1e-3, and ReLU6."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    before = (kernel - stride) // 2
    if stride > 1:
        layers["pad"] = pad(before, kernel - stride - before)
    padding = 0 if stride > 1 else before
    if depthwise:
        layers["conv"] = DepthwiseConv(inputs, kernel, stride=stride, padding=padding)
    else:
        layers["conv"] = conv(inputs, outputs, kernel, stride=stride, padding=padding)
    layers["norm"] = BatchNorm(outputs, eps=1e-3)
    if act:
        layers["act"] = ACTIVATION["relu6"](inplace=True)
    return nn.Sequential(layers)
