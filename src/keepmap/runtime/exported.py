"""An exported network as a runtime: what ONNX Runtime and OpenVINO have in common.

Knows the manifest and a function from raw values to logits; neither of the two packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any, NoReturn

import numpy as np
import torch

from keepmap import resources
from keepmap.errors import OptionError, OutOfMemory
from keepmap.protocols import Array, Output
from keepmap.runtime.manifest import Manifest
from keepmap.runtime.outputs import delivered, label_dtype

_OUT_OF_MEMORY = ("alloc", "out of memory", "not enough memory")


class ExportedRuntime:
    """Runs an exported network on the CPU; safe to share between threads.

    compute: raw values (N, C, h, w) float32, C-contiguous, to logits (N, K, h, w) float32; safe between threads.
    name:    of what computes, and its version. precision: of its arithmetic.
    share:   its peak as a multiple of what a float32 pass of PyTorch takes.
    """

    unstreamable = "an exported network computes whole images or tiles"
    quick_pass = inf
    device = "cpu"

    def __init__(
        self, manifest: Manifest, compute: Callable[[Array], Array], *, name: str, precision: str, share: float
    ) -> None:
        self.manifest = manifest
        self.name = name
        self.precision = precision
        self.channels = manifest.channels
        self.classes = manifest.labels.count
        self.mean: Array = np.array(manifest.mean, np.float32)
        self.stride = manifest.stride
        self.reach = manifest.reach
        self.local = manifest.local
        self._compute = compute
        self._share = share

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """What labels come in: uint8 up to 256 classes, int16 above."""
        return label_dtype(self.classes)

    def peak_bytes(self, height: int, width: int) -> int:
        """Bytes that one pass of one image of (height, width) pixels needs at its peak, about."""
        return int(self._share * self.manifest.peak_bytes(height, width))

    def band_bytes(self, band: int, width: int) -> int:
        """Never asked for: see `unstreamable`."""
        raise TypeError(self.unstreamable)

    def free_memory(self) -> int:
        """Bytes that can still be allocated."""
        return resources.free_memory()

    def run(self, x: Array, output: Output = "labels") -> Array:
        """One pass, as `TorchRuntime.run`. Raises OutOfMemory."""
        raw = np.ascontiguousarray(x, np.float32)
        try:
            logits = self._compute(raw)
        except Exception as error:
            if not isinstance(error, MemoryError) and not any(word in str(error).lower() for word in _OUT_OF_MEMORY):
                raise
            raise OutOfMemory(
                f"The memory does not suffice for {x.shape[2]} x {x.shape[3]} px in {self.name}.",
                found=str(error).splitlines()[0] if str(error) else "",
                do="pass a smaller --memory to predict or evaluate, so that smaller tiles are used; or free memory",
            ) from error
        return delivered(torch.from_numpy(logits), output)

    def stream(
        self, size: tuple[int, int], band: int, read: Callable[[slice], Array], output: Output = "labels"
    ) -> Iterator[Array]:
        """Raises TypeError with the reason in `unstreamable`."""
        raise TypeError(self.unstreamable)

    def check_scores(self) -> NoReturn:
        """Raise OptionError: a graph ends in logits."""
        raise OptionError(
            "An exported network has no coarse score map.", expected="the RUN of an FCN",
            do="predict with the RUN itself, or leave out --coarse",
        )  # fmt: skip

    def scores(self, x: Array) -> Array:
        """Raises as `check_scores`."""
        self.check_scores()
