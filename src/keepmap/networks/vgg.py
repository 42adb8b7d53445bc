"""VGG encoders: VGG-11, 13, 16 and 19, with the parameter names that published weights use.

Knows no decoder and has no classifier; the fully connected layers live in the network that is built on them.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from keepmap.networks.layers import ACTIVATION, Encoder, conv, pool
from keepmap.networks.norms import NORM, Norm
from keepmap.networks.recompute import in_turn, recomputed

VGGS: dict[str, tuple[int, int, int, int, int]] = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""Convolutions before each pooling: configurations A, B, D and E of the paper."""

WIDTHS = (64, 128, 256, 512, 512)


class VGG(Encoder):
    """The convolutional part of a VGG network: (N, C, *S) -> five feature maps, each the result of a pooling.

    depths: convolutions of each block.  widths: channels of each block.
    norm:   none, as in the paper, or batch normalisation after each convolution; a convolution has a bias either way.
    ceil:   pooling keeps a last row that lacks its partner, as in Caffe; where extents are even it makes no difference.
    Source: Simonyan and Zisserman 2014, table 1.
    """

    def __init__(
        self,
        channels: int,
        depths: tuple[int, ...],
        *,
        norm: Norm = "none",
        widths: tuple[int, ...] = WIDTHS,
        ceil: bool = False,
    ) -> None:
        super().__init__()
        self.widths = widths
        layers: list[nn.Module] = []
        ends, inputs = [], channels
        for depth, width in zip(depths, widths, strict=True):
            for _ in range(depth):
                layers.append(conv(inputs, width, bias=True))
                if norm == "batch":
                    layers.append(NORM[2](width))
                layers.append(ACTIVATION["relu"](inplace=True))
                inputs = width
            ends.append(len(layers))
            layers.append(pool(ceil=ceil))
        self.features = nn.Sequential(*layers)
        self.ends = tuple(ends)
        """Positions of the poolings in `features`."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of stride 2, 4, 8, 16 and 32."""
        features = []
        for first, end in pairwise((0, *(end + 1 for end in self.ends))):
            x = recomputed(self, in_turn(*list(self.features)[first:end]), [x])
            features.append(x)
        return features


def build_vgg(name: str, channels: int) -> VGG:
    """VGG-11, 13, 16 or 19 for images of `channels` channels, by name: vgg16, or vgg16_bn with batch normalisation."""
    norm: Norm = "batch" if name.endswith("_bn") else "none"
    return VGG(channels, VGGS[name.removesuffix("_bn")], norm=norm)
