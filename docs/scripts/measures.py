"""What docs/how-it-works.md measures: overlap, boundaries, ripple, reach, and what a trained pixel looks at.

Trains nothing and draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from keepmap.metrics.confusion import ConfusionMatrix
from keepmap.networks.network import Network
from keepmap.protocols import Array

TOLERANCE = 0.0075
"""Share of an image's diagonal within which two boundaries agree. Source: Csurka et al. 2013."""

MET = 1.0
"""Pixels between two outlines that count as one."""

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer[Any]]


def logits(network: Network, image: Array) -> Tensor:
    """(K, H, W) float32 of an image (C, H, W) of raw values."""
    with torch.inference_mode():
        return network(torch.from_numpy(np.ascontiguousarray(image))[None].float())[0]


def predict(network: Network, image: Array) -> Labels:
    """The class (H, W) of each pixel of an image (C, H, W)."""
    return logits(network, image).argmax(0).numpy()


def outline(mask: Mask) -> Mask:
    """The pixels of a mask that touch, along an edge, one that is not in it. The image's border is no outline."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=1))


def boundary(truth: Mask, found: Mask) -> tuple[float, float, float]:
    """(F-score, share met, distance in pixels) of the outline of `found` against that of `truth`, nan if that is empty.

    F-score: of the shares of either outline that lie within TOLERANCE of the other.  Share met: of the true outline,
    with a found one at most MET away.  Distance: mean from the true outline to the nearest found one; where nothing is
    found, a diagonal.
    """
    lines, diagonal = (outline(truth), outline(found)), float(np.hypot(*truth.shape))
    if not lines[0].any():
        return float("nan"), float("nan"), float("nan")
    if not lines[1].any():
        return 0.0, 0.0, diagonal
    away = [ndimage.distance_transform_edt(~line) for line in lines]
    ways = [away[0][lines[1]], away[1][lines[0]]]
    precision, recall = (float((way <= TOLERANCE * diagonal).mean()) for way in ways)
    score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return score, float((ways[1] <= MET).mean()), float(ways[1].mean())


def score(pairs: Iterable[tuple[Labels, Labels]], classes: int) -> dict[str, float]:
    """What and where, of (truth, prediction) pairs in classes 0 (background) to classes - 1.

    iou:      mean IoU over the classes, from all pixels together.   cells: IoU of all but the background, as one class.
    kind:     share of the pixels rightly called cell that have the right kind of cell.
    f, met, away: of the outlines of cells against background (see `boundary`), means over the images.
    """
    matrix, edges = ConfusionMatrix(classes), []
    for truth, found in pairs:
        matrix.add(truth, found)
        edges.append(boundary(truth > 0, found > 0))
    counts = matrix.matrix.astype(float)
    cells, missed = counts[1:, 1:].sum(), counts[0, 1:].sum() + counts[1:, 0].sum()
    mean = matrix.scores().mean_iou
    f, met, away = np.nanmean(edges, axis=0)
    return {
        "iou": float("nan") if mean is None else mean,
        "cells": float(cells / (cells + missed)),
        "kind": float(np.trace(counts[1:, 1:]) / max(cells, 1)),
        "f": float(f),
        "met": float(met),
        "away": float(away),
    }


def through_grid(classes: Labels, count: int, stride: int) -> Labels:
    """Classes (H, W) after the best that a score map at `stride` can hold: shares of each class in each square of the
    grid, enlarged by linear interpolation, the largest wins."""
    height, width = classes.shape
    extra = (0, -width % stride, 0, -height % stride)
    planes = F.one_hot(torch.from_numpy(classes.astype(np.int64)), count).movedim(-1, 0).float()
    shares = F.avg_pool2d(F.pad(planes[None], extra, mode="replicate"), stride)
    whole = F.interpolate(shares, scale_factor=float(stride), mode="bilinear", align_corners=False)
    return whole[0, :, :height, :width].argmax(0).numpy()


def interior(network: Network, colour: Sequence[float], side: int) -> Tensor:
    """Logits (K, side, side) of an image of one colour, so far from its border that nothing but the grid can show."""
    stride, reach = network.stride, max(network.reach)
    margin = -(-reach // stride) * stride
    x = torch.tensor(colour).view(1, -1, 1, 1).expand(1, -1, *[2 * margin + side] * 2)
    with torch.inference_mode():
        return network(x)[0, :, margin : margin + side, margin : margin + side]


def ripple(network: Network, colour: Sequence[float], image: Array, side: int = 64) -> float:
    """The pattern that the upsampling leaves on an image of one colour, as a share of what the network says at all.

    Standard deviation over the pixels of the logits on the constant image, over that of the logits on `image`; both
    root mean squares over the classes. 0 is a flat answer.
    """
    deviations = [values.flatten(1).std(1).square().mean().sqrt() for values in (
        interior(network, colour, side), logits(network, image))]  # fmt: skip
    return float(deviations[0] / deviations[1])


def probed_reach(network: Network) -> tuple[int, int]:
    """(before, after): how far above and below the rows lie that one output row depends on, by poisoning them with NaN.

    One forward pass for each phase of the stride. For networks without layers that see the whole image.
    """
    middle = 4 * max(network.reach) // network.stride * network.stride
    before = after = 0
    for row in range(middle, middle + network.stride):
        x = torch.zeros(1, network.channels, 2 * middle, 2 * network.stride)
        x[:, :, row] = float("nan")
        with torch.inference_mode():
            poisoned = network(x).isnan().any(dim=-1).any(dim=1)[0].nonzero().flatten()
        before, after = max(before, int(poisoned[-1]) - row), max(after, row - int(poisoned[0]))
    return before, after


def influence(network: Network, images: Sequence[Array], radius: int, count: int, seed: int = 0) -> Array:
    """How much each input pixel around an output pixel moves it, (2 radius + 1, ...) float64 that sum to 1.

    Mean over `count` places of the images (C, H, W) of the magnitude, summed over channels, of the gradient of the
    winning logit. Every phase of the stride is as likely as the others. Images too small for the window are left out.
    Source: Luo et al. 2016 (effective receptive field).
    """
    random = np.random.default_rng(seed)
    total = np.zeros((2 * radius + 1,) * 2)
    side = -(-(2 * radius + network.stride + 1) // network.stride) * network.stride
    images = [image for image in images if min(image.shape[1:]) >= side]
    for _ in range(count):
        image = images[random.integers(len(images))]
        top, left = (random.integers(extent - side + 1) for extent in image.shape[1:])
        row, column = radius + random.integers(network.stride, size=2)
        part = np.ascontiguousarray(image[:, top : top + side, left : left + side])
        x = torch.from_numpy(part)[None].float().requires_grad_()
        network(x)[0, :, row, column].max().backward()
        assert x.grad is not None
        gradient = x.grad[0].abs().sum(0).double().numpy()
        total += gradient[row - radius : row + radius + 1, column - radius : column + radius + 1]
    return total / total.sum()


def radius_holding(weights: Array, share: float) -> int:
    """The least r for which the square of 2 r + 1 pixels around the middle of `weights` holds `share` of their sum."""
    middle = len(weights) // 2
    sums = [weights[middle - r : middle + r + 1, middle - r : middle + r + 1].sum() for r in range(middle + 1)]
    return int(np.searchsorted(np.array(sums), share * weights.sum()))
