"""How far a score would move on another data set of the kind: 95 % intervals by bootstrap over groups of images.

Knows sums per image and functions of their sums; not what they count.

Source: Efron 1979 (bootstrap), percentile intervals; whole groups are drawn, because images of one group are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

DRAWS = 2000
LEVEL = 0.95
_AT_ONCE = 1 << 17
"""Multiplicities held at a time: draws times groups."""

Arrays = Mapping[str, npt.NDArray[np.float64]]
Statistic = Callable[[Arrays], npt.NDArray[np.float64]]
"""From sums (draws, ...) of each array to scores (draws, ...); NaN where a score is n/a."""


def group_sums(counts: Arrays, groups: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Arrays (images, ...) summed to (groups, ...), groups in the order of their names."""
    names, place = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    sums = {}
    for name, values in counts.items():
        sums[name] = np.zeros((len(names), *values.shape[1:]))
        np.add.at(sums[name], place, values)
    return sums


def draw(groups: int, draws: int = DRAWS, seed: int = 0) -> Iterator[npt.NDArray[np.float64]]:
    """How often each group occurs in each of `draws` samples with replacement, some draws (d, groups) at a time."""
    random = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // groups)
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        yield random.multinomial(groups, np.full(groups, 1 / groups), size=size).astype(np.float64)


def resample(sums: Arrays, statistic: Statistic, draws: int = DRAWS, seed: int = 0) -> npt.NDArray[np.float64]:
    """Scores (draws, ...) of `draws` data sets of as many groups; sums: (groups, ...) arrays.

    The same seed and number of groups draw the same groups, which makes the scores of two sources pairs.
    """
    groups = len(next(iter(sums.values())))
    parts = []
    for times in draw(groups, draws, seed):
        flat = {name: times @ values.reshape(groups, -1) for name, values in sums.items()}
        parts.append(statistic({name: flat[name].reshape(-1, *sums[name].shape[1:]) for name in sums}))
    return np.concatenate(parts)


def interval(scores: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The middle 95 % of drawn scores (draws), NaN left out; None where more than one in twenty is NaN."""
    known = scores[~np.isnan(scores)]
    if len(known) < LEVEL * len(scores):
        return None
    low, high = np.quantile(known, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
