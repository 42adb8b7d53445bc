"""Pictures that show how good predictions are: image, truth, prediction and differences, side by side.

Computes no predictions and keeps no numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet
from keepmap.data.masks import read_mask
from keepmap.data.overlay import comparison
from keepmap.data.sinks import write_picture
from keepmap.protocols import Array

_ROWS = 3
_MARGIN = 12
"""Pixels between two rows, in the colour of their own margins."""


def draw_comparisons(triples: Sequence[tuple[Path, Path, Path]], labels: LabelSet, out: Path) -> Path:
    """One PNG with a row for the worst, the median and the best of (image, true mask, predicted mask), best first.

    Ranked by the share of right pixels. Returns `out`. Raises DataError where a file cannot be read.
    """
    ranked = sorted(triples, key=lambda triple: _share_right(triple[1], triple[2], labels), reverse=True)
    picked = sorted({round(i * (len(ranked) - 1) / (_ROWS - 1)) for i in range(_ROWS)})
    rows = []
    for image, truth, prediction in (ranked[i] for i in picked):
        expected, found = (labels.encode(read_mask(file), file) for file in (truth, prediction))
        rows.append(comparison(open_image(image).read(), expected, found, labels))
    width = max(row.shape[1] for row in rows)
    page = np.empty((sum(len(row) + _MARGIN for row in rows), width, 3), np.uint8)
    page[:] = rows[0][0, 0]
    top = 0
    for row in rows:
        page[top : top + len(row), : row.shape[1]] = row
        top += len(row) + _MARGIN
    write_picture(out, page)
    return out


def _share_right(truth: Path, prediction: Path, labels: LabelSet) -> float:
    expected: Array = labels.encode(read_mask(truth), truth)
    found = labels.encode(read_mask(prediction), prediction)
    counted = expected >= 0
    return float((expected == found)[counted].mean()) if counted.any() else 1.0
