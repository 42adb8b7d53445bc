"""A PyTorch network as a function from arrays to arrays, as fast and small as this device allows.

Knows one forward pass, and the same one in bands: not how an image is read, cut into tiles or written, nor what the
classes mean.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from math import ceil, inf
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from keepmap import resources
from keepmap.errors import OptionError
from keepmap.networks.footprint import memory_of
from keepmap.networks.network import Network
from keepmap.networks.score_network import ScoreNetwork
from keepmap.networks.shortage import told_by_level
from keepmap.networks.trace import Step, steps_of
from keepmap.protocols import Array, Output
from keepmap.runtime import stopping
from keepmap.runtime.bands import BandStream
from keepmap.runtime.folding import fold_batch_norms
from keepmap.runtime.fusing import Fused, can_fuse, fused
from keepmap.runtime.outputs import delivered, label_dtype
from keepmap.runtime.winograd import use_winograd

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LESS_MEMORY = "pass a smaller --memory to predict or evaluate, so that smaller tiles are used; or free memory"


class _AsTrained(nn.Module):
    """A network of the user's own: raw values as floats, float32 weights, autocast for bfloat16."""

    def __init__(self, network: nn.Module, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self._device, self._dtype = network, device, dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(self._device, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            logits: Tensor = self.network(x.float())
            return logits


def _mean(network: Any) -> Array:
    """The raw value (C,) that a network normalises to zero; 0 for one that has no normalisation of its own."""
    if isinstance(network, Network):
        return np.asarray(network.mean.detach().cpu().numpy())
    return np.zeros(network.channels, np.float32)


def _stop_between_layers(network: nn.Module) -> None:
    """Let a pass end before the next layer with weights where nobody waits for it; that costs microseconds a layer."""
    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False)):
            module.register_forward_pre_hook(lambda *_: stopping.check())


