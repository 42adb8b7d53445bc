"""Computing parts of a network twice, so that what they keep for the backward pass lives only while it is needed.

Knows no network and no layer: which parts there are is up to the networks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from keepmap.networks.trace import in_part, is_traced

Part = Callable[[list[Tensor]], Any]
"""Computes one value or several from those in a list, which it empties: what that list alone holds dies once read."""


class Recomputing(Protocol):
    """A module that can recompute its parts. training: as of every module; checkpointing: whether it should."""

    training: bool
    checkpointing: bool


def let_recompute(network: nn.Module) -> None:
    """Let all of `network`, its encoder included, recompute its parts in training."""
    for module in network.modules():
        if hasattr(module, "checkpointing"):
            setattr(module, "checkpointing", True)  # noqa: B010  (no field of every module)


def in_turn(*layers: nn.Module) -> Part:
    """The part that sends its one value through `layers`."""

    def part(values: list[Tensor]) -> Any:
        x: Any = values.pop()
        for layer in layers:
            x = layer(x)
        return x

    return part


def recomputed(module: Recomputing, part: Part, values: list[Tensor]) -> Any:
    """What `part` makes of `values`, which it empties.

    With `module.checkpointing`, in training and with gradients, only `values` are kept until the backward pass, which
    computes the part once more. Gradients and buffers equal those of the plain run bit for bit: random numbers are the
    same again, autocast is as it was, and norms do not count the second time. In eval and in graphs (torch.compile,
    torch.export) the part just runs. values must not be changed in place by the part, nor later.
    Source: Chen et al. 2016 (Training Deep Nets with Sublinear Memory Cost).
    """
    if is_traced(values[0]):
        return in_part(part, values)
    if not (module.checkpointing and module.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
        return part(values)
    taken = tuple(values)
    values.clear()

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _FrozenStatistics(cast(nn.Module, module))

    def again(*given: Tensor) -> Any:
        return part(list(given))

    return checkpoint(again, *taken, use_reentrant=False, preserve_rng_state=True, context_fn=contexts)


class _FrozenStatistics(AbstractContextManager[None]):
    """While it is entered, the norms of a module compute as ever but leave their running statistics as they are.

    Each takes 0 of the new statistics and counts no batch. They cannot be switched off: the backward pass asks for as
    many tensors as were saved the first time. It may be entered again, as by a second pass of a retained graph.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._before: list[tuple[Any, float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        norms: list[Any] = [layer for layer in self._module.modules() if getattr(layer, "track_running_stats", False)]
        self._before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *_: object) -> None:
        for norm, momentum, count in self._before:
            norm.momentum, norm.num_batches_tracked = momentum, count
