"""An image through a network in bands of full-width rows, top to bottom: exact, and nothing is computed twice.

Knows the steps of a core and the kinds of its layers; neither files nor when bands are the best way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
from keepmap.runtime.rows import Queue, between, edge, joined, numbers, overlaps, pieces, stacked, without_rows

_POINTWISE = (*NORMS, *ACTIVATIONS, nn.Identity, nn.Dropout, Scale)
_JOINS: dict[str, Callable[..., Tensor]] = {"cat": joined, "add": lambda a, b: a + b}
Flow = tuple[list[Any], bool]
"""What a value of the core offers now: its next rows, in parts (1, C, n, W), and whether they are the last."""


class BandStream:
    """One image on its way through `network`: bands of raw values in, rows of logits out, in order.

    Each layer keeps the rows that its next output needs, each join those that wait for the slower branch; no more.
    network: local, in eval mode. size: (H, W) of the image. band: rows at a time, a multiple of the stride.
    steps: of its core, such as `fused` ones; () for those of `steps_of`.
    Raises TypeError naming what cannot be streamed: a layer, a mirrored border, a network that is not local.
    """

    def __init__(self, network: Network, size: tuple[int, int], band: int, steps: Sequence[Step] = ()) -> None:
        if not network.local or not network.zero_padded:
            what = "mirrors the border" if network.local else "sees the whole image at once"
            raise TypeError(f"{type(network).__name__} {what}")
        self._network, self._size = network, size
        self._steps = steps or steps_of(network)
        self._last = {source: at for at, step in enumerate(self._steps) for source in step.inputs}
        self._links: list[_Link] = []
        read = [source for step in self._steps for source in step.inputs]
        for step in self._steps:
            if getattr(step.layer, "inplace", False) and read.count(step.inputs[0]) > 1:
                raise TypeError(f"{step.name} overwrites what another layer reads")
            self._links.append(_link(step, self._links[step.inputs[0]].stride if step.inputs else 1, band))
        self._read = self._written = 0

    def push(self, x: Tensor) -> Iterator[Tensor]:
        """Logits (1, K, n, W) of the rows that are final with the raw values x (1, C, b, W), the next of the image.

        b is `band`, less only at the end; with the last band all the rest comes out, a band at a time.
        """
        ended = self._read + x.shape[2] == self._size[0]
        flow: Flow = [self._padded(x, ended)], ended
        over = False
        while not over:
            flows: list[Flow] = []
            for at, (step, link) in enumerate(zip(self._steps, self._links, strict=True)):
                stopping.check()
                flows.append(link([flows[source] for source in step.inputs] or [flow]))
                for source in step.inputs:
                    flows[source] = flows[source] if self._last[source] > at else ([], True)
            logits, over = flows[-1]
            if logits:
                yield from self._cropped(stacked(*logits))
            flow, over = ([], True), over or not ended

    def held(self) -> int:
        """Bytes of the rows that are kept until the next band."""
        return sum(link.held() for link in self._links)

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

    def __init__(self, stride: int, layer: Any, values: int = 1) -> None:
        self.stride = stride
        self.layer: Callable[..., Tensor] = layer
        self.queues = [Queue() for _ in range(values)]
        self.seen = self.done = 0
        self._over = False

    def __call__(self, flows: list[Flow]) -> Flow:
        rows, ended = flows[0]
        waits = self._over or not (rows or ended)
        rows, self._over = [] if waits else self.take(rows, ended), ended
        return rows, ended

    def take(self, x: list[Any], ended: bool) -> list[Tensor]:
        """The rows that are final once the parts x have come. ended: they are the last, if they are any."""
        return [self.layer(part) for part in x]

    def held(self) -> int:
        """Bytes of the rows that wait."""
        return sum(queue.nbytes for queue in self.queues)


class _Window(_Link):
    """Convolution, pooling, padding: `span` rows make one, every `step` rows; rows of `fill` lie above and below."""

    def __init__(self, stride: int, layer: Any, values: int = 1) -> None:
        kernel, self.step, padding, dilation = numbers(layer)
        super().__init__(stride * self.step, without_rows(layer), values)
        self.above, self.below = tuple(layer.padding)[2:] if isinstance(layer, PADS) else (padding, padding)
        self.span = dilation * (kernel - 1) + 1
        self.fill = -inf if isinstance(layer, POOLS) else 0.0
        self.partial = bool(getattr(layer, "ceil_mode", False))

    def take(self, x: list[Any], ended: bool) -> list[Tensor]:
        for queue, rows in zip(self.queues, x if len(self.queues) > 1 else [x], strict=False):
            queue.put(edge(rows[0], self.above, self.fill) if rows and not self.seen else None, *rows)
        have = self.queues[0].count
        self.seen = have + self.done * self.step - self.above
        if ended:
            steps, rest = divmod(self.seen + self.above + self.below - self.span, self.step)
            more = self.partial and rest and (steps + 1) * self.step < self.seen + self.above
            count = steps + 1 + bool(more) - self.done
            for queue in self.queues:
                queue.fill((count - 1) * self.step + self.span - have, self.fill)
        else:
            count = max(0, min((have - self.span) // self.step + 1, have // self.step))
        self.done += count
        seen = pieces([queue.parts for queue in self.queues], count, self.span, self.step)
        made = [self.layer(*rows) for rows in seen]
        for queue in self.queues:
            queue.drop(queue.count if ended else count * self.step)
        return made


class _Transposed(_Link):
    """A row adds to `kernel` rows, those of the next row lie `step` further: what is not final is carried on."""

    def __init__(self, stride: int, layer: Any) -> None:
        self.kernel, self.step, self.padding, _ = numbers(layer)
        super().__init__(stride // self.step, without_rows(layer))
        self.beyond = self.kernel - self.padding - self.step + along(layer.output_padding, 0)
        self.bias = layer.bias if overlaps(layer) else None

    def take(self, x: list[Any], ended: bool) -> list[Tensor]:
        queue = self.queues[0]
        for part in x if self.kernel == self.step else [stacked(*x)] if x else []:
            self.seen += part.shape[2]
            made = self.layer(part)
            made = stacked(made, edge(made, self.step - self.kernel, 0.0))
            if self.kernel > self.step and queue.count:
                made[:, :, : queue.count] += stacked(*queue.parts)
                queue.drop(queue.count)
            queue.put(made)
        count = self.seen * self.step + self.beyond * ended - self.done
        queue.fill(count - queue.count, 0.0)
        final = between(queue.parts, max(0, self.padding - self.done), count)
        queue.drop(queue.count if ended else count)
        self.done += count
        return final if self.bias is None else [part + self.bias.view(1, -1, 1, 1) for part in final]


class _Interpolated(_Link):
    """Linear interpolation mixes two neighbours; beyond the first and the last row these are repeated."""

    def take(self, x: list[Any], ended: bool) -> list[Tensor]:
        queue = self.queues[0]
        queue.put(x[0][:, :, :1] if x and not queue.count else None, *x)
        rows = stacked(*queue.parts, queue.parts[-1][:, :, -1:] if ended else None)
        queue.drop(queue.count if ended else queue.count - 2)
        made = self.layer(rows)
        factor = made.shape[2] // rows.shape[2]
        return [made.narrow(2, factor, made.shape[2] - 2 * factor)] if rows.shape[2] > 2 else []


class _Joined(_Link):
    """Several values, row by row: the faster branch waits, `most` rows leave at a time; the first loses `before`."""

    def __init__(self, stride: int, join: Callable[..., Any], values: int, most: int, before: int = 0) -> None:
        super().__init__(stride, join, values)
        self._most, self._skip = most, before

    def __call__(self, flows: list[Flow]) -> Flow:
        values, over = self.leaving(flows)
        return [self.layer(*rows) for rows in pieces(values, sum(part.shape[2] for part in values[0]))], over

    def leaving(self, flows: list[Flow]) -> tuple[list[list[Any]], bool]:
        """The rows that every value has now, by value, in parts; and whether they are the last."""
        for queue, (rows, _) in zip(self.queues, flows, strict=True):
            queue.put(*rows)
        cut = min(self._skip, self.queues[0].count)
        self.queues[0].drop(cut)
        self._skip -= cut
        count = min(self._most, *(queue.count for queue in self.queues))
        values = [queue.first(count) for queue in self.queues]
        for queue in self.queues:
            queue.drop(count)
        return values, all(ended for _, ended in flows) and not self.queues[-1].count


class _JoinedWindow(_Window):
    """A convolution of several values side by side, the rows of which come to it together."""

    def __init__(self, stride: int, layer: Any, values: int, most: int) -> None:
        super().__init__(stride, layer, values)
        self._joined = _Joined(stride, nn.Identity(), values, most)

    def __call__(self, flows: list[Flow]) -> Flow:
        values, ended = self._joined.leaving(flows)
        return super().__call__([(values if values[0] else [], ended)])

    def held(self) -> int:
        return super().held() + self._joined.held()


def _link(step: Step, stride: int, band: int) -> _Link:
    """What does the work of `step`, whose first input has `stride`. Raises TypeError where nothing can."""
    layer: Any = step.layer
    most = max(1, band // stride)
    if step.kind == "input" or isinstance(layer, _POINTWISE):
        return _Link(stride, layer or nn.Identity())
    if step.kind in _JOINS:
        return _Joined(stride, _JOINS[step.kind], len(step.inputs), most)
    if isinstance(layer, Product) and len(step.inputs) == 2:
        return _Joined(stride, layer, 2, most)
    if isinstance(layer, Crop):
        return _Joined(stride, lambda a, b: a.narrow(3, layer.before, b.shape[3]), 2, most, layer.before)
    if isinstance(layer, (*CONVS, *POOLS, *AVERAGES, *PADS)) or hasattr(layer, "inner_rows"):
        several = len(step.inputs) > 1
        return _JoinedWindow(stride, layer, len(step.inputs), most) if several else _Window(stride, layer)
    if isinstance(layer, TRANSPOSEDS):
        return _Transposed(stride, layer)
    if isinstance(layer, Upsample) and not layer.aligned:
        return (_Link if layer.nearest else _Interpolated)(stride // layer.factor, layer)
    raise TypeError(f"{step.name} ({type(layer).__name__}) cannot be computed in bands")
