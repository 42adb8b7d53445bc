"""Whether probabilities mean what they say: reliability, calibration error, Brier score, temperature, expected Dice.

Knows probabilities and class indices; not the network that they come from, and stores nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax

from keepmap.metrics.confusion import Indices

BINS = 15
"""Bins of equal width over the confidence 0..1. Source: Guo et al. 2017."""

TEMPERATURES = (0.05, 20.0)
"""The range in which a temperature is looked for; the ends mean that none inside fits better."""

Floats = npt.NDArray[np.floating]


class Calibration:
    """What the probabilities of one image, handed over part by part, say about the truth and about themselves.

    bins:   (BINS, 3) float64: pixels, sum of confidences, right pixels, by the confidence of the winning class.
    brier:  (2) float64: sum over pixels of the squared distance to the truth, pixels.
    expected: (K, 3) float64: pixels in which each class wins, the sum of its probability there, and everywhere.
    """

    def __init__(self, classes: int) -> None:
        self.bins = np.zeros((BINS, 3))
        self.brier = np.zeros(2)
        self.expected = np.zeros((classes, 3))

    def add(self, probabilities: Floats, truth: Indices) -> None:
        """Count a part of the image.

        probabilities: (K, *S), summing to 1 over K. truth: class indices (*S); negative ones are left out of
        everything but `expected`, which does not look at them.
        """
        values = probabilities.reshape(len(probabilities), -1)
        winner, confidence = _winners(values)
        self.expected += _sums(values, winner, confidence)
        flat = truth.reshape(-1)
        known = flat >= 0
        right = (winner == flat)[known]
        place = np.minimum((confidence[known] * BINS).astype(np.int64), BINS - 1)
        for column, weights in ((0, None), (1, confidence[known]), (2, right.astype(np.float64))):
            self.bins[:, column] += np.bincount(place, weights, minlength=BINS)
        at_truth = np.take_along_axis(values, np.where(known, flat, 0)[np.newaxis].astype(np.int64), axis=0)[0]
        squares = np.einsum("kn,kn->n", values, values, dtype=np.float64)
        self.brier += ((squares - 2.0 * at_truth + 1)[known].sum(), known.sum())


def expected_sums(probabilities: Floats) -> npt.NDArray[np.float64]:
    """(K, 3) as `Calibration.expected`, of probabilities (K, *S) alone."""
    values = probabilities.reshape(len(probabilities), -1)
    return _sums(values, *_winners(values))


def _winners(values: Floats) -> tuple[Indices, npt.NDArray[np.float64]]:
    return values.argmax(axis=0), values.max(axis=0, initial=0).astype(np.float64)


def _sums(values: Floats, winner: Indices, confidence: Floats) -> npt.NDArray[np.float64]:
    pixels, inside = (np.bincount(winner, weights, minlength=len(values)) for weights in (None, confidence))
    return np.stack([pixels, inside, values.sum(axis=1, dtype=np.float64)], axis=1)


def calibration_error(bins: Floats) -> npt.NDArray[np.float64]:
    """Mean over pixels of |share of right ones - confidence| of their bin, (...) of bins (..., BINS, 3); NaN if empty.

    Source: Naeini et al. 2015; Guo et al. 2017.
    """
    pixels, confidence, right = np.moveaxis(bins.astype(np.float64), -1, 0)
    total = pixels.sum(axis=-1)
    return np.where(total > 0, np.abs(right - confidence).sum(axis=-1) / np.maximum(total, 1), np.nan)


def expected_dice(sums: Floats) -> float | None:
    """The mean Dice that the probabilities themselves expect of their winning classes; None without pixels.

    sums: (K, 3), `Calibration.expected`. Over the classes that win somewhere.
    """
    values = expected_dice_of_classes(sums)
    return None if np.isnan(values).all() else float(np.nanmean(values))


def expected_dice_of_classes(sums: Floats) -> npt.NDArray[np.float64]:
    """The Dice (K) that the probabilities expect of each class, NaN of one that wins nowhere. sums: (K, 3).

    Of a class: 2 x (its probability, summed where it wins) / (pixels where it wins + its probability, summed
    everywhere), a quotient of expectations.
    """
    pixels, inside, everywhere = np.asarray(sums, np.float64).T
    return np.where(pixels > 0, 2 * inside / np.maximum(pixels + everywhere, 1), np.nan)


def fit_temperature(logits: Floats, truth: Indices) -> float:
    """The T > 0 for which softmax(logits / T) gives the truth the highest likelihood.

    logits: (N, K), or logarithms of probabilities; truth: class indices (N), pixels with negative ones are left out.
    The likelihood is concave in 1 / T, so there is one T; it is cut to TEMPERATURES. Raises ValueError without a pixel.
    Source: Guo et al. 2017.
    """
    known = np.asarray(truth) >= 0
    values = np.asarray(logits, np.float64)[known]
    if not len(values):
        raise ValueError("a temperature needs a pixel that is not ignored")
    values = values - values.max(axis=1, keepdims=True)
    at_truth = values[np.arange(len(values)), np.asarray(truth)[known]].mean()

    def slope(log_inverse: float) -> float:
        """Of the likelihood in 1 / T, its sign turned: expected minus true logit."""
        return float((softmax(values * math.exp(log_inverse), axis=1) * values).sum(axis=1).mean() - at_truth)

    low, high = (-math.log(temperature) for temperature in reversed(TEMPERATURES))
    if slope(low) >= 0:
        return TEMPERATURES[1]
    if slope(high) <= 0:
        return TEMPERATURES[0]
    return math.exp(-brentq(slope, low, high, xtol=1e-9))


def tempered(probabilities: Floats, temperature: float, axis: int = 0) -> npt.NDArray[np.float64]:
    """softmax(log(probabilities) / temperature) over `axis`: what the logits divided by the temperature would give."""
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny)) / temperature
    return np.asarray(np.exp(logits - logsumexp(logits, axis=axis, keepdims=True)))


def rank_correlation(first: Sequence[float | None], second: Sequence[float | None]) -> float | None:
    """Spearman's: of the ranks, equal values sharing theirs; over places known in both. None below 3 or if constant."""
    known = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if len(known) < 3:
        return None
    ranks = [_ranks(np.array(values)) for values in zip(*known, strict=True)]
    deviations = [rank - rank.mean() for rank in ranks]
    scale = math.sqrt(float((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float((deviations[0] * deviations[1]).sum()) / scale if scale > 0 else None


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])
