"""Residual encoders: ResNet-18, 34 and 50, with the parameter names that published weights use.

Knows no decoder and has no classifier.
"""

from __future__ import annotations

from torch import Tensor, nn

from keepmap.networks.layers import ACTIVATION, NORM, Encoder, conv, pool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, *S) -> (N, width, *S / stride)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
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
        shortcut = x if self.downsample is None else self.downsample(x)
        joined: Tensor = self.relu(y + shortcut)
        return joined


class Bottleneck(BasicBlock):
    """1x1, 3x3 and 1x1 convolutions and a shortcut: (N, inputs, *S) -> (N, 4 width, *S / stride).

    The stride is on the 3x3 convolution, as in the weights commonly published.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        nn.Module.__init__(self)
        outputs = self.expansion * width
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = NORM[2](width)
        self.conv2 = conv(width, width, stride=stride)
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


class ResNet(Encoder):
    """The convolutional part of a residual network: (N, C, *S) -> five feature maps.

    Source: He, Zhang, Ren and Sun 2015 (Deep Residual Learning), table 1.
    """

    def __init__(self, channels: int, block: type[BasicBlock], depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        stages = (64, 128, 256, 512)
        self.widths = (64, *(width * block.expansion for width in stages))
        self.conv1 = conv(channels, 64, 7, stride=2)
        self.bn1 = NORM[2](64)
        self.relu = ACTIVATION["relu"](inplace=True)
        self.maxpool = pool(3, stride=2, padding=1)
        self.layer1 = _stage(block, self.widths[0], stages[0], depths[0], stride=1)
        self.layer2 = _stage(block, self.widths[1], stages[1], depths[1], stride=2)
        self.layer3 = _stage(block, self.widths[2], stages[2], depths[2], stride=2)
        self.layer4 = _stage(block, self.widths[3], stages[3], depths[3], stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of stride 2, 4, 8, 16 and 32."""
        features = [self.relu(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


def _stage(block: type[BasicBlock], inputs: int, width: int, depth: int, *, stride: int) -> nn.Sequential:
    outputs = width * block.expansion
    rest = (block(outputs, width, 1) for _ in range(depth - 1))
    return nn.Sequential(block(inputs, width, stride), *rest)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """A projection where the shape changes, else None (the identity)."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride=stride), NORM[2](outputs))
