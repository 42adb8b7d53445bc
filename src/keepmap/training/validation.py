"""Counts of a network under training on the held-out images, by the predictor that users run.

Knows no optimiser and keeps nothing between calls.
"""

from __future__ import annotations

from typing import Any

from keepmap.data.labels import LabelSet
from keepmap.data.store import SampleStore
from keepmap.inference.predictor import Predictor
from keepmap.metrics.tally import Judging, Tally
from keepmap.runtime.torch_runtime import TorchRuntime


def validate(network: Any, store: SampleStore, labels: LabelSet, *, device: str, precision: str) -> Tally:
    """Counts of all pixels of the images in `store`, at their own size. The network is left as it was."""
    predictor = Predictor(TorchRuntime(network, device=device, precision=precision), labels)
    tally = Tally(labels.names, Judging(shapes=False, regions=True))
    for index in range(len(store)):
        image, classes = store.get(index)
        tally.add(store.facts[index].stem, classes, predictor.indices(image))
    return tally
