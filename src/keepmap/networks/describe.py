"""What a network costs at an image size: extents, channels, reach and bytes per level, peak memory, arithmetic.

Computes from the steps of the core alone: no weights are copied and no data flow. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import torch
from torch import nn

from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.channelwise import ChannelLinear
from keepmap.networks.grid import extents_of, grids_of
from keepmap.networks.layers import ACTIVATION, SMOOTH, Crop, Join, Product
from keepmap.networks.network import Network
from keepmap.networks.reach import (
    AVERAGES,
    CHANNELWISE,
    CONVS,
    INPUT_NORMS,
    NORMS,
    POOLS,
    TRANSPOSEDS,
    Field,
    fields_of,
)
from keepmap.networks.trace import Step, steps_of

_MATRICES = (*CONVS, ChannelLinear)
_ACTIVATIONS = tuple(ACTIVATION.values())
_KEEP_INPUTS = (
    *(*CONVS, *TRANSPOSEDS, *NORMS, *INPUT_NORMS, *CHANNELWISE, *POOLS, *AVERAGES, *SMOOTH.values()),
    *(nn.Hardsigmoid, nn.Hardswish, Product),
)
_KEEP_OUTPUTS = (*_ACTIVATIONS, nn.Sigmoid)
_VIEWS = (nn.Identity, Crop)
_INDEX_BYTES = 8
"""Max-pooling keeps the place of each maximum for the backward pass, as int64."""


@dataclass(frozen=True)
class ModelRow:
    """A network with its default options, for 3 channels and 2 classes. stride and reach (before, after): in pixels."""

    name: str
    parameters: int
    stride: int
    reach: tuple[int, int]
    summary: str


@dataclass(frozen=True)
class LevelRow:
    """One resolution of a network at an image size. Bytes are per image.

    level, stride:    0 is the image's own resolution; pixels of the image per pixel of the level, along each axis.
    size:             (H, W) of the value, padding included.  padding: the rows and columns that exceed the image's.
    channels:         of the level's skip, or where it has none of its last value on the way down.
    reach:            (before, after) in pixels of the image that this value depends on.
    skip_bytes:       held for the expanding path while the deeper levels are computed.
    inference_bytes:  the most that this level holds at one moment of a forward pass, skip included.
    training_bytes:   what this level keeps between forward and backward, skip included where it is kept.
    """

    level: int
    stride: int
    size: tuple[int, int]
    padding: tuple[int, int]
    channels: int
    reach: tuple[int, int]
    skip_bytes: int
    inference_bytes: int
    training_bytes: int


@dataclass(frozen=True)
class _Values:
    """The values of a core at one size: extent, the buffer each lives in, its bytes, the last step that needs it."""

    steps: list[Step]
    fields: list[Field]
    extents: list[tuple[int, int]]
    buffers: list[int]
    sizes: list[int]
    last: list[int]

    def live(self, at: int) -> set[int]:
        """The buffers that exist while step `at` runs."""
        return {buffer for buffer in set(self.buffers[: at + 1]) if self.last[buffer] >= at}


def sketch(name: str, *, channels: int = 3, classes: int = 2, options: Mapping[str, Any] | None = None) -> Network:
    """The network called `name` without memory for its weights: it can be described, not run. Raises OptionError."""
    with torch.device("meta"):
        return build_network(name, channels=channels, classes=classes, options=options)


def summarise(name: str) -> ModelRow:
    """The network called `name` in one row. Raises OptionError."""
    network = sketch(name)
    summary = (NETWORKS[name][1].__doc__ or "").splitlines()[0]
    return ModelRow(name, parameters(network), network.stride, network.reach, summary)


def describe(network: Network, size: tuple[int, int], *, bytes_per_value: int = 4) -> list[LevelRow]:
    """One row per resolution of `network` for an image of `size` (H, W) pixels, the image's own first.

    bytes_per_value: 4 for float32, 2 for bfloat16.
    """
    values = _values(network, size, bytes_per_value)
    strides = [field.stride for field in values.fields]
    deepest = strides.index(max(strides))
    turn = max(index for index, stride in enumerate(strides) if stride == max(strides))
    kept = _kept_between(network, values, bytes_per_value)
    live = [values.live(index) for index in range(len(values.steps))]
    rows = []
    for level, stride in enumerate(sorted(set(strides))):
        here = {buffer for buffer in values.buffers if strides[buffer] == stride}
        waiting = {buffer for buffer in here if buffer < deepest and values.last[buffer] > turn}
        handed = max(waiting, default=_last_on_the_way_down(strides, stride, deepest))
        padded = values.extents[handed]
        rows.append(
            LevelRow(
                level=level,
                stride=stride,
                size=padded,
                padding=(max(0, padded[0] - ceil(size[0] / stride)), max(0, padded[1] - ceil(size[1] / stride))),
                channels=values.fields[handed].channels,
                reach=_reach(network, values.fields, handed),
                skip_bytes=sum(values.sizes[buffer] for buffer in waiting),
                inference_bytes=max(sum(values.sizes[buffer] for buffer in alive & here) for alive in live),
                training_bytes=sum(count for buffer, count in kept.items() if strides[buffer] == stride),
            )
        )
    return rows


def peak_bytes(network: Network, size: tuple[int, int], *, bytes_per_value: int = 4, training: bool = False) -> int:
    """The most bytes that one image of `size` (H, W) pixels holds at once in a pass, the weights and theirs left out.

    bytes_per_value: of a feature map, 4 for float32, 2 for bfloat16 (raw and normalised values are float32 anyway).
    training:        forward and backward: also what is kept, with gradients that live as long as their values; where
                     the network recomputes its parts, what one of them keeps at a time.
    An upper bound: what must reorder its input, a convolution that is not channels_last or a group norm that is, needs
    more.
    """
    values = _values(network, size, bytes_per_value)
    pixels = prod(network.padded(size))
    raw = 4 * network.channels * pixels
    live = [sum(values.sizes[buffer] for buffer in values.live(index)) for index in range(len(values.steps))]
    peaks = [held + _fitted(values, index) for index, held in enumerate(live)]
    if training:
        kept = _kept_between(network, values, bytes_per_value)
        again = _kept_again(values, bytes_per_value, kept) if network.checkpointing else {}
        always = sum(kept.values())
        peaks = [always + again.get(step.part, 0) + peak for step, peak in zip(values.steps, peaks, strict=True)]
    return raw + max(*peaks, 2 * raw)


def parameters(network: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: Network, size: tuple[int, int]) -> int:
    """Multiply-and-add operations of the convolutions for one image of `size` (H, W) pixels; twice that are FLOP."""
    extents = extents_of(network, size)
    total = 0
    for step, extent in zip(steps_of(network), extents, strict=True):
        if isinstance(step.layer, _MATRICES):
            total += step.layer.weight.numel() * prod(extent)
        elif isinstance(step.layer, TRANSPOSEDS):
            total += step.layer.weight.numel() * prod(extents[step.inputs[0]])
    return total


def _values(network: Network, size: tuple[int, int], bytes_per_value: int) -> _Values:
    steps, fields, extents = steps_of(network), fields_of(network), extents_of(network, size)
    buffers: list[int] = []
    for index, step in enumerate(steps):
        inplace = isinstance(step.layer, _ACTIVATIONS) and step.layer.inplace
        buffers.append(buffers[step.inputs[0]] if inplace or isinstance(step.layer, _VIEWS) else index)
    sizes = [field.channels * prod(extent) * bytes_per_value for field, extent in zip(fields, extents, strict=True)]
    last = list(range(len(steps)))
    for index, step in enumerate(steps):
        for source in step.inputs:
            buffer = buffers[source]
            last[buffer] = max(last[buffer], _returned(steps, source, index))
        last[buffers[index]] = max(last[buffers[index]], index, _end(steps, step.listed))
    return _Values(steps, fields, extents, buffers, sizes, last)


def _returned(steps: list[Step], source: int, user: int) -> int:
    """The last step that holds `source` for `user`: an argument lives until the outermost call with it returns."""
    made_in = set(steps[source].scopes)
    call = next((scope for scope in steps[user].scopes if scope not in made_in), None)
    return max(user, _end(steps, call))


def _end(steps: list[Step], call: str | None) -> int:
    """The last step of a call of a module, -1 for none."""
    return max((index for index, step in enumerate(steps) if call in step.scopes), default=-1)


def _kept_between(network: Network, values: _Values, bytes_per_value: int) -> dict[int, int]:
    """Bytes kept from the forward to the backward pass, by buffer; of parts that are recomputed only what they take."""
    every = range(len(values.steps))
    if not network.checkpointing:
        return _kept(values, bytes_per_value, every)
    kept = _kept(values, bytes_per_value, [index for index in every if not values.steps[index].part])
    for step in values.steps:
        for source in step.inputs:
            if step.part and step.part != values.steps[source].part:
                buffer = values.buffers[source]
                kept[buffer] = max(kept.get(buffer, 0), values.sizes[buffer])
    return kept


def _kept_again(values: _Values, bytes_per_value: int, between: Mapping[int, int]) -> dict[int, int]:
    """Bytes that each part keeps once it is recomputed, beside those kept all the time."""
    steps = values.steps
    kept = {}
    for part in {step.part for step in steps} - {0}:
        own = _kept(values, bytes_per_value, [index for index, step in enumerate(steps) if step.part == part])
        kept[part] = sum(max(0, count - between.get(buffer, 0)) for buffer, count in own.items())
    return kept


def _kept(values: _Values, bytes_per_value: int, chosen: Iterable[int]) -> dict[int, int]:
    """Bytes that the steps `chosen` keep, by buffer: what convolutions, norms and pools take, and what ReLUs return.

    A pooling also keeps where each maximum was, dropout what it multiplied with, and ReLU6 a copy of its input.
    """
    kept: dict[int, int] = {}
    beside: list[tuple[int, int]] = []
    for index in chosen:
        step = values.steps[index]
        for source in step.inputs if isinstance(step.layer, _KEEP_INPUTS) else ():
            buffer = values.buffers[source]
            kept[buffer] = max(kept.get(buffer, 0), values.sizes[buffer])
        if isinstance(step.layer, _KEEP_OUTPUTS):
            buffer = values.buffers[index]
            kept[buffer] = max(kept.get(buffer, 0), values.sizes[buffer])
        if isinstance(step.layer, POOLS):
            beside.append((index, values.sizes[index] // bytes_per_value * _INDEX_BYTES))
        if isinstance(step.layer, (nn.Dropout, nn.ReLU6)):
            beside.append((index, values.sizes[index]))
    for index, count in beside:
        kept[index] = kept.get(index, 0) + count
    return kept


def _fitted(values: _Values, at: int) -> int:
    """Bytes of the map that a Join makes to fit its skip before it joins the two."""
    step = values.steps[at]
    if not isinstance(step.layer, Join) or step.layer.match == "crop":
        return 0
    return values.sizes[at] - values.sizes[step.inputs[0]]


def _reach(network: Network, fields: list[Field], at: int) -> tuple[int, int]:
    """The reach of a step's value; where convolutions have no padding, from the pixels that its rows are centred on."""
    before, after = fields[at].reach
    if not network.pad_before:
        return before, after
    grid = grids_of(network)[at]
    moved = int(grid.origin - (grid.step - 1) / 2)
    return before + moved, after - moved


def _last_on_the_way_down(strides: list[int], stride: int, deepest: int) -> int:
    """The last value at `stride` before the path goes deeper, or at the deepest level before it comes back.

    Where the path down leaves the stride out, the first on the way up.
    """
    deeper = [index for index, other in enumerate(strides) if other > stride]
    end = deeper[0] if deeper else next((i for i in range(deepest, len(strides)) if strides[i] < stride), len(strides))
    return max((index for index in range(end) if strides[index] == stride), default=strides.index(stride))
