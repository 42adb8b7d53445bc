"""3x3 convolutions in 4 multiplications where there are 9, for layers so wide that the products outweigh the rest.

Knows single convolutions; which precision and device gain by it is decided where it is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from keepmap.networks.layers import CONV, Convolution

LEAST_PAIRS = 256 * 256
"""Pairs of channels from which it gains. A narrower layer moves more memory than it saves arithmetic.

Of processors that multiply vector by vector, that is: a matrix unit is done with the 9 multiplications before the
additions that save 5 of them are.
"""

_CHUNK_BYTES = 8 << 20
"""Transformed input that is made at a time; it and the products should stay in the cache.

With half as much a pass takes twice the time on cores that something else uses too: each of many small operations waits
for the slower thread.
"""
_TO_TAPS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
"""The matrix G of the source: 3 taps of a kernel to 4."""


class WinogradConv(nn.Module):
    """What the 3x3 convolution `conv` of stride 1 and padding 1 computes, in the dtype of its weights.

    Each 2x2 block of the output comes from 4x4 input values, turned into 16 by additions; these are multiplied with 16
    turned weights, as 16 matrix products over the channels, and turned back by additions, in float32. In bfloat16 the
    result has about twice the rounding error of a direct convolution.
    Source: Lavin and Gray 2016 (Fast Algorithms for Convolutional Neural Networks), section 4.1, F(2x2, 3x3).
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: Convolution) -> None:
        super().__init__()
        weight = conv.weight.detach()
        outputs, inputs = weight.shape[:2]
        self.out_channels = outputs
        taps = torch.tensor(_TO_TAPS, device=weight.device)
        turned = torch.einsum("ai,kcij,bj->abck", taps, weight.float(), taps)
        bias = torch.zeros(outputs) if conv.bias is None else conv.bias.detach()
        self.register_buffer("weight", turned.reshape(16, inputs, outputs).to(weight.dtype))
        self.register_buffer("bias", bias.to(weight.device, torch.float32))
        self.kernel_size, self.stride, self.padding, self.dilation = (3, 3), (1, 1), (1, 1), (1, 1)

    def forward(self, *values: Tensor) -> Tensor:
        """Of x (N, C, H, W), or several values that make it up side by side -> (N, K, H, W), channels_last."""
        return self._convolved(values, 1)

    def inner_rows(self, *values: Tensor) -> Tensor:
        """(N, C, H + 2, W) -> (N, K, H, W): zeros are put beside x, not above and below it."""
        return self._convolved(values, 0)

    def _convolved(self, values: tuple[Tensor, ...], edge: int) -> Tensor:
        x = values[0]
        height, width = x.shape[2] + 2 * edge - 2, x.shape[3]
        _, inputs, outputs = self.weight.shape
        across = -(-width // 2)
        framed = _framed(values, edge, inputs)
        out = x.new_empty(len(x), framed.shape[1] - 2, 2 * across, outputs)
        down = max(1, min(out.shape[1] // 2, _CHUNK_BYTES // (16 * across * inputs * x.element_size())))
        room = _Room(x, down * across, inputs, outputs)
        for image, result in zip(framed, out, strict=True):
            for first in range(0, len(result), 2 * down):
                self._blocks(image[first : first + 2 * down + 2], result[first : first + 2 * down], room)
        return out[:, :height, :width].permute(0, 3, 1, 2)

    def _blocks(self, x: Tensor, out: Tensor, room: _Room) -> None:
        """Fill out (2 R, 2 T, K) from x (2 R + 2, 2 T + 2, C)."""
        down, across, inputs = len(out) // 2, out.shape[1] // 2, x.shape[2]
        by_row = x.new_empty(4, down, x.shape[1], inputs)
        _turn(x, by_row, axis=0)
        turned, products, sums = room.of(down * across)
        _turn(by_row, turned.view(4, 4, down, across, inputs).transpose(0, 1), axis=2)
        torch.bmm(turned, self.weight, out=products)
        a, b, c, d = sums.copy_(products).view(4, 4, down, across, -1)
        upper, lower = a.add_(b).add_(c), b.sub_(c).sub_(d)
        blocks = out.view(down, 2, across, 2, -1)
        for row, (a, b, c, d) in enumerate((upper, lower)):
            blocks[:, row, :, 0] = a.add_(b).add_(c).add_(self.bias)
            blocks[:, row, :, 1] = b.sub_(c).sub_(d).add_(self.bias)


def _framed(values: tuple[Tensor, ...], edge: int, channels: int) -> Tensor:
    """The values side by side, (N, h, w, C), in zeros: `edge` rows above, a column before, even extents."""
    count, _, height, width = values[0].shape
    bottom, right = edge + height, 1 + width
    framed = values[0].new_empty(count, bottom + edge + height % 2, right + 1 + width % 2, channels)
    for border in (framed[:, :edge], framed[:, bottom:], framed[:, edge:bottom, :1], framed[:, edge:bottom, right:]):
        border.zero_()
    inner = torch.split(framed[:, edge:bottom, 1:right], [x.shape[1] for x in values], 3)
    for part, x in zip(inner, values, strict=True):
        part.copy_(x.permute(0, 2, 3, 1))
    return framed


class _Room:
    """Memory that every chunk uses again: a fresh buffer for each would cost more than what is computed in it."""

    def __init__(self, like: Tensor, blocks: int, inputs: int, outputs: int) -> None:
        self._inputs, self._outputs = inputs, outputs
        self._turned = like.new_empty(16 * blocks * inputs)
        self._products = like.new_empty(16 * blocks * outputs)
        self._sums = like.new_empty(16 * blocks * outputs, dtype=torch.float32)

    def of(self, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
        """Turned input (16, blocks, C), products and, in float32, their sums (16, blocks, K)."""
        kinds = (self._turned, self._inputs), (self._products, self._outputs), (self._sums, self._outputs)
        turned, products, sums = (flat[: 16 * blocks * wide].view(16, blocks, wide) for flat, wide in kinds)
        return turned, products, sums


def _turn(x: Tensor, out: Tensor, *, axis: int) -> None:
    """Fill out (4, ...) with a-c, b+c, c-b and b-d of four neighbours of x along `axis`, beginning at every second."""
    last = 2 * (x.shape[axis] // 2 - 1)
    a, b, c, d = (x[(slice(None),) * axis + (slice(i, i + last, 2),)] for i in range(4))
    torch.sub(a, c, out=out[0])
    torch.add(b, c, out=out[1])
    torch.sub(c, b, out=out[2])
    torch.sub(b, d, out=out[3])


def use_winograd(network: nn.Module) -> None:
    """Put a WinogradConv in the place of every convolution of `network` that gains by it."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, CONV[2]) and _gains(layer):
            network.set_submodule(name, WinogradConv(layer))


def _gains(conv: Convolution) -> bool:
    plain = conv.groups == 1 and conv.padding_mode == "zeros" and conv.dilation == conv.stride == conv.padding == (1, 1)
    return plain and conv.kernel_size == (3, 3) and conv.in_channels * conv.out_channels >= LEAST_PAIRS
