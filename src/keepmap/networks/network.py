"""What every network shares: normalisation as buffers, the size rule, and the numbers computed from its layers.

Knows no architecture; a network adds its configuration, its modules and `core`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keepmap.networks.reach import is_local, reach_of

CHECKPOINTING = "recompute each level in the backward pass: less memory in training for a third more time"
"""What the field `checkpointing` of every network's dataclass says."""


class NetworkConfig(Protocol):
    """The two fields that the frozen dataclass of every network has."""

    @property
    def channels(self) -> int:
        """Channels of the input image."""

    @property
    def classes(self) -> int:
        """Classes, background included."""


class Network(nn.Module):
    """A segmentation network: (N, C, *S) raw values -> logits (N, K, *S), for every extent from 1x1 up.

    config: the frozen dataclass that it was built from, to be saved with the weights.
    stride: the total stride in pixels; `core` only ever sees multiples of it, at least two of them.
    mean, std: buffers (C,) float32, the identity until `set_normalisation`; they stay float32 under any cast.
    checkpointing: whether training recomputes the parts of `core` (see `recompute`); a field of the same name sets it.

    A network with a size rule of its own says so in `padded` and in two numbers, from which its reach follows too:
    pad_before:  rows that `pad` puts above (and columns left of) the image.
    crop_before: rows and columns that `crop` takes off the near end of what `core` returns.
    zero_padded: whether `pad` puts zeros, and not more of the image, around it.
    """

    mean: Tensor
    std: Tensor
    pad_before: int = 0
    crop_before: int = 0
    zero_padded: bool = True

    def __init__(self, config: NetworkConfig, stride: int) -> None:
        super().__init__()
        self.config = config
        self.stride = stride
        self.checkpointing = bool(getattr(config, "checkpointing", False))
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))

    def core(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> logits (N, K, *S): modules, concatenation and addition, no size arithmetic."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K, *S) of raw values x (N, C, *S) of any real dtype: normalise, pad, core, crop.

        Raises ValueError where x has another number of dimensions or channels.
        """
        return self.crop(self.core(self.prepare(x)), x.shape[2:])

    def prepare(self, x: Tensor) -> Tensor:
        """What `core` takes, for raw values x (N, C, *S): checked, normalised and padded. Raises as `forward` does."""
        return self.pad(self.normalise(x))

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std, computed in float32 and returned in the dtype of the weights. Raises as `forward` does."""
        channels = self.config.channels
        if x.ndim < 4 or x.shape[1] != channels:
            raise ValueError(
                f"a network of {channels} channels takes (N, {channels}, H, W), not {tuple(x.shape)}: "
                f"give it images of {channels} channels, channels first, or build it with channels=N of your images"
            )
        shape = (1, -1, *[1] * (x.ndim - 2))
        values = x.to(torch.float32, copy=True)  # in place: a fresh array costs more than the arithmetic on it
        return values.sub_(self.mean.view(shape)).div_(self.std.view(shape)).to(self.dtype)

    def pad(self, x: Tensor) -> Tensor:
        """x with zeros around it: `pad_before` above and left, and as many below and right as `padded` asks for."""
        missing = [padded - extent for extent, padded in zip(x.shape[2:], self.padded(x.shape[2:]), strict=True)]
        if not torch.compiler.is_compiling() and not any(missing):
            return x  # in a graph it would tie all later images to the same answer
        before = self.pad_before
        return F.pad(x, [side for zeros in reversed(missing) for side in (before, zeros - before)])

    def crop(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """The part of what `core` returns that lies on an image of extent `size`.

        In a graph rows are picked one by one: a narrowed one would hold only where there is something to cut off.
        """
        before = self.crop_before
        for axis, extent in enumerate(size, start=2):
            if torch.compiler.is_compiling():
                rows = torch.arange(before, before + extent, device=logits.device)
                logits = logits.index_select(axis, rows)
            elif logits.shape[axis] != extent:  # the gradient of a part is a copy of it among zeros
                logits = logits.narrow(axis, before, extent)
        return logits

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """The extent that `core` sees of an image of extent `size`: multiples of the stride, at least two of them.

        Nothing negative is divided: ONNX rounds towards zero.
        """
        strides = [torch.sym_max(2, (extent + self.stride - 1) // self.stride) for extent in size]  # type: ignore[no-untyped-call]
        return tuple(self.stride * count for count in strides)

    def size_note(self, size: Sequence[int]) -> list[str]:
        """What to know about an image of extent `size`, in lines, for a network with a size rule of its own."""
        return []

    def set_normalisation(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Normalise with mean and std per channel, in raw values; a deviation of 0 (a constant channel) counts as 1."""
        means, stds = torch.as_tensor(mean, dtype=torch.float32), torch.as_tensor(std, dtype=torch.float32)
        if means.shape != self.mean.shape or stds.shape != self.std.shape:
            raise ValueError(f"expected {len(self.mean)} means and deviations, not {means.numel()} and {stds.numel()}")
        if not bool(torch.isfinite(means).all()) or not bool(torch.isfinite(stds).all()) or bool((stds < 0).any()):
            raise ValueError(f"means and deviations must be finite, not {means.tolist()} and {stds.tolist()}")
        self.mean.copy_(means)
        self.std.copy_(torch.where(stds > 0, stds, torch.ones_like(stds)))

    @property
    def channels(self) -> int:
        """Channels of the input image."""
        return self.config.channels

    @property
    def classes(self) -> int:
        """Classes, background included."""
        return self.config.classes

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @cached_property
    def reach(self) -> tuple[int, int]:
        """(before, after): the rows above and below that an output row depends on, in pixels."""
        return reach_of(self)

    @cached_property
    def local(self) -> bool:
        """Whether computing in parts, with a context that covers the reach, equals computing the whole."""
        return is_local(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """As for every module, but a cast leaves mean and std in float32, which holds raw 16-bit values exactly."""
        mean, std = self.mean, self.std
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.mean.dtype != torch.float32:
            self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        return self
