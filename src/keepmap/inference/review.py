"""Which predictions to look at first: the Dice that the probabilities themselves expect of each image.

Knows no truth, and writes no file: `review_lines` is the table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keepmap.data.samples import unmeasured
from keepmap.metrics.calibration import expected_dice, expected_dice_of_classes, expected_sums
from keepmap.protocols import Array, ArraySink, ArraySource, Window

FILE = "review_first.csv"
"""The name of the table, beside the masks."""


class Sums:
    """An ArraySink of probabilities: keeps their sums, and hands them on. sums: as `expected_sums`.

    source: the image; what was never measured in it is not counted. beyond: where the probabilities go. begun: the sums
    so far, of an image that was stopped on its way.
    """

    def __init__(self, source: ArraySource, classes: int, beyond: ArraySink | None, begun: Any = None) -> None:
        self.sums: Array = np.zeros((classes, 3)) if begun is None else np.array(begun, np.float64)
        self._source, self._beyond = source, beyond

    def write(self, window: Window, labels: Array) -> None:
        """Probabilities (K, h, w) of a window."""
        nodata = self._source.nodata
        known = labels if nodata is None else labels[:, ~unmeasured(self._source.read(window), nodata)]
        self.sums += expected_sums(known)
        if self._beyond is not None:
            self._beyond.write(window, labels)


def review_lines(found: Mapping[str, Array], names: Sequence[str]) -> str:
    """Images as CSV, the least expected Dice first: the mean, and each class that was predicted somewhere.

    found: file -> sums (K, 3) as `expected_sums`. names: of the classes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "expected_dice", *(f"expected_dice {name}" for name in names)])
    means = {path: expected_dice(sums) for path, sums in found.items()}
    for path, mean in sorted(means.items(), key=lambda item: (item[1] is None, item[1] or 0.0, item[0])):
        values = [mean, *expected_dice_of_classes(found[path]).tolist()]
        writer.writerow([path, *("" if v is None or np.isnan(v) else f"{v:.4f}" for v in values)])
    return text.getvalue()
