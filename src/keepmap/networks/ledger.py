"""Counts the bytes of tensors for as long as each lives: what a network holds, whatever the allocator makes of it.

Sees what torch allocates as tensors; not the scratch memory of its kernels, nor the weights made before it is entered.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on: now, the bytes of the tensors made and still alive; peak, the most of them at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs `func` and enters what it returns, unless it is part of something made before the ledger was on."""
        given = (value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))
        self._known.update(value.untyped_storage() for value in given)
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.untyped_storage() not in self._known:
                storage = value.untyped_storage()
                self._known.add(storage)
                weakref.finalize(storage, self._free, storage.nbytes())
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
        return result

    def _free(self, count: int) -> None:
        self.now -= count
