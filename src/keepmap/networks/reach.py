"""How far each value of a network sees: interval arithmetic over its layers, exact for every phase of the stride.

Knows the layer kinds of the tables in `layers.py`; anything else is refused by name rather than guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from keepmap.networks.layers import ACTIVATION, CONV, NORM, PAD, POOL, TRANSPOSED, Upsample
from keepmap.networks.trace import Step, steps_of

CONVS = tuple(CONV.values())
TRANSPOSEDS = tuple(TRANSPOSED.values())
NORMS = tuple(NORM.values())
POOLS = tuple(POOL.values())
PADS = tuple(PAD.values())
POINTWISE = (*NORMS, *ACTIVATION.values(), nn.Identity)
GLOBAL = (nn.GroupNorm, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


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

    network: a Network. Raises TypeError naming a layer whose reach is unknown or unlimited.
    """
    axes = [fields_of(network, axis)[-1].reach for axis in (0, 1)]
    return max(before for before, _ in axes), max(after for _, after in axes)


def is_local(network: Any) -> bool:
    """Whether no layer of the core depends on the whole image: no pooling to one pixel, no statistics of the input."""
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


def _field(step: Step, sources: list[Field], total: int, axis: int) -> Field:
    if step.layer is not None:
        return _through(step, step.layer, sources[0], total, axis)
    if len({source.stride for source in sources}) > 1:
        raise TypeError(f"{step.name} joins values of different strides")
    low = tuple(min(rows) for rows in zip(*(source.low for source in sources), strict=True))
    high = tuple(max(rows) for rows in zip(*(source.high for source in sources), strict=True))
    channels = sum(source.channels for source in sources) if step.kind == "cat" else sources[0].channels
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
    if _is_global(layer):
        raise TypeError(f"{name} ({type(layer).__name__}) depends on the whole image: its reach has no limit")
    if isinstance(layer, POINTWISE):
        return (lambda row: range(row, row + 1)), 1, 1
    if isinstance(layer, PADS):
        before = layer.padding[-2 - 2 * axis]
        return (lambda row: range(row - before, row - before + 1)), 1, 1
    if isinstance(layer, Upsample):
        factor = layer.factor
        return (lambda row: _interpolated(row, factor)), 1, factor
    if isinstance(layer, (*CONVS, *TRANSPOSEDS, *POOLS)):
        kernel, stride, padding, dilation = (_along(getattr(layer, key), axis) for key in _NUMBERS)
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


def _along(value: Any, axis: int) -> int:
    """The number of one axis, of a layer that may hold one for all; TypeError for a name such as "same"."""
    number = value[axis] if isinstance(value, tuple) else value
    if not isinstance(number, int):
        raise TypeError(f"padding must be given in pixels, not as {value!r}")
    return number


def _is_global(layer: nn.Module | None) -> bool:
    return isinstance(layer, GLOBAL) or (isinstance(layer, NORMS) and layer.running_mean is None)
