"""Residual encoders: ResNet-18, 34, 50, 101 and 152, with the parameter names that published weights use.

Knows no decoder and has no classifier.
"""

from __future__ import annotations

from torch import Tensor, nn

from keepmap.errors import OptionError
from keepmap.networks.layers import ACTIVATION, Encoder, conv, pool
from keepmap.networks.norms import NORM
from keepmap.networks.recompute import in_turn, recomputed


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, *S) -> (N, width, *S / stride)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        if dilation > 1:
            raise OptionError(
                "This ResNet cannot be dilated.", found="a block of two 3x3 convolutions", expected="resnet50 or deeper"
            )
        self.conv1 = conv(inputs, width, stride=stride)
        self.bn1 = NORM[2](width)
        self.conv2 = conv(width, width)
        self.bn2 = NORM[2](width)
        self.relu = ACTIVATION["relu"](inplace=True)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Residual and shortcut, added, then ReLU."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(y)
        y = self.bn2(y)
        return self._join(x, y)

    def _join(self, x: Tensor, y: Tensor) -> Tensor:
        y += x if self.downsample is None else self.downsample(x)
        joined: Tensor = self.relu(y)
        return joined


class Bottleneck(BasicBlock):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: (N, inputs, *S) -> (N, 4 width, *S / stride).

    The stride, or in its place the dilation, is on the 3x3 convolution, as in the weights commonly published.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, dilation: int = 1) -> None:
        nn.Module.__init__(self)
        outputs = self.expansion * width
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = NORM[2](width)
        self.conv2 = conv(width, width, stride=stride, dilation=dilation)
        self.bn2 = NORM[2](width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = NORM[2](outputs)
        self.relu = ACTIVATION["relu"](inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Residual and shortcut, added, then ReLU."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.conv2(y)
        y = self.relu(self.bn2(y))
        y = self.conv3(y)
        y = self.bn3(y)
        return self._join(x, y)


RESNETS: dict[str, tuple[type[BasicBlock], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}
"""Name -> its block and how many of them each stage has."""


class ResNet(Encoder):
    """The convolutional part of a residual network: (N, C, *S) -> five feature maps.

    width:  channels of the first convolution; each stage doubles them. Published weights have 64.
    dilate: for each of the last three stages, whether it dilates its 3x3 convolutions instead of striding, which keeps
            the extent and what each weight sees. A dilated stage's first block has the dilation of the stage before.
    Source: He, Zhang, Ren and Sun 2015 (Deep Residual Learning), table 1; Yu and Koltun 2016 (dilation).
    """

    def __init__(
        self,
        channels: int,
        block: type[BasicBlock],
        depths: tuple[int, int, int, int],
        *,
        width: int = 64,
        dilate: tuple[bool, bool, bool] = (False, False, False),
    ) -> None:
        super().__init__()
        self.widths = (width, *(width * 2**stage * block.expansion for stage in range(4)))
        self.conv1 = conv(channels, width, 7, stride=2)
        self.bn1 = NORM[2](width)
        self.relu = ACTIVATION["relu"](inplace=True)
        self.maxpool = pool(3, stride=2, padding=1)
        stages, strides, dilation = [], [2], 1
        for stage, (depth, dilated) in enumerate(zip(depths, (False, *dilate), strict=True)):
            dilations = (dilation, 2 * dilation if dilated else dilation)
            stride = 1 if dilated or stage == 0 else 2
            inputs, inner = self.widths[stage], width * 2**stage
            stages.append(_stage(block, inputs, inner, depth, stride=stride, dilations=dilations))
            strides.append(strides[-1] * (2 if stage == 0 else stride))
            dilation = dilations[1]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.strides = tuple(strides)
        self.rounds_up = not any(dilate)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of stride 2, 4, 8, 16 and 32, or less where stages are dilated."""
        features = [recomputed(self, in_turn(self.conv1, self.bn1, self.relu), [x])]
        x = self.maxpool(features[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = recomputed(self, in_turn(block), [x])
            features.append(x)
        return features


def build_resnet(
    name: str, channels: int, *, width: int = 64, dilate: tuple[bool, bool, bool] = (False, False, False)
) -> ResNet:
    """The ResNet called `name` in RESNETS for images of `channels` channels. OptionError where it cannot be dilated."""
    block, depths = RESNETS[name]
    return ResNet(channels, block, depths, width=width, dilate=dilate)


def _stage(
    block: type[BasicBlock], inputs: int, width: int, depth: int, *, stride: int, dilations: tuple[int, int]
) -> nn.Sequential:
    """`depth` blocks. dilations: of the first block, and of the others."""
    outputs = width * block.expansion
    rest = (block(outputs, width, 1, dilations[1]) for _ in range(depth - 1))
    return nn.Sequential(block(inputs, width, stride, dilations[0]), *rest)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A projection where the shape changes, else None (the identity)."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride=stride), NORM[2](outputs))
