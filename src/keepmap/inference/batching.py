"""Several small images of one size in one pass, where that gives the same bits in less time.

Knows arrays; whether it does is tried on the first images of each size and not assumed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from keepmap.errors import OutOfMemory
from keepmap.protocols import Array, Output, Runtime

_PIXELS = 1 << 18
"""Of a batch; a larger pass keeps a machine busy by itself."""
_MOST = 32


class Batches:
    """Passes of images of one size and dtype, alone or together.

    memory_bytes: what a pass may take.
    """

    def __init__(self, runtime: Runtime, output: Output, memory_bytes: int) -> None:
        self._runtime, self._output, self._memory = runtime, output, memory_bytes
        self._together: dict[tuple[int, ...], bool] = {}

    def most(self, height: int, width: int) -> int:
        """How many images of this size may be tried together, at least 1."""
        fit = self._memory // max(1, self._runtime.peak_bytes(height, width))
        return max(1, min(_MOST, _PIXELS // (height * width), fit))

    def run(self, images: Sequence[Array]) -> list[Array]:
        """What `Runtime.run` gives for each of the images (C, h, w), bit for bit; fewer than `most` go one by one.

        Raises OutOfMemory; from then on these go one by one.
        """
        shape = (len(images), *images[0].shape)
        if len(images) < max(2, self.most(*shape[2:])):
            return [self._alone(image) for image in images]
        try:
            if shape not in self._together:
                return self._tried(shape, images)
            return list(self._at_once(images)) if self._together[shape] else [self._alone(image) for image in images]
        except OutOfMemory:
            self._together[shape] = False
            raise

    def _tried(self, shape: tuple[int, ...], images: Sequence[Array]) -> list[Array]:
        """The images one by one, and whether together they would have been the same, sooner."""
        self._alone(images[0])  # the first pass of a size costs more than the others
        self._at_once(images)
        start = time.perf_counter()
        single = [self._alone(image) for image in images]
        middle = time.perf_counter()
        batch = self._at_once(images)
        sooner = time.perf_counter() - middle < middle - start
        self._together[shape] = sooner and all(map(np.array_equal, single, batch))
        return single

    def _alone(self, image: Array) -> Array:
        found: Array = self._runtime.run(image[np.newaxis], self._output)[0]
        return found

    def _at_once(self, images: Sequence[Array]) -> Array:
        return self._runtime.run(np.stack(images), self._output)
