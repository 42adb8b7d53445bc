"""The temperature of a trained network: what its logits are divided by, so that its probabilities mean what they say.

Changes no weight and no label. Looks at crops of some held-out images, as large as those of the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from keepmap.data.store import SampleStore
from keepmap.metrics.calibration import Calibration, fit_temperature, tempered
from keepmap.metrics.confusion import ReliabilityBin
from keepmap.metrics.scoring import reliability_of
from keepmap.protocols import Array
from keepmap.runtime.torch_runtime import TorchRuntime

_IMAGES = 12
"""Held-out images that are looked at, evenly among all."""
_SIDE = 224
"""Pixels of the side of what is looked at of each, at most."""
_PIXELS = 2000
"""Of each image, evenly among those that are not ignored: enough for one number, and a fraction of a second to fit."""


def calibrate(runtime: TorchRuntime, store: SampleStore, side: int) -> tuple[float, tuple[ReliabilityBin, ...]]:
    """The temperature that suits the held-out images of `store`, and how reliable probabilities then are there.

    runtime: the trained network, of temperature 1. side: of the crops of the training; the middle of each image is
    looked at, no larger than that. 1.0 and no bins where all pixels are ignored. The same each time: nothing is drawn.
    """
    side = min(side, _SIDE)
    parts = [_sampled(runtime, *store.get(index), side) for index in _spread(len(store), _IMAGES)]
    logits, truth = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    if not len(truth) or not np.isfinite(logits).all():
        return 1.0, ()
    temperature = fit_temperature(logits, truth)
    calibration = Calibration(runtime.classes)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    calibration.add(tempered(exponentials / exponentials.sum(axis=1, keepdims=True), temperature, axis=1).T, truth)
    return temperature, reliability_of(calibration.bins)


def _sampled(runtime: TorchRuntime, image: Array, classes: Array, side: int) -> tuple[Array, Array]:
    """Logits (N, K) and true classes (N) of some pixels of the middle of an image (C, H, W)."""
    rows, columns = (slice((extent - side) // 2 if extent > side else 0, None) for extent in classes.shape)
    crop, truth = image[:, rows, columns][:, :side, :side], classes[rows, columns][:side, :side].reshape(-1)
    values: Any = runtime.run(np.ascontiguousarray(crop)[np.newaxis], "logits")[0]
    known = np.flatnonzero(truth >= 0)
    picked = known[_spread(len(known), _PIXELS)]
    return values.reshape(len(values), -1)[:, picked].T, truth[picked]


def _spread(count: int, most: int) -> Array:
    """At most `most` of the places 0..count-1, evenly."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(np.int64))
