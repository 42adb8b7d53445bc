"""What a data set looks like in figures: sizes, intensities, class shares, which way is up.

Reads no file: it is computed from the facts that the scan of the data set collected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keepmap.data.facts import FileFacts
from keepmap.data.glance import Glance
from keepmap.data.labels import LabelSet
from keepmap.planning.recipe import median_frequency

FORMAT = 1
"""Format number of fingerprint.json."""


@dataclass(frozen=True)
class Fingerprint:
    """Figures of a data set. Lengths in pixels, intensities in raw values, shares from 0 to 1.

    heights, widths: smallest, median, largest. value_range: smallest and largest value, for integers those of their
    type. class_shares: of the labelled pixels, by class; image_shares: of the images, those with the class.
    median_frequency: the median of the classes' frequencies over its own, see `recipe.median_frequency`.
    row_offsets: mean row of a class relative to the middle, from -0.5 (top) to 0.5 (bottom).
    brighter: share of the images in which what is not the first class is brighter than the first class.
    looked_at: images of which percentiles (0.5, 50, 99.5 of each channel) and object_sizes (10, 50, 90 of the
    diameters of each class in pixels) are, see `data.glance`.
    """

    images: int
    channels: int
    dtype: str
    heights: tuple[int, int, int]
    widths: tuple[int, int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    value_range: tuple[float, float]
    class_shares: tuple[float, ...]
    image_shares: tuple[float, ...]
    median_frequency: tuple[float, ...]
    row_offsets: tuple[float, ...]
    brighter: float
    looked_at: int = 0
    percentiles: tuple[tuple[float, ...], ...] = ()
    object_sizes: tuple[tuple[float, ...], ...] = ()

    @property
    def large_object(self) -> float:
        """Diameter of a large object, pixels: 90th percentile, median of the classes but the first; 0 if unknown."""
        largest = [sizes[-1] for sizes in self.object_sizes[1:] if sizes]
        return float(np.median(largest)) if largest else 0.0


def fingerprint(facts: Sequence[FileFacts], labels: LabelSet, seen: Glance | None = None) -> Fingerprint:
    """The figures of the images behind `facts`, at least one. seen: what a closer look at some of them showed."""
    heights, widths = [f.height for f in facts], [f.width for f in facts]
    pixels = max(1, sum(f.measured for f in facts))
    mean = np.sum([f.sums for f in facts], axis=0) / pixels
    variance = np.sum([f.squares for f in facts], axis=0) / pixels - mean**2
    pixels_of = np.array([[f.counts.get(value, 0) for value in labels.values] for f in facts], float)
    counts = pixels_of.sum(0)
    return Fingerprint(
        images=len(facts),
        channels=facts[0].channels,
        dtype=facts[0].dtype,
        heights=(min(heights), int(np.median(heights)), max(heights)),
        widths=(min(widths), int(np.median(widths)), max(widths)),
        mean=tuple(float(m) for m in mean),
        deviation=tuple(float(np.sqrt(max(v, 0.0))) for v in variance),
        value_range=_value_range(facts),
        class_shares=tuple(float(s) for s in counts / max(counts.sum(), 1.0)),
        image_shares=tuple(float(share) for share in (pixels_of > 0).mean(0)),
        median_frequency=median_frequency(pixels_of),
        row_offsets=tuple(_row_offset(facts, value) for value in labels.values),
        brighter=_share_brighter(facts, labels),
        looked_at=0 if seen is None else seen.pairs,
        percentiles=() if seen is None else seen.percentiles,
        object_sizes=() if seen is None else seen.diameters,
    )


def _value_range(facts: Sequence[FileFacts]) -> tuple[float, float]:
    dtype = np.dtype(facts[0].dtype)
    if dtype.kind == "f":
        return min(f.low for f in facts), max(f.high for f in facts)
    return 0.0, float(np.iinfo(dtype).max)


def _row_offset(facts: Sequence[FileFacts], value: int) -> float:
    """Mean row of the pixels of `value` over all images, in image heights from the middle; 0 where it is absent."""
    pixels = sum(f.counts.get(value, 0) for f in facts)
    if not pixels:
        return 0.0
    return sum(f.counts.get(value, 0) * f.row_centres.get(value, 0.0) for f in facts) / pixels - 0.5


def _share_brighter(facts: Sequence[FileFacts], labels: LabelSet) -> float:
    votes = []
    for f in facts:
        others = {v: n for v, n in f.counts.items() if v in labels.values[1:] and n}
        if others and f.counts.get(labels.values[0]):
            votes.append(_weighted(f.brightness, others) > f.brightness[labels.values[0]])
    return float(np.mean(votes)) if votes else 1.0


def _weighted(values: Mapping[int, float], weights: Mapping[int, int]) -> float:
    return sum(values[v] * n for v, n in weights.items()) / sum(weights.values())
