"""A depthwise convolution whose gradients are as fast on a CPU in bfloat16 as its result.

Knows one weakness of the CPU kernels, not the networks that suffer from it: in bfloat16 the gradients of a depthwise
convolution that is strided, or larger than 3x3, take up to ten times the float32 kernels' time. Values are the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Numbers = tuple[int, ...]


def is_slow(x: Tensor, kernel: Numbers, stride: Numbers) -> bool:
    """Whether torch's own gradients of such a convolution of x would be slow: bfloat16, CPU, large or strided."""
    if x.device.type != "cpu" or not torch.is_grad_enabled() or (max(stride) == 1 and max(kernel) <= 3):
        return False
    return working_dtype(x) == torch.bfloat16


def working_dtype(x: Tensor) -> torch.dtype:
    """What a convolution of x on the CPU computes in: the dtype of autocast where that is on, else that of x."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def depthwise_conv2d(x: Tensor, weight: Tensor, stride: Numbers, padding: Numbers) -> Tensor:
    """x (N, C, H, W) filtered by weight (C, 1, h, w) in the working dtype; gradients are computed in float32."""
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
        operands = (gradient.float(), x.float(), weight.float(), None)
        geometry = (ctx.stride, ctx.padding, (1, 1), False, (0, 0), len(weight))
        wanted = (*ctx.needs_input_grad[:2], False)
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(*operands, *geometry, wanted)
        return _as(of_x, x), _as(of_weight, weight), None, None


def _as(gradient: Tensor | None, value: Tensor) -> Tensor | None:
    return None if gradient is None else gradient.to(value.dtype)
