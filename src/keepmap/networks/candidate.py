"""A copy of a network on which promises are tested, and what it takes to ask it and to complain.

Knows what a network offers, not what is proven of it: that is in `contract.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from keepmap.errors import ContractError


class Segmenter(Protocol):
    """What an `nn.Module` offers so that keepmap can use it as a network."""

    @property
    def channels(self) -> int:
        """Channels of the input image."""

    @property
    def classes(self) -> int:
        """Classes, background included: two at least."""

    @property
    def stride(self) -> int:
        """Pixels by which an image may be moved so that the logits only move with it; 1 where any will do."""

    @property
    def reach(self) -> tuple[int, int]:
        """(before, after): the rows above and below that a row of logits depends on, in pixels, on either axis."""

    @property
    def local(self) -> bool:
        """Whether computing in parts, with a context that covers the reach, equals computing the whole in eval."""

    def forward(self, x: Tensor, /) -> Tensor:
        """Raw values (N, channels, H, W) -> logits (N, classes, H, W), for every H and W from 1."""


@dataclass(frozen=True)
class Candidate:
    """A copy of the network in float32 on the CPU, for a clause to do with as it likes, and what it declares."""

    module: nn.Module
    channels: int
    classes: int
    stride: int
    reach: tuple[int, int]
    local: bool

    def prepare(self) -> None:
        """Eval, and random values where zero parameters or statistics as they begin would hide something."""
        for module in self.module.eval().modules():
            mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if isinstance(mean, Tensor) and isinstance(variance, Tensor) and not mean.any():
                nn.init.uniform_(mean, -0.2, 0.2)
                nn.init.uniform_(variance, 0.5, 1.5)
        for parameter in self.module.parameters():
            if parameter.requires_grad and not parameter.any():
                nn.init.normal_(parameter, std=0.1)

    def image(self, size: tuple[int, int], *, count: int = 1) -> Tensor:
        """Raw values (count, channels, *size), around the mean that the network subtracts where it has one."""
        x = torch.randn(count, self.channels, *size)
        mean, std = getattr(self.module, "mean", None), getattr(self.module, "std", None)
        if isinstance(mean, Tensor) and isinstance(std, Tensor) and mean.shape == std.shape == (self.channels,):
            x = x * std.view(-1, 1, 1) + mean.view(-1, 1, 1)
        return x

    def logits(self, x: Tensor, clause: str) -> Tensor:
        """Logits (N, classes, H, W) of x, kept out of autograd.

        Raises ContractError of `clause` where computing fails, and where they are not a tensor of that shape.
        """
        size = "x".join(map(str, x.shape[2:]))
        with torch.no_grad():
            logits = attempt(clause, f"An image of {size} px cannot be computed.", lambda: self.module(x))
        expected = (len(x), self.classes, *x.shape[2:])
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            raise ContractError(
                f"An image of {size} px does not give logits of its own size.", clause=clause,
                found=str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__,
                expected=f"a tensor (N, classes, H, W) = {expected}",
                do="pad the image to what the layers need, and crop the logits",
            )  # fmt: skip
        return logits


def candidate(network: Any) -> Candidate:
    """A copy of the network with what it declares. Raises ContractError where it declares no sense."""
    if not isinstance(network, nn.Module):
        raise ContractError("This is no network.", clause="members", found=type(network).__name__, expected="nn.Module")
    module = copy.deepcopy(network)
    names = ("channels", "classes", "stride", "reach", "local")
    channels, classes, stride, reach, local = (
        attempt("members", f"The network does not say its {name}.", partial(getattr, module, name)) for name in names
    )
    numbers = (channels, classes, stride, *reach) if isinstance(reach, tuple) and len(reach) == 2 else ("reach",)
    sound = all(isinstance(number, int) for number in numbers) and isinstance(local, bool)
    if not sound or channels < 1 or classes < 2 or stride < 1 or min(reach) < 0:
        raise ContractError(
            "What the network declares makes no sense.", clause="members",
            found=f"{channels=}, {classes=}, {stride=}, {reach=}, {local=}",
            expected="channels from 1, classes from 2, stride from 1, reach a pair from (0, 0), local True or False",
        )  # fmt: skip
    return Candidate(module.to(device="cpu", dtype=torch.float32), channels, classes, stride, reach, local)


def attempt(clause: str, summary: str, action: Callable[[], Any], *, do: str = "") -> Any:
    """What `action` returns. Raises ContractError of `clause` with the first line of whatever it raises."""
    try:
        return action()
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")[:300]
        raise ContractError(summary, clause=clause, found=f"{type(error).__name__}: {first}", do=do) from error


def same(
    one: Tensor,
    other: Tensor,
    clause: str,
    summary: str,
    tolerance: float = 0.0,
    *,
    largest: float = -1.0,
    do: str = "",
) -> None:
    """Raises ContractError of `clause` unless two tensors have one shape, and equal values but for `tolerance`.

    tolerance: a share of `largest`, which is the largest absolute value of `other` unless told.
    """
    scale = float(other.abs().max()) if largest < 0 else largest
    gap = float((one.float() - other.float()).abs().max()) if one.shape == other.shape else inf
    if not gap <= tolerance * scale:
        found = f"a difference of {gap:.3g} at a largest value of {scale:.3g}"
        expected = f"at most {tolerance:g} of the largest value" if tolerance else "no difference"
        raise ContractError(summary, clause=clause, found=found, expected=expected, do=do)
