"""Layers that mix the channels of each pixel by themselves, whatever lies beside it.

Knows the layout of a value, channels second; ConvNeXt and its kin have these layers with channels last.
"""

from __future__ import annotations

from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel: (N, C, *S) -> (N, C, *S), with no statistics of the image.

    Source: Ba, Kiros and Hinton 2016 (Layer Normalization); per pixel as in Liu et al. 2022 (ConvNeXt).
    """

    def forward(self, x: Tensor) -> Tensor:
        """x, each pixel with mean 0 and deviation 1 over its channels, scaled and shifted."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ChannelLinear(nn.Linear):
    """A 1x1 convolution whose weight is a matrix (outputs, inputs): (N, inputs, *S) -> (N, outputs, *S)."""

    @property
    def out_channels(self) -> int:
        """Channels of what it returns."""
        return self.out_features

    def forward(self, x: Tensor) -> Tensor:
        """The same matrix for each pixel."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
