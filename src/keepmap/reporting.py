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
_PAPER = 255


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
    framed = [np.pad(row, ((0, _MARGIN), (0, width - row.shape[1]), (0, 0)), constant_values=_PAPER) for row in rows]
    write_picture(out, np.concatenate(framed))
    return out


def _share_right(truth: Path, prediction: Path, labels: LabelSet) -> float:
    expected: Array = labels.encode(read_mask(truth), truth)
    found = labels.encode(read_mask(prediction), prediction)
    counted = expected >= 0
    return float((expected == found)[counted].mean()) if counted.any() else 1.0
