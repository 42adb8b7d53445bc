"""A depthwise convolution whose gradients are as fast on a CPU in bfloat16 as its result.

Knows one weakness of the CPU kernels, not the networks that suffer from it: in bfloat16 the gradients of a depthwise
convolution that is strided, or larger than 3x3, take up to ten times the float32 kernels' time. Values are the same.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Numbers = tuple[int, ...]

_FAST = 3
"""Taps along an axis, the most for which torch's gradient of the weight is fast."""


def is_slow(x: Tensor, kernel: Numbers, stride: Numbers) -> bool:
    """Whether torch's own gradients of such a convolution of x would be slow: bfloat16, CPU, large or strided."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or (max(stride) == 1 and max(kernel) <= 3):
        return False
    return working_dtype(x) == torch.bfloat16


def working_dtype(x: Tensor) -> torch.dtype:
    """What a convolution of x on the CPU computes in: the dtype of autocast where that is on, else that of x."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: Numbers, padding: Numbers) -> Tensor:
    """x (N, C, H, W) filtered by weight (C, 1, h, w) in the working dtype."""
    filtered: Tensor = _Depthwise.apply(x.to(working_dtype(x)), weight, stride, padding)  # type: ignore[no-untyped-call]
    return filtered


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Numbers, padding: Numbers) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_x = _of_x(gradient, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        of_weight = _of_weight(gradient, x, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, None, None


def _of_x(gradient: Tensor, x: Tensor, weight: Tensor, stride: Numbers, padding: Numbers) -> Tensor:
    """Of a strided convolution in float32; only the extent of x matters."""
    dtype = x.dtype if max(stride) == 1 else torch.float32
    like = torch.empty_like(x, dtype=dtype)
    operands = gradient.to(dtype), like, weight.to(dtype), stride, padding
    of_x: Tensor = _gradients(*operands, (True, False))[0]
    return of_x.to(x.dtype)


def _of_weight(gradient: Tensor, x: Tensor, weight: Tensor, stride: Numbers, padding: Numbers) -> Tensor:
    """The gradient of each part of 3x3 taps on its own: for those there is a fast kernel."""
    high, wide = weight.shape[2:]
    if max(high, wide) <= _FAST or min(high, wide) < _FAST:
        whole: Tensor = _gradients(gradient, x, weight.to(x.dtype), stride, padding, (False, True))[1]
        return whole.to(weight.dtype)
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    result = torch.empty_like(weight)
    for top, left in product(_starts(high), _starts(wide)):
        rows, columns = ((n - 1) * step + _FAST for n, step in zip(gradient.shape[2:], stride, strict=True))
        part = x[:, :, top : top + rows, left : left + columns].contiguous(memory_format=torch.channels_last)
        taps = (..., slice(top, top + _FAST), slice(left, left + _FAST))
        result[taps] = _gradients(gradient, part, weight[taps].to(x.dtype), stride, (0, 0), (False, True))[1]
    return result


def _starts(taps: int) -> list[int]:
    """Where the parts of `taps` taps begin that cover all of them."""
    return sorted({*range(0, taps - _FAST, _FAST), taps - _FAST})


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: Numbers, padding: Numbers, wanted: tuple[bool, bool]
) -> Any:
    geometry = stride, padding, (1, 1), False, (0, 0), len(weight)
    return torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, (*wanted, False))
