"""An image through a network in bands of full-width rows, top to bottom: exact, and nothing is computed twice.

Knows the steps of a core and the kinds of its layers; neither files nor when bands are the best way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keepmap.networks.layers import Crop, Product, Scale, Upsample
from keepmap.networks.network import Network
from keepmap.networks.reach import ACTIVATIONS, AVERAGES, CONVS, NORMS, PADS, POOLS, TRANSPOSEDS, along
from keepmap.networks.trace import Step, steps_of
from keepmap.runtime import stopping
from keepmap.runtime.winograd import WinogradConv

_POINTWISE = (*NORMS, *ACTIVATIONS, nn.Identity, nn.Dropout, Scale)
_JOINS = {"cat": lambda rows: torch.cat(rows, 1), "add": lambda rows: rows[0] + rows[1]}
Flow = tuple[Tensor | None, bool]
"""What a value of the core offers now: its next rows (1, C, n, W), if there are any, and whether they are the last."""


class BandStream:
    """One image on its way through `network`: bands of raw values in, rows of logits out, in order.

    Each layer keeps the rows that its next output needs, each join those that wait for the slower branch; no more.
    network: local, in eval mode. size: (H, W) of the image. band: rows at a time, a multiple of the stride.
    Raises TypeError naming what cannot be streamed: a layer, a mirrored border, a network that is not local.
    """

    def __init__(self, network: Network, size: tuple[int, int], band: int) -> None:
        if not network.local or not network.zero_padded:
            what = "mirrors the border" if network.local else "sees the whole image at once"
            raise TypeError(f"{type(network).__name__} {what}")
        self._network, self._size = network, size
        self._steps = steps_of(network)
        self._last = {source: at for at, step in enumerate(self._steps) for source in step.inputs}
        self._links: list[_Link] = []
        for step in self._steps:
            self._links.append(_link(step, self._links[step.inputs[0]].stride if step.inputs else 1, band))
        self._read = self._written = 0

    def push(self, x: Tensor) -> Iterator[Tensor]:
        """Logits (1, K, n, W) of the rows that are final with the raw values x (1, C, b, W), the next of the image.

        b is `band`, less only at the end; with the last band all the rest comes out, a band at a time.
        """
        ended = self._read + x.shape[2] == self._size[0]
        flow: Flow = self._padded(x, ended), ended
        while True:
            flows: list[Flow] = []
            for at, (step, link) in enumerate(zip(self._steps, self._links, strict=True)):
                stopping.check()
                flows.append(link([flows[source] for source in step.inputs] or [flow]))
                for source in step.inputs:
                    flows[source] = flows[source] if self._last[source] > at else (None, True)
            logits, over = flows[-1]
            if logits is not None:
                yield from self._cropped(logits)
            if not ended or over:
                return
            flow = None, True

    def held(self) -> int:
        """Bytes of the rows that are kept until the next band."""
        return sum(rows.nbytes for link in self._links for rows in link.kept if rows is not None)

    def _padded(self, x: Tensor, ended: bool) -> Tensor:
        """Normalised rows with the zeros that `Network.pad` puts beside them and, at the ends, above and below."""
        before, (height, width) = self._network.pad_before, self._network.padded(self._size)
        ends = 0 if self._read else before, (height - self._size[0] - before) * ended
        sides = (before, width - self._size[1] - before, *ends)
        self._read += x.shape[2]
        return F.pad(self._network.normalise(x), sides).contiguous(memory_format=torch.channels_last)

    def _cropped(self, logits: Tensor) -> Iterator[Tensor]:
        """The rows and columns of `logits` that lie on the image."""
        before, (height, width) = self._network.crop_before, self._size
        first, last = max(0, before - self._written), min(logits.shape[2], before + height - self._written)
        self._written += logits.shape[2]
        if first < last:
            yield logits[:, :, first:last, before : before + width]


class _Link:
    """A layer without memory, and the frame of those with: the stride of its value and the rows it keeps for later."""

    def __init__(self, stride: int, layer: Any) -> None:
        self.stride = stride
        self.layer: Callable[[Tensor], Tensor] = layer
        self.kept: list[Tensor | None] = [None]
        self.seen = self.done = 0
        self._over = False

    def __call__(self, flows: list[Flow]) -> Flow:
        rows, ended = flows[0]
        waits = self._over or (rows is None and not ended)
        rows, self._over = None if waits else self.take(rows, ended), ended
        return rows, ended

    def take(self, x: Tensor | None, ended: bool) -> Tensor | None:
        """The rows that are final once x has come. ended: x is the last, if it is anything."""
        return None if x is None else self.layer(x)


class _Window(_Link):
    """Convolution, pooling, padding: `span` rows make one, every `step` rows; rows of `fill` lie above and below."""

    def __init__(self, stride: int, layer: Any) -> None:
        kernel, self.step, padding, dilation = _numbers(layer)
        super().__init__(stride * self.step, _without_rows(layer))
        self.above, self.below = tuple(layer.padding)[2:] if isinstance(layer, PADS) else (padding, padding)
        self.span = dilation * (kernel - 1) + 1
        self.fill = -inf if isinstance(layer, POOLS) else 0.0
        self.partial = bool(getattr(layer, "ceil_mode", False))

    def take(self, x: Tensor | None, ended: bool) -> Tensor | None:
        above = None if x is None or self.seen else _edge(x, self.above, self.fill)
        rows = _stacked(above, self.kept[0], x)
        self.seen += 0 if x is None else x.shape[2]
        if ended:
            steps, rest = divmod(self.seen + self.above + self.below - self.span, self.step)
            more = self.partial and rest and (steps + 1) * self.step < self.seen + self.above
            count = steps + 1 + bool(more) - self.done
            rows = _stacked(rows, _edge(rows, (count - 1) * self.step + self.span - rows.shape[2], self.fill))
        else:
            count = max(0, min((rows.shape[2] - self.span) // self.step + 1, rows.shape[2] // self.step))
        self.done += count
        self.kept = [None if ended else rows[:, :, count * self.step :].clone()]
        return self.layer(rows[:, :, : (count - 1) * self.step + self.span]) if count else None


class _Transposed(_Link):
    """A row adds to `kernel` rows, those of the next row lie `step` further: what is not final is carried on."""

    def __init__(self, stride: int, layer: Any) -> None:
        self.kernel, self.step, self.padding, _ = _numbers(layer)
        super().__init__(stride // self.step, _without_rows(layer))
        self.beyond = self.kernel - self.padding - self.step + along(layer.output_padding, 0)
        self.bias = layer.bias

    def take(self, x: Tensor | None, ended: bool) -> Tensor | None:
        rows: Any = self.kept[0]
        if x is not None:
            self.seen += x.shape[2]
            made = self.layer(x)
            made = _stacked(made, _edge(made, self.step - self.kernel, 0.0))
            if rows is not None:
                made[:, :, : rows.shape[2]] += rows
            rows = made
        count = self.seen * self.step + self.beyond * ended - self.done
        rows = _stacked(rows, _edge(rows, count - rows.shape[2], 0.0))
        self.kept = [None if ended else rows[:, :, count:].clone()]
        final: Tensor = rows[:, :, max(0, self.padding - self.done) : count]
        self.done += count
        return None if not final.shape[2] else final if self.bias is None else final + self.bias.view(1, -1, 1, 1)


class _Interpolated(_Link):
    """Linear interpolation mixes two neighbours; beyond the first and the last row these are repeated."""

    def take(self, x: Tensor | None, ended: bool) -> Tensor | None:
        rows = _stacked(self.kept[0] if x is None or self.kept[0] is not None else x[:, :, :1], x)
        rows = _stacked(rows, rows[:, :, -1:]) if ended else rows
        self.kept = [None if ended else rows[:, :, -2:].clone()]
        made = self.layer(rows)
        factor = made.shape[2] // rows.shape[2]
        return made.narrow(2, factor, made.shape[2] - 2 * factor) if rows.shape[2] > 2 else None


class _Joined(_Link):
    """Several values, row by row: the faster branch waits, `most` rows leave at a time; the first loses `before`."""

    def __init__(self, stride: int, join: Callable[[list[Tensor]], Tensor], most: int, before: int = 0) -> None:
        super().__init__(stride, None)
        self._join, self._most, self._skip = join, most, before

    def __call__(self, flows: list[Flow]) -> Flow:
        old = self.kept if len(self.kept) == len(flows) else [None] * len(flows)
        waiting = [_stacked(rows, new) for rows, (new, _) in zip(old, flows, strict=True)]
        if self._skip and waiting[0] is not None:
            cut = min(self._skip, waiting[0].shape[2])
            waiting[0], self._skip = waiting[0][:, :, cut:], self._skip - cut
        count = min(self._most, *(0 if rows is None else rows.shape[2] for rows in waiting))
        joined = self._join([rows[:, :, :count] for rows in waiting if rows is not None]) if count else None
        self.kept = [None if rows is None else rows[:, :, count:].clone() for rows in waiting]
        rest = self.kept[-1]
        return joined, all(ended for _, ended in flows) and (rest is None or not rest.shape[2])


def _link(step: Step, stride: int, band: int) -> _Link:
    """What does the work of `step`, whose first input has `stride`. Raises TypeError where nothing can."""
    layer: Any = step.layer
    most = max(1, band // stride)
    if step.kind == "input" or isinstance(layer, _POINTWISE):
        return _Link(stride, layer or nn.Identity())
    if step.kind in _JOINS:
        return _Joined(stride, _JOINS[step.kind], most)
    if isinstance(layer, Product) and len(step.inputs) == 2:
        return _Joined(stride, lambda rows: layer(*rows), most)
    if isinstance(layer, Crop):
        return _Joined(stride, lambda rows: rows[0].narrow(3, layer.before, rows[1].shape[3]), most, layer.before)
    if isinstance(layer, (*CONVS, *POOLS, *AVERAGES, *PADS, WinogradConv)):
        return _Window(stride, layer)
    if isinstance(layer, TRANSPOSEDS):
        return _Transposed(stride, layer)
    if isinstance(layer, Upsample) and not layer.aligned:
        return (_Link if layer.nearest else _Interpolated)(stride // layer.factor, layer)
    raise TypeError(f"{step.name} ({type(layer).__name__}) cannot be computed in bands")


def _without_rows(layer: Any) -> Callable[[Tensor], Tensor]:
    """What `layer` computes without padding above and below; a transposed convolution without its bias either."""
    if isinstance(layer, WinogradConv):
        return layer.inner_rows
    if isinstance(layer, PADS):
        return lambda x: F.pad(x, layer.padding[:2])
    sides = (0, along(layer.padding, 1))
    if isinstance(layer, CONVS):
        return lambda x: F.conv2d(x, layer.weight, layer.bias, layer.stride, sides, layer.dilation, layer.groups)
    if isinstance(layer, TRANSPOSEDS):
        more = (0, along(layer.output_padding, 1))
        return lambda x: F.conv_transpose2d(x, layer.weight, None, layer.stride, sides, more, layer.groups)
    if isinstance(layer, AVERAGES):
        return lambda x: F.avg_pool2d(x, layer.kernel_size, layer.stride, sides)
    return lambda x: F.max_pool2d(x, layer.kernel_size, layer.stride, sides, layer.dilation, layer.ceil_mode)


def _numbers(layer: Any) -> tuple[int, ...]:
    return tuple(along(getattr(layer, key, 1), 0) for key in ("kernel_size", "stride", "padding", "dilation"))


def _edge(like: Tensor, rows: int, fill: float) -> Tensor | None:
    """`rows` rows of one value, as wide as `like`; None for none."""
    count, channels, _, width = like.shape
    return like.new_full((count, rows, width, channels), fill).permute(0, 3, 1, 2) if rows > 0 else None


def _stacked(*parts: Tensor | None) -> Any:
    """The parts below each other, None for none; with the channels last, which takes a sixth of the time."""
    there = [part.permute(0, 2, 3, 1) for part in parts if part is not None]
    joined = torch.cat(there, 1) if len(there) > 1 else next(iter(there), None)
    return None if joined is None else joined.permute(0, 3, 1, 2)
