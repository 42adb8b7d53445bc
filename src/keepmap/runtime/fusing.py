"""The steps of a core in fewer and larger operations of a CPU: a convolution with what comes before and after it.

Knows steps and what oneDNN computes at once; not which network gains by it. Values stay the same, up to the rounding of
sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn

from keepmap.networks.layers import ACTIVATION, CONV, POOL, Convolution, Join, Product
from keepmap.networks.reach import along
from keepmap.networks.trace import Step
from keepmap.runtime import stopping
from keepmap.runtime.rows import joined
from keepmap.runtime.winograd import WinogradConv

_NONE: tuple[str, list[float]] = "none", []
_ATTRIBUTES: dict[type[nn.Module], Callable[[Any], tuple[str, list[float]]]] = {
    ACTIVATION["relu"]: lambda _: ("relu", []),
    ACTIVATION["relu6"]: lambda _: ("hardtanh", [0.0, 6.0]),
    ACTIVATION["leaky_relu"]: lambda layer: ("leaky_relu", [layer.negative_slope]),
}
"""What oneDNN calls an activation, and its numbers. Others it would compute by approximations of its own."""


class FusedConv(nn.Module):
    """What `activation(conv(torch.cat(values, 1)))` computes, without the concatenation.

    conv:       of two spatial dimensions, zeros around its input; float32 or, where the CPU has it, bfloat16.
    activation: a ReLU, ReLU6 or LeakyReLU.
    widths:     channels of each value; () for one value. Their sums are rounded to the dtype one after the other.
    """

    def __init__(self, conv: Convolution, activation: nn.Module | None = None, widths: Sequence[int] = ()) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.dilation = conv.kernel_size, conv.stride, conv.dilation
        self.padding, self.groups = cast(tuple[int, ...], conv.padding), conv.groups
        self.bias = conv.bias
        parts = torch.split(conv.weight, list(widths), 1) if widths else (conv.weight,)
        self.weights = [part.contiguous(memory_format=torch.channels_last) for part in parts]
        self._activation = activation
        self._name, self._numbers = _NONE if activation is None else _ATTRIBUTES[type(activation)](activation)

    def forward(self, *values: Tensor) -> Tensor:
        """Of each value (N, C, H, W) -> (N, K, h, w), channels_last."""
        return self._convolved(values, self.padding)

    def inner_rows(self, *values: Tensor) -> Tensor:
        """The same without zeros above and below the values."""
        return self._convolved(values, (0, self.padding[1]))

    def _convolved(self, values: tuple[Tensor, ...], padding: tuple[int, ...]) -> Tensor:
        geometry = padding, self.stride, self.dilation, self.groups
        compute, add = torch.ops.mkldnn._convolution_pointwise, torch.ops.mkldnn._convolution_pointwise_.binary
        if len(self.weights) == 1:
            only: Tensor = compute(*values, *self.weights, self.bias, *geometry, self._name, self._numbers, None)
            return only
        out: Tensor = compute(values[0], self.weights[0], None, *geometry, *_NONE, None)
        for x, weight in zip(values[1:-1], self.weights[1:-1], strict=True):
            out = add(out, x, weight, None, *geometry, "add", 1.0, None, [], None)
        relu = "relu" if self._name == "relu" else None
        out = add(out, values[-1], self.weights[-1], self.bias, *geometry, "add", 1.0, relu, [], None)
        return out if relu or self._activation is None else self._activation(out)


class HalvingMax(nn.Module):
    """What 2x2 max pooling with stride 2 computes, without the eight bytes that torch notes of each value it keeps."""

    kernel_size = stride = (2, 2)
    padding, dilation = (0, 0), (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H // 2, W // 2), channels_last."""
        even = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        upper, lower = even[:, :, ::2], even[:, :, 1::2]
        rows = torch.maximum(upper, lower)
        return torch.maximum(rows[:, :, :, ::2], rows[:, :, :, 1::2])

    inner_rows = forward


