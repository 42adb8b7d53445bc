"""Blocks of several layers that networks may be built with: residual blocks, attention gates, a global context.

Knows no network; every layer in them is one of the kinds in `layers.py`.
"""

from __future__ import annotations

from torch import Tensor, nn

from keepmap.networks.layers import (
    AVERAGE,
    GLOBAL_AVERAGE,
    Act,
    Product,
    Upsample,
    activation,
    conv,
    conv_norm_act,
)
from keepmap.networks.norms import Norm


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, inputs, *S) -> (N, outputs, *S / stride).

    The shortcut averages where the block has a stride, and projects where the channels change.
    Source: He et al. 2015 (Deep Residual Learning), with the shortcut of He et al. 2019 (Bag of Tricks, ResNet-D).
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, norm: Norm = "batch", act: Act = "relu", ndim: int = 2
    ) -> None:
        super().__init__()
        self.first = conv_norm_act(inputs, outputs, stride=stride, norm=norm, act=act, ndim=ndim)
        self.second = conv_norm_act(outputs, outputs, norm=norm, act=None, ndim=ndim)
        shortcut: list[nn.Module] = [] if stride == 1 else [AVERAGE[ndim](stride, stride)]
        if inputs != outputs:
            shortcut.append(conv_norm_act(inputs, outputs, 1, norm=norm, act=None, ndim=ndim))
        self.shortcut = nn.Sequential(*shortcut) if shortcut else None
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Residual and shortcut, added, then the activation."""
        y = self.first(x)
        y = self.second(y)
        y += x if self.shortcut is None else self.shortcut(x)
        joined: Tensor = self.act(y)
        return joined


class AttentionGate(nn.Module):
    """Weighs the pixels of a skip by what the next deeper level makes of them: (N, skip, *S) -> (N, skip, *S).

    gating: channels of the deeper level, (N, gating, *S / 2), whose grid the weights are computed on.
    Source: Oktay et al. 2018 (Attention U-Net), section 2 and figure 2.
    """

    def __init__(self, skip: int, gating: int, *, ndim: int = 2) -> None:
        super().__init__()
        inner = max(1, skip // 2)
        self.theta = conv(skip, inner, 2, stride=2, padding=0, ndim=ndim)
        self.phi = conv(gating, inner, 1, bias=True, ndim=ndim)
        self.act = activation("relu")
        self.psi = conv(inner, 1, 1, bias=True, ndim=ndim)
        self.sigmoid = nn.Sigmoid()
        self.up = Upsample(2, ndim=ndim)
        self.product = Product()

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The skip, each pixel times a weight between 0 and 1."""
        weights = self.sigmoid(self.psi(self.act(self.theta(skip) + self.phi(gating))))
        weighted: Tensor = self.product(skip, self.up(weights))
        return weighted


class Context(nn.Module):
    """Tells every pixel what the whole image holds: (N, C, *S) -> (N, C, *S), plus a 1x1 convolution of its mean.

    What it returns at one pixel depends on all others, so a network with it is not local.
    Source: Liu, Rabinovich and Berg 2015 (ParseNet), section 3.1, with addition in place of concatenation.
    """

    def __init__(self, channels: int, *, ndim: int = 2) -> None:
        super().__init__()
        self.pool = GLOBAL_AVERAGE[ndim](1)
        self.project = conv(channels, channels, 1, bias=True, ndim=ndim)

    def forward(self, x: Tensor) -> Tensor:
        """x plus one vector for each image."""
        mean = self.pool(x)
        spread: Tensor = x + self.project(mean)
        return spread
