"""Training batches, drawn ahead of the optimiser by one thread or by several processes.

Batch number `step` depends on the seed and the step alone; who draws it, and how far ahead, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from keepmap.data.augment import Augmentation, training_crop
from keepmap.data.labels import IGNORE_INDEX
from keepmap.data.pipeline import Own, Pipeline, own_crop
from keepmap.data.sampling import Sampler, area_weights, rare_first
from keepmap.data.store import SampleStore
from keepmap.data.weight_map import weight_map
from keepmap.errors import KeepmapError, TrainingError, first_few
from keepmap.planning.plan import Plan
from keepmap.protocols import Array, Progress
from keepmap.training.workers import WorkerDied, Workers

_AHEAD = 2
_MOST_DEATHS = 3
"""Times that workers which died are replaced; then it is no accident."""
_SLOW_SECONDS = 60.0
"""After which a batch that does not come is said."""

Drawn = tuple[npt.NDArray[Any], ...]
"""x, y as int16 and, where there is a weight map, its weights."""


@dataclass(frozen=True)
class Batches:
    """x (N, C, crop, crop) float32 raw values and y (N, crop, crop) int64 of any step, or a share of them.

    store: the decoded training images; crop: side in pixels; own: the user's augmentation, in place of `how`;
    workers: processes that draw, 0 for a thread. share: (r, n) draws every n-th crop of a batch from the r-th on.
    weigh: from the classes and the objects of a crop (None: connected regions) to what its pixels count, see
    `data.weight_map`; without, all count the same.
    """

    store: SampleStore
    sampler: Sampler
    crop: int
    how: Augmentation
    own: Own | None = None
    workers: int = 0
    share: tuple[int, int] = (0, 1)
    weigh: Callable[[Array, Array | None], Array] | None = None

    def files(self, step: int) -> list[str]:
        """The images of `step`, in the order of its crops."""
        return [str(self.store.facts[self.sampler.image(step, i)].image) for i in range(self.sampler.batch)]

    def draw(self, step: int) -> Drawn:
        """Our share of the batch of `step`, classes as int16. Raises KeepmapError that names the file at fault."""
        crops = []
        for i in range(self.share[0], self.sampler.batch, self.share[1]):
            index = self.sampler.image(step, i)
            try:
                crops.append(self._crop(index, step, i))
            except KeepmapError:
                raise
            except Exception as error:
                raise TrainingError(
                    f"{self.store.facts[index].image} cannot be made a crop of.",
                    found=f"{type(error).__name__}: {error}", do="look at the file with keepmap check",
                ) from error  # fmt: skip
        return tuple(np.stack(arrays) for arrays in zip(*crops, strict=True))

    def _crop(self, index: int, step: int, i: int) -> Drawn:
        image, classes = self.store.get(index)
        random, wanted = self.sampler.generator(step, i), self.sampler.wanted(step, i)
        if self.own is not None:
            x, y = own_crop(image, classes, self.crop, self.how, random, self.own, wanted)
            return (x, y) if self.weigh is None else (x, y, self.weigh(y, None))
        objects = None if self.weigh is None else self.store.objects(index)
        if objects is not None:
            objects[classes < 0] = IGNORE_INDEX
        x, y = training_crop(image, classes, self.crop, self.how, random, wanted, objects)
        if self.weigh is None:
            return x, y
        if objects is None:
            return x, y, self.weigh(y, None)
        seen = np.minimum(y, 1).astype(np.int16)
        return x, seen, self.weigh(seen, y)

    def stream(self, first: int, progress: Progress) -> Iterator[tuple[int, *tuple[Tensor, ...]]]:
        """(step, x, y), and the weights if there are any, for every step from `first` on, without end.

        The next ones are drawn while one is in use. A callable of the user's draws from the global generators, and so
        do the steps: without workers it is called between them. A worker that dies is said and replaced. Raises
        TrainingError where that does not help, and what `draw` raises.
        """
        if self.own is not None and not self.workers:
            for step in count(first):
                yield step, *_tensors(self.draw(step))
        ahead = _Ahead(self.draw, first, self.workers)
        deaths = 0
        try:
            for step in count(first):
                while True:
                    try:
                        drawn = self._awaited(ahead.next(), step, progress)
                        break
                    except WorkerDied as error:
                        deaths += 1
                        if deaths > _MOST_DEATHS:
                            raise self._dying(step) from error
                        progress.say(f"note    a process that draws batches died at step {step}; there are new ones")
                        ahead.close()
                        ahead = _Ahead(self.draw, step, self.workers)
                yield step, *_tensors(drawn)
        finally:
            ahead.close()

    def _awaited(self, drawn: Future[Drawn], step: int, progress: Progress) -> Drawn:
        try:
            return drawn.result(_SLOW_SECONDS)
        except TimeoutError:
            progress.say(f"note    still waiting for the batch of step {step}: {first_few(self.files(step))}")
            return drawn.result()

    def _dying(self, step: int) -> TrainingError:
        return TrainingError(
            f"The processes that draw batches died {_MOST_DEATHS + 1} times, the last time at step {step}.",
            found=f"{self.workers} workers; the images of the step are {first_few(self.files(step))}",
            do="is the memory full? pass --workers 0 with --resume, which draws in this process",
        )  # fmt: skip


def planned_batches(
    plan: Plan, stride: int, store: SampleStore, augment: Pipeline | None, share: tuple[int, int] = (0, 1)
) -> Batches:
    """What `plan` says about crops, drawn from `store`. stride: of the network; augment: the user's callable."""
    how = plan.part(Augmentation, fill=plan.mean, padding=min(stride, plan.crop // 2) - 1)
    focus = rare_first(store.facts, store.labels, rate=plan.class_rate)
    weights = area_weights(store.facts, plan.area_power)
    sampler = Sampler(len(store), plan.batch, plan.seed, focus, weights)
    own = None if augment is None else Own(augment, store.labels.count)
    weigh = None
    if plan.border:
        weigh = partial(weight_map, w0=plan.border, sigma=plan.sigma, class_weights=plan.class_weights)
    return Batches(store, sampler, plan.crop, how, own, plan.workers, share, weigh)


def _tensors(drawn: Drawn) -> tuple[Tensor, ...]:
    x, y, *weights = map(torch.from_numpy, drawn)
    return x, y.long(), *weights


class _Ahead:
    """Steps under way: drawn by a thread, or received by it from processes that draw."""

    def __init__(self, draw: Callable[[int], Drawn], first: int, workers: int) -> None:
        self._steps = count(first)
        self._workers = Workers(draw, first, workers) if workers else None
        self._draw = draw if self._workers is None else self._workers.answer
        self._futures: list[Future[Drawn]] = []
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="keepmap-batches")

    def next(self) -> Future[Drawn]:
        """The next step, not awaited."""
        while len(self._futures) <= _AHEAD:
            self._futures.append(self._pool.submit(self._draw, next(self._steps)))
        return self._futures.pop(0)

    def close(self) -> None:
        """Drop what is under way and wait for the end of the thread and the processes."""
        if self._workers is not None:
            self._workers.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
