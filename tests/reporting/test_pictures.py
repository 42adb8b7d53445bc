"""The comparison picture shows the best, the median and the worst image, best first."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.data.labels import LabelSet
from keepmap.reporting.pictures import draw_comparisons

LABELS = LabelSet(values=(0, 255), names=("background", "b"), ignore=None, colours=((0, 0, 0), (255, 0, 0)))


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (7, 3)])
def test_rows_and_order(count: int, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def remember(image: np.ndarray, truth: np.ndarray, found: np.ndarray, labels: LabelSet) -> np.ndarray:
        shown.append(int((truth != found).sum()))
        return np.zeros((10, 20 + len(shown), 3), np.uint8)

    monkeypatch.setattr("keepmap.reporting.pictures.comparison", remember)
    triples = []
    for index in range(count):
        image, truth, found = (tmp_path / f"{kind}{index}.png" for kind in ("image", "truth", "found"))
        mask = np.zeros((8, 9), np.uint8)
        Image.fromarray(mask).save(truth)
        mask.ravel()[: 3 * index] = 255
        Image.fromarray(mask).save(found)
        Image.fromarray(mask).save(image)
        triples.append((image, truth, found))
    out = draw_comparisons(triples, LABELS, tmp_path / "out.png")
    assert len(shown) == rows
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (0, 3 * (count - 1))
    with Image.open(out) as picture:
        assert picture.height == rows * 22
