"""Training batches, drawn ahead of the optimiser by one thread.

Batch number `step` depends on the seed and the step alone; how far the thread is ahead changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keepmap.data.augment import Augmentation, training_crop
from keepmap.data.pipeline import Own, own_crop
from keepmap.data.sampling import Sampler
from keepmap.data.store import SampleStore

_AHEAD = 2


@dataclass(frozen=True)
class Batches:
    """x (N, C, crop, crop) float32 raw values and y (N, crop, crop) int64 of any step.

    store: the decoded training images; crop: side in pixels; own: the user's augmentation, in place of `how`.
    """

    store: SampleStore
    sampler: Sampler
    crop: int
    how: Augmentation
    own: Own | None = None

    def draw(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of `step`."""
        xs, ys = [], []
        for i in range(self.sampler.batch):
            x, y = self._crop(step, i)
            xs.append(x)
            ys.append(y)
        return torch.from_numpy(np.stack(xs)), torch.from_numpy(np.stack(ys)).long()

    def _crop(self, step: int, i: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
        image, classes = self.store.get(self.sampler.image(step, i))
        random, wanted = self.sampler.generator(step, i), self.sampler.wanted(step, i)
        if self.own is None:
            return training_crop(image, classes, self.crop, self.how, random, wanted)
        return own_crop(image, classes, self.crop, self.how, random, self.own, wanted)

    def stream(self, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(step, x, y) for every step from `first` on, without end, the next ones drawn while one is in use.

        A callable of the user's is called between the steps: it draws from the global generators, and so do they.
        """
        if self.own is not None:
            yield from ((step, *self.draw(step)) for step in count(first))
        with ThreadPoolExecutor(1, thread_name_prefix="keepmap-batches") as pool:
            ahead: list[Future[tuple[Tensor, Tensor]]] = []
            try:
                for step in count(first):
                    while len(ahead) <= _AHEAD:
                        ahead.append(pool.submit(self.draw, step + len(ahead)))
                    x, y = ahead.pop(0).result()
                    yield step, x, y
            finally:
                for future in ahead:
                    future.cancel()
