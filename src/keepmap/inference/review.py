"""Which predictions to look at first: the Dice that the probabilities themselves expect of each image.

Knows no truth, and writes no file: `lines` is the table.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np

from keepmap.data.samples import unmeasured
from keepmap.inference.predictor import Predictor
from keepmap.inference.way import Way
from keepmap.metrics.calibration import expected_dice, expected_dice_of_classes, expected_sums
from keepmap.protocols import Array, ArraySink, ArraySource, Tracker, Window

FILE = "review_first.csv"
"""The name of the table, beside the masks."""


@dataclass
class _Sums:
    """An ArraySink of probabilities: keeps their sums, and hands them on. sums: as `expected_sums`."""

    source: ArraySource
    beyond: ArraySink | None
    sums: Array

    def write(self, window: Window, labels: Array) -> None:
        """Probabilities (K, h, w) of a window; what was never measured is not counted."""
        nodata = self.source.nodata
        known = labels if nodata is None else labels[:, ~unmeasured(self.source.read(window), nodata)]
        self.sums += expected_sums(known)
        if self.beyond is not None:
            self.beyond.write(window, labels)


class Reviewer(Predictor):
    """A predictor that remembers, of each image that it predicts from file to file, how well it should have done.

    predictor: the one that computes. Labels are the classes of the highest probabilities. found: file -> sums (K, 3) as
    `expected_sums`.
    """

    def __init__(self, predictor: Predictor) -> None:
        vars(self).update(vars(predictor))
        self.found: dict[str, Array] = {}

    def predict(
        self,
        source: ArraySource,
        sink: ArraySink,
        *,
        probabilities: ArraySink | None = None,
        tracker: Tracker | None = None,
    ) -> Way:
        """As `Predictor.predict`."""
        sums = _Sums(source, probabilities, np.zeros((self.labels.count, 3)))
        way = super().predict(source, sink, probabilities=sums, tracker=tracker)
        self.found[str(source.path)] = sums.sums
        return way

    def lines(self) -> str:
        """The images as CSV, the least expected Dice first: the mean, and each class that was predicted somewhere."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "expected_dice", *(f"expected_dice {name}" for name in self.labels.names)])
        means = {path: expected_dice(sums) for path, sums in self.found.items()}
        for path, mean in sorted(means.items(), key=lambda item: (item[1] is None, item[1] or 0.0, item[0])):
            values = [mean, *expected_dice_of_classes(self.found[path]).tolist()]
            writer.writerow([path, *("" if v is None or np.isnan(v) else f"{v:.4f}" for v in values)])
        return text.getvalue()
