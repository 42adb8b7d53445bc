"""Counts of a network under training on the held-out images, by the predictor that users run.

Knows no optimiser and keeps nothing between calls.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from keepmap.data.labels import LabelSet
from keepmap.data.overlay import comparison
from keepmap.data.store import SampleStore
from keepmap.inference.predictor import Predictor
from keepmap.metrics.tally import Judging, Tally, dealt
from keepmap.protocols import Array
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training.ranks import Ranks

Item = TypeVar("Item")
_SHOWN = 3
"""Held-out images that are drawn."""
_FEWEST = 8


def spread(held_out: Sequence[Item], count: int) -> Sequence[Item]:
    """`count` of the held-out images, by equal steps through all of them; 0, or as many as there are: all."""
    whole = len(held_out)
    return [held_out[i * whole // count] for i in range(count)] if 0 < count < whole else held_out


def clearly_better(before: Sequence[float | None], now: Sequence[float | None]) -> bool:
    """Whether the held-out images were scored better `before` than chance explains, by the mean IoU of each.

    That is by two standard errors of the mean difference; fewer than eight images cannot say, nor can none `before`.
    """
    gains = [old - new for old, new in zip(before, now, strict=False) if old is not None and new is not None]
    if len(gains) < _FEWEST:
        return False
    return statistics.fmean(gains) > 2 * statistics.stdev(gains) / math.sqrt(len(gains))


def draw_held_out(
    network: Any, store: SampleStore, labels: LabelSet, *, device: str, precision: str
) -> Iterator[tuple[str, Array]]:
    """(stem, (H, W, 3) uint8) of the first three images in `store`: image, truth, prediction and differences."""
    predictor = Predictor(TorchRuntime(network, device=device, precision=precision), labels)
    for index in range(min(_SHOWN, len(store))):
        image, classes = store.get(index)
        yield store.facts[index].stem, comparison(image, classes, predictor.indices(image), labels)


def validate(
    network: Any,
    store: SampleStore,
    labels: LabelSet,
    *,
    device: str,
    precision: str,
    ranks: Ranks = Ranks(),  # noqa: B008
) -> Tally:
    """Counts of all pixels of the images in `store`, at their own size. The network is left as it was.

    ranks: processes that call it together; each predicts some of the images, and all get the counts of all.
    """
    predictor = Predictor(TorchRuntime(network, device=device, precision=precision), labels)
    tally = Tally(labels.names, Judging(shapes=False, regions=True))
    for index in range(ranks.rank, len(store), ranks.size):
        image, classes = store.get(index)
        tally.add(store.facts[index].stem, classes, predictor.indices(image))
    return dealt(ranks.gathered(tally))