class Fused:
    """A core as steps one after the other, each value let go with its last reader."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = steps
        self._last = {source: at for at, step in enumerate(steps) for source in step.inputs}

    def __call__(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> logits (N, K, *S)."""
        values = {0: x}
        del x
        for at, step in enumerate(self.steps[1:], start=1):
            stopping.check()
            taken = [values[source] for source in step.inputs]
            for source in set(step.inputs):
                if self._last[source] == at:
                    del values[source]
            values[at] = _computed(step, taken)
            del taken
        return values[len(self.steps) - 1]


def _computed(step: Step, values: list[Tensor]) -> Tensor:
    if step.kind == "cat":
        return joined(*values)
    if step.kind == "add":
        return values[0] + values[1]
    layer: Any = step.layer
    value: Tensor = layer(*values)
    return value


def can_fuse(steps: Sequence[Step], dtype: torch.dtype) -> bool:
    """Whether this build and this CPU have the operations for values of `dtype`, and no step takes a parameter."""
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    if any(isinstance(step.layer, Product) and len(step.inputs) == 1 for step in steps):
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def fused(steps: Sequence[Step], channels: int) -> list[Step]:
    """The same values in fewer steps: convolutions with the activation that alone reads them, and of several values
    in the place of their concatenation; identities are left out.

    steps: of a network in eval mode on the CPU, channels_last, in a dtype for which `can_fuse`. channels: of the first.
    """
    widths = _widths(steps, channels)
    readers = [[at for at, step in enumerate(steps) if source in step.inputs] for source in range(len(steps))]
    made: list[Step] = []
    place: dict[int, tuple[int, ...]] = {}
    activated: set[int] = set()
    for at, step in enumerate(steps):
        inputs = tuple(new for old in step.inputs for new in place[old])
        several = len(step.inputs) == 1 and len(inputs) > 1
        layer = step.layer
        if at in activated or isinstance(layer, nn.Identity):
            place[at] = inputs
            continue
        if step.kind == "cat" and len(readers[at]) == 1 and _takes_several(steps[readers[at][0]].layer):
            place[at] = inputs
            continue
        if _is_plain(layer):
            after = _activation_after(steps, readers, at)
            activated |= {after} - {0}
            widths_of = [widths[source] for source in steps[step.inputs[0]].inputs] if several else []
            layer = FusedConv(layer, steps[after].layer if after else None, widths_of)
        elif _halves(layer):
            layer = HalvingMax()
        place[at] = (len(made),)
        made.append(dataclasses.replace(step, layer=layer, inputs=inputs))
    return made


def _is_plain(layer: nn.Module | None) -> TypeGuard[Convolution]:
    """Whether oneDNN's operation computes this very convolution."""
    return isinstance(layer, CONV[2]) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _halves(layer: nn.Module | None) -> bool:
    """Whether it takes the maximum of each 2x2 block."""
    if not isinstance(layer, POOL[2]) or layer.ceil_mode or layer.return_indices:
        return False
    numbers = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    return [along(each, 0) for each in numbers] == [along(each, 1) for each in numbers] == [2, 2, 0, 1]


def _takes_several(layer: nn.Module | None) -> bool:
    return isinstance(layer, WinogradConv) or (_is_plain(layer) and layer.groups == 1)


def _activation_after(steps: Sequence[Step], readers: list[list[int]], at: int) -> int:
    """The step of the activation that alone reads a value, identities aside; 0 for none."""
    while len(readers[at]) == 1:
        at = readers[at][0]
        if isinstance(steps[at].layer, tuple(_ATTRIBUTES)):
            return at
        if not isinstance(steps[at].layer, nn.Identity):
            break
    return 0


def _widths(steps: Sequence[Step], channels: int) -> list[int]:
    """The channels of each step's value; channels: those of the first."""
    widths: list[int] = []
    for step in steps:
        before = [widths[source] for source in step.inputs] or [channels]
        whole = sum(before) if step.kind == "cat" or isinstance(step.layer, Join) else before[0]
        widths.append(int(getattr(step.layer, "out_channels", whole)))
    return widths
