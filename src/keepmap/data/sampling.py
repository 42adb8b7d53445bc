"""Which image a training sample comes from, what it is centred on and which random numbers shape it.

A function of (seed, step, i) alone. Keeps no state, so the position of a training is its step number and the number of
workers changes nothing; opens no file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from keepmap.data.facts import FileFacts
from keepmap.data.labels import LabelSet

_ORDER, _SAMPLE, _FOCUS = 0, 1, 2
"""First word of every seed sequence: keeps the shuffling apart from the augmentation."""


@dataclass(frozen=True)
class Focus:
    """What crops around a class are drawn by.

    rate: share of the samples, below 1. chances: of each class, summing to 1. holders: for each class the indices of
    the images that have it; one without any has no chance.
    """

    rate: float
    chances: tuple[float, ...]
    holders: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Each image once an epoch, in an order drawn anew for every epoch; epochs join without a short batch.

    images: number of training images; batch: samples per step; seed: any non-negative integer.
    weights: with them, image i comes weights[i] times an epoch instead: in each epoch that number rounded down or up,
    on average exactly. They are positive and sum to `images`, see `area_weights`.
    focus: with it, exactly its rate of the samples (evenly spread, 1 in 4, say) are crops around a class instead: the
    class is drawn by its chance, the image uniformly from those that have it. The other samples go on through the order
    of all images, so that each comes once in every images / (1 - rate) samples; an epoch, one sample per image, is as
    long as without.
    """

    images: int
    batch: int
    seed: int
    focus: Focus | None = None
    weights: tuple[float, ...] | None = None

    def image(self, step: int, i: int) -> int:
        """Index of the image behind sample `i` of `step`, both counted from 0."""
        return self._drawn(step, i)[0]

    def wanted(self, step: int, i: int) -> int | None:
        """The class that sample `i` of `step` is a crop around, None for a crop of anything."""
        return self._drawn(step, i)[1]

    def generator(self, step: int, i: int) -> np.random.Generator:
        """The random numbers of sample `i` of `step`."""
        return np.random.default_rng((_SAMPLE, self.seed, step, i))

    def _drawn(self, step: int, i: int) -> tuple[int, int | None]:
        sample = step * self.batch + i
        focused = 0
        if self.focus is not None:
            focused, after = (math.floor(n * self.focus.rate) for n in (sample, sample + 1))
            if after > focused:
                random = np.random.default_rng((_FOCUS, self.seed, sample))
                wanted = int(random.choice(len(self.focus.chances), p=self.focus.chances))
                held = self.focus.holders[wanted]
                return held[random.integers(len(held))], wanted
        epoch, place = divmod(sample - focused, self.images)
        return int(_order(self, epoch)[place]), None


def rare_first(facts: Sequence[FileFacts], labels: LabelSet, *, rate: float, power: float = 1.0) -> Focus | None:
    """A Focus by which a class that has a share s of the pixels is drawn in proportion to s^-power.

    facts: of the training images. rate: share of the samples, from 0 to below 1. power: 1 is inverse frequency, 0 is
    every class alike. None where the rate is 0 or no class occurs. Raises ValueError for a rate that cannot be.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"a share of the samples is from 0 to below 1, not {rate}")
    holders = tuple(tuple(i for i, f in enumerate(facts) if f.counts.get(value)) for value in labels.values)
    pixels = [sum(facts[i].counts[value] for i in held) for value, held in zip(labels.values, holders, strict=True)]
    if not rate or not any(pixels):
        return None
    weights = [(count / sum(pixels)) ** -power if count else 0.0 for count in pixels]
    return Focus(rate, tuple(weight / sum(weights) for weight in weights), holders)


def area_weights(facts: Sequence[FileFacts], power: float) -> tuple[float, ...] | None:
    """The `weights` of a Sampler by which an image of area a is drawn in proportion to a^power.

    facts: of the training images. power: 0 is every image alike, 1 every pixel. None where that makes no difference.
    """
    weights = np.array([float(f.height * f.width) for f in facts]) ** power
    if (weights == weights[0]).all():
        return None
    return tuple((weights * (len(facts) / weights.sum())).tolist())


@lru_cache(maxsize=4)
def _order(sampler: Sampler, epoch: int) -> npt.NDArray[np.int64]:
    """The images of an epoch. Weighted ones lie side by side in a random order, each as long as its weight, and every
    point at a whole distance from a random first one picks the image that it lies in."""
    random = np.random.default_rng((_ORDER, sampler.seed, epoch))
    order = random.permutation(sampler.images)
    if sampler.weights is None:
        return order
    ends = np.cumsum(np.array(sampler.weights)[order])
    at = np.searchsorted(ends, np.arange(sampler.images) + random.random(), side="right")
    return random.permutation(order[at.clip(max=sampler.images - 1)])
