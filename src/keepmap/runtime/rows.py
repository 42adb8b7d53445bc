"""Rows of a value that come in bands: queues of them, rows of one number, and layers that pad only beside them.

Knows single layers and tensors (1, C, n, W), not the graph that they are in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.networks.reach import AVERAGES, CONVS, PADS, TRANSPOSEDS, along

_LARGE = 4 << 20
"""Bytes of rows from which copying them takes longer than another call of a layer."""


class Queue:
    """Rows that wait, in the parts in which they came. count: how many."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self._none: Tensor | None = None
        self.count = 0

    def put(self, *parts: Tensor | None) -> None:
        """Append the rows of each part; None for none."""
        for part in parts:
            if part is not None and part.shape[2]:
                self.parts.append(part)
                self._none = part[:, :, :0].clone() if self._none is None else self._none
                self.count += part.shape[2]

    def fill(self, rows: int, number: float) -> None:
        """Append `rows` rows of one number, as wide as those that have come before; none where that is not positive."""
        self.put(None if self._none is None else edge(self._none, rows, number))

    def first(self, count: int) -> list[Tensor]:
        """The first `count` rows, in the parts in which they came."""
        return between(self.parts, 0, count)

    def drop(self, count: int) -> None:
        """Forget the first rows. A small rest of a part is copied, for a view would hold all of its memory."""
        self.count -= count
        while count and count >= self.parts[0].shape[2]:
            count -= self.parts.pop(0).shape[2]
        if count:
            rest = self.parts[0][:, :, count:]
            self.parts[0] = rest.clone() if rest.shape[2] < count else rest

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return sum(part.nbytes for part in self.parts)


def pieces(values: Sequence[Sequence[Tensor]], count: int, span: int = 1, step: int = 1) -> Iterator[list[Tensor]]:
    """The rows of each of the values that `count` windows see, in pieces: windows that lie within a large part of each
    value see its rows where they are, only what the others see is copied.

    values: in parts, each as wide as the others' and high enough. span: rows of a window; step: to that of the next.
    """
    if not count:
        return
    rows = (count - 1) * step + span
    ends = {0, rows, *(end for parts in values for end in accumulate(part.shape[2] for part in parts) if end < rows)}
    row_bytes = max(part[:, :, :1].nbytes for parts in values for part in parts[:1])
    done = 0
    for top, bottom in pairwise(sorted(ends)):
        first, last = -(-top // step), (bottom - span) // step + 1
        if (last - first) * step * row_bytes < _LARGE:
            continue
        if first > done:
            yield [stacked(*between(parts, done * step, (first - 1) * step + span)) for parts in values]
        yield [stacked(*between(parts, first * step, (last - 1) * step + span)) for parts in values]
        done = last
    if done < count:
        yield [stacked(*between(parts, done * step, rows)) for parts in values]


def between(parts: Sequence[Tensor], top: int, bottom: int) -> list[Tensor]:
    """Rows `top` to `bottom` of what lies in parts below each other, in parts: views."""
    there = []
    for part in parts:
        height = part.shape[2]
        if top < height and bottom > 0:
            there.append(part[:, :, max(0, top) : bottom])
        top, bottom = top - height, bottom - height
    return there


def edge(like: Tensor, rows: int, fill: float) -> Tensor | None:
    """`rows` rows of one number, as wide as `like`; None for none."""
    count, channels, _, width = like.shape
    return like.new_full((count, rows, width, channels), fill).permute(0, 3, 1, 2) if rows > 0 else None


def stacked(*parts: Tensor | None) -> Tensor:
    """The parts below each other, None for none; with the channels last, which takes a sixth of the time."""
    there = [part for part in parts if part is not None]
    if len(there) == 1:
        return there[0]
    return torch.cat([part.permute(0, 2, 3, 1) for part in there], 1).permute(0, 3, 1, 2)


def joined(*values: Tensor) -> Tensor:
    """The values beside each other, over their channels, which are last in memory."""
    return torch.cat([value.permute(0, 2, 3, 1) for value in values], 3).permute(0, 3, 1, 2)


def numbers(layer: Any) -> tuple[int, ...]:
    """Kernel, stride, padding and dilation along the rows."""
    return tuple(along(getattr(layer, key, 1), 0) for key in ("kernel_size", "stride", "padding", "dilation"))


def without_rows(layer: Any) -> Callable[..., Tensor]:
    """What `layer` computes without padding above and below; a transposed convolution of rows that overlap without its
    bias, too.
    """
    if hasattr(layer, "inner_rows"):
        inner: Callable[..., Tensor] = layer.inner_rows
        return inner
    if isinstance(layer, PADS):
        return lambda x: F.pad(x, layer.padding[:2])
    sides = (0, along(layer.padding, 1))
    if isinstance(layer, CONVS):
        return lambda x: F.conv2d(x, layer.weight, layer.bias, layer.stride, sides, layer.dilation, layer.groups)
    if isinstance(layer, TRANSPOSEDS):
        more = (0, along(layer.output_padding, 1))
        bias = None if overlaps(layer) else layer.bias
        return lambda x: F.conv_transpose2d(x, layer.weight, bias, layer.stride, sides, more, layer.groups)
    if isinstance(layer, AVERAGES):
        return lambda x: F.avg_pool2d(x, layer.kernel_size, layer.stride, sides)
    return lambda x: F.max_pool2d(x, layer.kernel_size, layer.stride, sides, layer.dilation, layer.ceil_mode)


def overlaps(layer: Any) -> bool:
    """Whether the rows that a transposed convolution makes of two rows are not just below each other."""
    kernel, stride, *_ = numbers(layer)
    return kernel != stride
