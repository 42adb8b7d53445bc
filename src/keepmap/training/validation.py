"""Scores of a network under training on the held-out images, by the predictor that users run.

Knows no optimiser and keeps nothing between calls.
"""

from __future__ import annotations

from typing import Any

from keepmap.data.labels import LabelSet
from keepmap.data.store import SampleStore
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import ConfusionMatrix, Scores
from keepmap.runtime.torch_runtime import TorchRuntime


def validate(network: Any, store: SampleStore, labels: LabelSet, *, device: str, precision: str) -> Scores:
    """Scores over all pixels of the images in `store`, at their own size. The network is left as it was."""
    predictor = Predictor(TorchRuntime(network, device=device, precision=precision), labels)
    matrix = ConfusionMatrix(labels.count)
    for index in range(len(store)):
        image, classes = store.get(index)
        matrix.add(classes, predictor.indices(image))
    return matrix.scores(labels.names)
