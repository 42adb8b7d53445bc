"""The normalisations that networks are built with: torch's own, except where its CPU kernels are slow or inexact.

Knows no network. What differs from torch is how a value is computed, never which.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

Norm = Literal["batch", "instance", "group", "none"]

NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

_GROUPS = 32
_VECTOR = 16
"""Channels that the CPU kernels of torch take at a time."""


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of images, whose gradients on a CPU are fast for any number of channels.

    In channels_last memory torch's kernel takes the channels of a pixel 16 at a time and what is left one by one: at 8
    channels its gradients take twenty times the time of 16. Here as many pixels as give a multiple of 16 are read as
    one. These gradients have no gradients of their own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        usual = self.training and self.affine and self.track_running_stats and self.momentum is not None
        if not usual or x.ndim != 4 or x.shape[1] != self.num_features or not _is_slow(x):
            return super().forward(x)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        state = self.running_mean, self.running_var, self.momentum, self.eps
        normalised: Tensor = _Normalised.apply(x, self.weight, self.bias, *state)  # type: ignore[no-untyped-call]
        return normalised


class GroupNorm(nn.GroupNorm):
    """Normalisation of each group of channels of each image, at full precision in every memory layout.

    In channels_last memory torch's CPU kernel subtracts two sums in float32: at 256x256 px it is off by 3e-5 where the
    mean is 0, and by 0.5 where it is 100 deviations. So float32 is normalised in contiguous memory on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) -> (N, C, *S), in the layout of x."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or x.is_contiguous():
            return super().forward(x)
        return super().forward(x.contiguous()).movedim(1, -1).contiguous().movedim(-1, 1)


def normalisation(norm: Literal["batch", "instance", "group"], channels: int, *, ndim: int = 2) -> nn.Module:
    """Batch, instance or group normalisation with a learnt scale and shift for each channel.

    An instance norm is a group norm of one channel a group.
    group: 32 groups or as many as divide the channels, of two channels at least (Wu and He 2018, section 4.1).
    """
    if norm == "batch":
        return BatchNorm(channels) if ndim == 2 else NORM[ndim](channels)
    groups = math.gcd(_GROUPS, channels)
    if groups == channels:
        groups = max(1, channels // 2)
    return GroupNorm(channels if norm == "instance" else groups, channels)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a layer of `network` normalises by statistics of the batch."""
    return any(isinstance(layer, _BatchNorm) for layer in network.modules())


def _is_slow(x: Tensor) -> bool:
    """Whether torch's own gradients for images x are slow, and pixels can be read several at a time."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or not torch.is_grad_enabled() or not x.numel():
        return False
    if x.dtype not in (torch.float32, torch.bfloat16) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    count = _at_once(x)
    return count > 1 and x.numel() % (count * x.shape[1]) == 0


def _at_once(x: Tensor) -> int:
    """How many pixels of x have, together, a multiple of 16 channels."""
    return _VECTOR // math.gcd(_VECTOR, x.shape[1])


def _wide(x: Tensor) -> Tensor:
    """x (N, C, H, W) in channels_last memory as (pixels / n, n C), for n pixels at once."""
    return x.movedim(1, -1).reshape(-1, _at_once(x) * x.shape[1])


class _Normalised(torch.autograd.Function):
    """y = scale (x - mean) / deviation + shift, with the mean and deviation of each channel of x.

    Source of the gradients: Ioffe and Szegedy 2015 (Batch Normalization), section 3.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        running = running_mean, running_var
        y, mean, inverse = torch.native_batch_norm(x, weight, bias, *running, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        count, channels = _at_once(x), x.shape[1]
        x_wide, g_wide = _wide(x), _wide(gradient.contiguous(memory_format=torch.channels_last))
        statistics = None, None, None, mean.repeat(count), inverse.repeat(count)
        sums = torch.ops.aten.native_batch_norm_backward(g_wide, x_wide, *statistics, True, 0.0, (False, True, True))
        of_weight, of_bias = (each.view(count, channels).sum(0) for each in sums[1:])
        scale = weight * inverse
        slope = scale * inverse * of_weight * (-channels / x.numel())
        level = scale * of_bias * (-channels / x.numel()) - slope * mean
        scale, slope, level = (each.repeat(count) for each in (scale, slope, level))
        wide = torch.addcmul(level, x_wide.float(), slope).addcmul_(g_wide.float(), scale).to(x.dtype)
        of_x = wide.view(x.shape[0], *x.shape[2:], channels).movedim(-1, 1)
        return of_x, of_weight, of_bias, None, None, None, None
