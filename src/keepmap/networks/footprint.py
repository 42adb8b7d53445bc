"""What a pass of any network holds in memory: computed where its layers are known, counted while one runs where not.

Knows one image and its size, not how much memory there is nor what else lives in it.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from keepmap.networks.describe import peak_bytes
from keepmap.networks.network import Network

_PROBE = 4096
"""Strides along each side of the image whose memory per padded pixel stands for all images: no data flow for it."""
_COUNTED = 256
"""Pixels along each side of the one that is really computed."""


def memory_of(network: Any, *, bytes_per_value: int) -> Callable[[int, int], int]:
    """(height, width) in pixels -> the bytes that one image holds at once in a forward pass, weights left out.

    network: an `nn.Module` that is a Segmenter. That of a Network is computed, as in `peak_bytes`. That of another is
    counted in one pass in float32, whatever `bytes_per_value`, and taken to grow with the pixels: too little for
    a network whose memory grows faster.
    """
    if isinstance(network, Network):
        probe = (_PROBE * network.stride, _PROBE * network.stride)
        each = peak_bytes(network, probe, bytes_per_value=bytes_per_value) / prod(network.padded(probe))
        return lambda height, width: ceil(each * prod(network.padded((height, width))))
    side = -(-_COUNTED // network.stride) * network.stride
    each = counted_bytes(network, (side, side)) / side**2
    return lambda height, width: ceil(each * height * width)


def training_bytes(network: Any, size: tuple[int, int], *, bytes_per_value: int) -> int:
    """The bytes that one image of `size` (H, W) holds at once in a training step, weights and theirs left out.

    Computed or counted as in `memory_of`, but at this very size.
    """
    if isinstance(network, Network):
        return peak_bytes(network, size, bytes_per_value=bytes_per_value, training=True)
    return counted_bytes(network, size, training=True)


def counted_bytes(network: Any, size: tuple[int, int], *, training: bool = False) -> int:
    """The most bytes that one image of `size` (H, W) holds at once while a copy of the network computes it.

    In float32 on the CPU; the weights and their gradients are left out, and so is what a layer needs inside itself.
    training: forward and backward, of two images at a time, as a norm may ask for.
    """
    module = copy.deepcopy(network).to("cpu", torch.float32).train(training)
    count = 2 if training else 1
    with torch.random.fork_rng(devices=[]), Ledger(module) as ledger, torch.set_grad_enabled(training):
        logits = module(torch.zeros(count, network.channels, *size))
        if training:
            logits.sum().backward()
    return -(-int(ledger.peak) // count)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every tensor made while it is on, for as long as each lives; those of `module` not at all.

    Gradients of the parameters of `module` are dropped as they come, then and later; each counts until it is complete.
    now, peak: bytes that live, and the most of them at once.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in (*module.parameters(), *module.buffers()):
            self._known.add(tensor.untyped_storage())
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_forget)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs `func` and enters what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and (storage := value.untyped_storage()) not in self._known:
                self._known.add(storage)
                weakref.finalize(storage, self._free, storage.nbytes())
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
        return result

    def _free(self, count: int) -> None:
        self.now -= count


def _forget(parameter: Tensor) -> None:
    """Drop a gradient as soon as it is there."""
    parameter.grad = None