class TorchRuntime:
    """Runs a private copy of a network in eval mode; safe to share between threads.

    network:   an `nn.Module` that is a Segmenter. Its weights are copied now; later changes to it are not seen. One
               that is no Network computes as it was trained: on floats, in bfloat16 under autocast.
    device:    "auto", "cpu", "cuda" or "mps"; precision: "auto", "float32" or "bfloat16" (see `resources`).
    temperature: what logits are divided by, before they are handed out or become probabilities.
    Raises TypeError naming a layer whose reach or memory is unknown.
    """

    def __init__(
        self, network: Any, *, device: str = "auto", precision: str = "auto", temperature: float = 1.0
    ) -> None:
        self.name = f"PyTorch {torch.__version__}"
        self.temperature = temperature
        self.device = resources.resolve_device(device)
        self.precision = resources.resolve_precision(precision, self.device)
        dtype = _DTYPES[self.precision]
        private = copy.deepcopy(network).eval().requires_grad_(False).float()
        if isinstance(private, Network):
            fold_batch_norms(private).to(self.device, dtype)
            if (self.device, self.precision) == ("cpu", "bfloat16") and not resources.has_matrix_unit():
                use_winograd(private)
        else:
            private = _AsTrained(private, self.device, dtype)
        self._network: nn.Module = private.to(self.device).to(memory_format=torch.channels_last)
        _stop_between_layers(self._network)
        self.channels: int = network.channels
        self.classes: int = network.classes
        self.mean = _mean(network)
        self.stride: int = network.stride
        self.reach: tuple[int, int] = network.reach
        self.local: bool = network.local
        self._steps = self._fused_steps(dtype)
        self._memory = memory_of(network, bytes_per_value=dtype.itemsize)
        self.unstreamable = self._why_not_in_bands()
        """Why an image cannot be computed in bands; "" where it can."""
        self.quick_pass: float = resources.MOST_KEPT if self.device == "cpu" else inf
        """Bytes of a pass from which bands take less time: on a CPU its buffers come from the kernel each time anew."""

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """What labels come in: uint8 up to 256 classes, int16 above."""
        return label_dtype(self.classes)

    def peak_bytes(self, height: int, width: int) -> int:
        """Bytes that one forward pass of one image of (height, width) pixels needs at its peak, about."""
        return self._memory(height, width)

    def band_bytes(self, band: int, width: int) -> int:
        """Bytes that `stream` needs at its peak for bands of so many rows of an image of `width` pixels, about.

        Rows that are held may be the last of a larger array, so they count twice.
        """
        return 2 * ceil(self._held_by_column * width) + 3 * self._memory(band, width)

    def free_memory(self) -> int:
        """Bytes that can still be allocated where the network computes."""
        if self.device == "cuda":
            return int(torch.cuda.mem_get_info()[0])
        return resources.free_memory()

    def run(self, x: Array, output: Output = "labels") -> Array:
        """One forward pass.

        x: (N, C, h, w) raw pixel values, uint8, uint16 or float32, any strides; h, w >= 1.
        Returns labels (N, h, w) in `label_dtype`, or probabilities or logits (N, K, h, w) float32, C-contiguous.
        Raises OutOfMemory where the memory does not suffice.
        """
        with self._told(x.shape), torch.inference_mode():
            return delivered(self._network(self._tensor(x)), output, self.temperature)

    def stream(
        self, size: tuple[int, int], band: int, read: Callable[[slice], Array], output: Output = "labels"
    ) -> Iterator[Array]:
        """One image of `size` (H, W) in bands: rows in order, each (n, W) labels or (K, n, W) values as `run` returns.

        band: rows at a time, a multiple of the stride. read: raw values (C, h, W) of so many rows, asked for in order.
        Raises TypeError with the reason in `unstreamable`.
        """
        if self.unstreamable or not isinstance(self._network, Network):
            raise TypeError(self.unstreamable)
        stream = BandStream(self._network, size, band, self._steps)
        for row in range(0, size[0], band):
            x = read(slice(row, min(row + band, size[0])))[np.newaxis]
            with self._told(x.shape), torch.inference_mode():
                pushed = stream.push(self._tensor(x))
                parts = [delivered(logits, output, self.temperature)[0] for logits in pushed]
            yield from parts

    def _fused_steps(self, dtype: torch.dtype) -> list[Step]:
        """The steps of the core, none of a network of the user's own; on a CPU fused ones, which become its core."""
        if not isinstance(self._network, Network):
            return []
        steps = steps_of(self._network)
        if self.device == "cpu" and can_fuse(steps, dtype):
            steps = fused(steps, self.channels)
            self._network.core = Fused(steps)  # type: ignore[method-assign]
        return steps

    def _why_not_in_bands(self) -> str:
        if not isinstance(self._network, Network):
            return "the layers of a network of your own are not known"
        try:
            BandStream(self._network, (1, 1), self.stride, self._steps)
        except TypeError as error:
            return str(error)
        return ""

    @cached_property
    def _held_by_column(self) -> float:
        """Bytes that are held between two bands for each column of pixels, from a strip of nothing that is streamed."""
        width, band = 2 * self.stride, self.stride
        rows = 2 * sum(self.reach) + 4 * band
        stream = BandStream(cast(Network, self._network), (rows, width), band, self._steps)
        held = 0
        with torch.inference_mode():
            for row in range(0, rows, band):
                strip = np.zeros((1, self.channels, min(band, rows - row), width), np.uint8)
                for _ in stream.push(self._tensor(strip)):
                    pass
                held = max(held, stream.held())
        return held / width

    def check_scores(self) -> ScoreNetwork:
        """The network, if it has a score map before its upsampling, as an FCN has. Raises OptionError."""
        if not isinstance(self._network, ScoreNetwork):
            raise OptionError("This network has no coarse score map.", expected="an FCN, such as --model fcn")
        return self._network

    def scores(self, x: Array) -> Array:
        """The raw score map (N, K, h / s, w / s) float32, s its stride, rounded up; x as in `run`.

        Raises OptionError for a network without one, OutOfMemory as `run` does.
        """
        network = self.check_scores()
        with self._told(x.shape), torch.inference_mode():
            array: Array = network.scores(self._tensor(x)).float().contiguous().cpu().numpy()
            return array

    def _told(self, shape: tuple[int, ...]) -> AbstractContextManager[None]:
        width = torch.finfo(_DTYPES[self.precision]).bits // 8
        network = self._network
        return told_by_level(network, shape, device=self.device, bytes_per_value=width, training=False, do=_LESS_MEMORY)

    def _tensor(self, x: Array) -> Tensor:
        """x on the device, channels_last; only the raw values travel, the network makes them floats."""
        plain = x.flags.writeable and min(x.strides) >= 0
        tensor = torch.from_numpy(x if plain else x.copy())
        if tensor.dtype == torch.uint16 and self.device == "mps":
            tensor = tensor.float()
        return tensor.to(self.device).contiguous(memory_format=torch.channels_last)
