"""How far each value of a network sees: interval arithmetic over its layers, exact for every phase of the stride.

Knows the layer kinds of the tables in `layers.py`; anything else is refused by name rather than guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from keepmap.networks.channelwise import ChannelLinear, ChannelNorm
from keepmap.networks.layers import (
    ACTIVATION,
    AVERAGE,
    CONV,
    GLOBAL_AVERAGE,
    PAD,
    POOL,
    SMOOTH,
    TRANSPOSED,
    Crop,
    Join,
    Product,
    Scale,
    Upsample,
)
from keepmap.networks.norms import NORM
from keepmap.networks.trace import Step, steps_of

CONVS = tuple(CONV.values())
TRANSPOSEDS = tuple(TRANSPOSED.values())
NORMS = tuple(NORM.values())
POOLS = tuple(POOL.values())
PADS = tuple(PAD.values())
AVERAGES = tuple(AVERAGE.values())
INPUT_NORMS = (nn.GroupNorm, nn.InstanceNorm2d, nn.InstanceNorm3d)
GLOBAL_POOLS = tuple(GLOBAL_AVERAGE.values())
ACTIVATIONS = (*ACTIVATION.values(), *SMOOTH.values(), nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish)
CHANNELWISE = (ChannelLinear, ChannelNorm)
POINTWISE = (*NORMS, *INPUT_NORMS, *ACTIVATIONS, *CHANNELWISE, nn.Identity, nn.Dropout, Scale)
JOINS = (Join, Product)
"""Layers of two values, row by row; a Join appends the channels of its second."""


@dataclass(frozen=True)
class Field:
    """What is known of one value without computing it, along one axis.

    channels: its channels.  stride: pixels of the input per row; a fraction never occurs.
    low, high: the first and last input row that row i depends on, for the rows of one period of the total stride.
    """

    channels: int
    stride: int
    low: tuple[int, ...]
    high: tuple[int, ...]

    def rows(self, row: int) -> tuple[int, int]:
        """The first and last input row that any `row` depends on, far from the border."""
        period, phase = divmod(row, len(self.low))
        shift = period * len(self.low) * self.stride
        return self.low[phase] + shift, self.high[phase] + shift

    @property
    def reach(self) -> tuple[int, int]:
        """(before, after): input rows above and below those that a row stands for, at most over all phases."""
        before = max(index * self.stride - low for index, low in enumerate(self.low))
        after = max(high - (index + 1) * self.stride + 1 for index, high in enumerate(self.high))
        return max(before, 0), max(after, 0)


def reach_of(network: Any) -> tuple[int, int]:
    """(before, after) in pixels: the context that makes a part of the logits equal to the whole's, on either axis.

    Of a network that is not local it is the reach of its local layers: with that context a part differs from the whole
    only by what depends on all of the image.
    network: a Network. Raises TypeError naming a layer whose reach is unknown.
    """
    axes = [_reach(network, fields_of(network, axis)[-1]) for axis in (0, 1)]
    return max(before for before, _ in axes), max(after for _, after in axes)


def is_local(network: Any) -> bool:
    """Whether no layer of the core depends on the whole image.

    Those that do: pooling to one pixel, norms with statistics of the input, resizing to an extent instead of a factor,
    interpolation with aligned corners.
    """
    return not any(_is_global(step.layer) for step in steps_of(network))


def fields_of(network: Any, axis: int = 0) -> list[Field]:
    """The Field of each step of the core along an axis (0: rows, 1: columns). Raises TypeError as `reach_of` does."""
    fields: list[Field] = []
    for step in steps_of(network):
        if step.kind == "input":
            rows = tuple(range(network.stride))
            fields.append(Field(network.channels, 1, rows, rows))
        else:
            fields.append(_field(step, [fields[source] for source in step.inputs], network.stride, axis))
    return fields


def _reach(network: Any, logits: Field) -> tuple[int, int]:
    """(before, after) of the logits once `crop` has cut off their first rows and `pad` has moved the image down."""
    if logits.stride > 1:
        return logits.reach
    image = range(len(logits.low))
    spans = [logits.rows(row + network.crop_before) for row in image]
    before = max(row - (low - network.pad_before) for row, (low, _) in zip(image, spans, strict=True))
    after = max(high - network.pad_before - row for row, (_, high) in zip(image, spans, strict=True))
    return max(before, 0), max(after, 0)


def _field(step: Step, sources: list[Field], total: int, axis: int) -> Field:
    if isinstance(step.layer, Join) and sources[1].stride > sources[0].stride:
        factor = sources[1].stride // sources[0].stride
        sources = [sources[0], _through(step, Upsample(factor, nearest=step.layer.nearest), sources[1], total, axis)]
    elif step.layer is not None and not isinstance(step.layer, JOINS):
        return _through(step, step.layer, sources[0], total, axis)
    if len({source.stride for source in sources}) > 1:
        raise TypeError(f"{step.name} joins values of different strides")
    low = tuple(min(rows) for rows in zip(*(source.low for source in sources), strict=True))
    high = tuple(max(rows) for rows in zip(*(source.high for source in sources), strict=True))
    joined = step.kind == "cat" or isinstance(step.layer, Join)
    channels = sum(source.channels for source in sources) if joined else sources[0].channels
    return Field(channels, sources[0].stride, low, high)


def _through(step: Step, layer: nn.Module, source: Field, total: int, axis: int) -> Field:
    reads, down, up = _window(step.name, layer, axis)
    stride = source.stride * down // up
    if source.stride * down % up or stride < 1 or total % stride:
        raise TypeError(f"{step.name} leaves the grid of the total stride {total}")
    spans = [[source.rows(row) for row in reads(index)] for index in range(total // stride)]
    low = tuple(min(first for first, _ in span) for span in spans)
    high = tuple(max(last for _, last in span) for span in spans)
    return Field(int(getattr(layer, "out_channels", source.channels)), stride, low, high)


def _window(name: str, layer: nn.Module, axis: int) -> tuple[Callable[[int], range], int, int]:
    """(the rows of its input that row i of its output reads, factor down, factor up) of one layer."""
    if isinstance(layer, POINTWISE) or (isinstance(layer, GLOBAL_POOLS) and layer.output_size == 1):
        return (lambda row: range(row, row + 1)), 1, 1
    if isinstance(layer, PADS):
        before = layer.padding[-2 - 2 * axis]
        return (lambda row: range(row - before, row - before + 1)), 1, 1
    if isinstance(layer, Crop):
        return (lambda row: range(row + layer.before, row + layer.before + 1)), 1, 1
    if isinstance(layer, Upsample):
        factor = layer.factor
        if layer.nearest:
            return (lambda row: range(row // factor, row // factor + 1)), 1, factor
        return (lambda row: _interpolated(row, factor)), 1, factor
    if isinstance(layer, (*CONVS, *TRANSPOSEDS, *POOLS, *AVERAGES)):
        kernel, stride, padding, dilation = (along(getattr(layer, key, 1), axis) for key in _NUMBERS)
        if isinstance(layer, TRANSPOSEDS):
            return (lambda row: _scattered(row + padding, kernel, stride, dilation)), 1, stride
        span = dilation * (kernel - 1) + 1
        return (lambda row: range(row * stride - padding, row * stride - padding + span, dilation)), stride, 1
    raise TypeError(f"the reach of {name} ({type(layer).__name__}) is unknown")


_NUMBERS = ("kernel_size", "stride", "padding", "dilation")


def _interpolated(row: int, factor: int) -> range:
    """The two rows that linear interpolation mixes, at (row + 0.5) / factor - 0.5."""
    first = (2 * row + 1 - factor) // (2 * factor)
    return range(first, first + 2)


def _scattered(row: int, kernel: int, stride: int, dilation: int) -> range:
    """The rows from which a transposed convolution adds to `row` (counted before its padding is cut off)."""
    taps = [tap * dilation for tap in range(kernel) if (row - tap * dilation) % stride == 0]
    rows = [(row - tap) // stride for tap in taps]
    return range(min(rows), max(rows) + 1) if rows else range(0)


def along(value: Any, axis: int) -> int:
    """The number of one axis, of a layer that may hold one for all; TypeError for a name such as "same"."""
    number = value[axis] if isinstance(value, tuple) else value
    if not isinstance(number, int):
        raise TypeError(f"padding must be given in pixels, not as {value!r}")
    return number


def _is_global(layer: nn.Module | None) -> bool:
    if isinstance(layer, NORMS):
        return layer.running_mean is None
    if isinstance(layer, Upsample):
        return layer.aligned
    return isinstance(layer, (*INPUT_NORMS, *GLOBAL_POOLS)) or (isinstance(layer, Join) and layer.match == "resize")
