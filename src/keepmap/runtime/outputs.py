"""Logits as labels, probabilities or logits in arrays: the last step of every runtime.

Does not know what computed them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from keepmap.protocols import Array, Output

_ARGMAX_BYTES = 8 << 20
"""Size of the 8-byte indices that are made at a time, before they become labels of one or two bytes."""


def label_dtype(classes: int) -> np.dtype[Any]:
    """What labels come in: uint8 up to 256 classes, int16 above."""
    return np.dtype(np.uint8) if classes <= 256 else np.dtype(np.int16)


def delivered(logits: Tensor, output: Output, temperature: float = 1.0) -> Array:
    """What `Runtime.run` returns for logits (N, K, h, w), on any device: labels (N, h, w), or values float32.

    temperature: what the logits are divided by; the labels stay what they are, and are the classes of the highest
    probabilities.
    """
    if output == "labels":
        return _labels(logits).numpy()
    values = logits.float() if temperature == 1.0 else logits.float() / temperature
    values = _probabilities(values) if output == "probabilities" else values
    array: Array = values.contiguous().cpu().numpy()
    return array


def _probabilities(logits: Tensor) -> Tensor:
    """Softmax; where rounding makes the highest logit equal to others, its probability is the next float above."""
    values, best = logits.softmax(dim=1), logits.max(dim=1, keepdim=True).indices
    equal = values.max(dim=1, keepdim=True).indices != best
    if not equal.any():
        return values
    highest = values.gather(1, best)
    return values.scatter(1, best, torch.where(equal, highest.nextafter(torch.full_like(highest, 2)), highest))


def _labels(logits: Tensor) -> Tensor:
    """The class of the highest logit, (N, h, w) on the CPU, in bands of rows on the device; NaN is the highest.

    Torch's `max` finds it in a forty-eighth of the time of its `argmax` where a class's values lie side by side. Two
    classes are compared, by NumPy where it can: torch's threads go on turning and hold up those that compute next.
    """
    count, classes, height, width = logits.shape
    if classes == 2:
        first, second = logits.unbind(1)
        if logits.device.type == "cpu" and logits.dtype == torch.float32:
            one, two = first.numpy(), second.numpy()
            return torch.from_numpy((~(two <= one) & ~np.isnan(one)).view(np.uint8))
        return ((second <= first).logical_not_() & ~first.isnan()).to(torch.uint8).cpu()
    dtype = torch.uint8 if classes <= 256 else torch.int16
    labels = torch.empty((count, height, width), dtype=dtype, device=logits.device)
    band = max(1, _ARGMAX_BYTES // (8 * count * width))
    for row in range(0, height, band):
        labels[:, row : row + band] = logits[:, :, row : row + band].max(dim=1).indices
    return labels.cpu()
