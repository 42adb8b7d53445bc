"""Which image a training sample comes from and which random numbers shape it: a function of (seed, step, i) alone.

Keeps no state, so the position of a training is its step number and the number of workers changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

_ORDER, _SAMPLE = 0, 1
"""First word of every seed sequence: keeps the shuffling apart from the augmentation."""


@dataclass(frozen=True)
class Sampler:
    """Each image once an epoch, in an order drawn anew for every epoch; epochs join without a short batch.

    images: number of training images; batch: samples per step; seed: any non-negative integer.
    """

    images: int
    batch: int
    seed: int

    def image(self, step: int, i: int) -> int:
        """Index of the image behind sample `i` of `step`, both counted from 0."""
        epoch, place = divmod(step * self.batch + i, self.images)
        return int(_order(self.images, self.seed, epoch)[place])

    def generator(self, step: int, i: int) -> np.random.Generator:
        """The random numbers of sample `i` of `step`."""
        return np.random.default_rng((_SAMPLE, self.seed, step, i))


@lru_cache(maxsize=4)
def _order(images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(images)
