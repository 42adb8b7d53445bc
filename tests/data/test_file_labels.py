"""Masks alone say what a scan of the pairs would say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.data.file_labels import find_file_labels
from keepmap.data.scan import scan
from keepmap.errors import DataError
from keepmap.protocols import Silent

RNG = np.random.default_rng(0)


def squares(count: int) -> np.ndarray:
    values = np.zeros((12, 120), np.uint8)
    for number in range(count):
        values[2:6, 5 * number : 5 * number + 3] = number + 1
    return values


def blocks(colours: list[tuple[int, int, int]]) -> np.ndarray:
    return np.array(colours, np.uint8)[RNG.integers(0, len(colours), (4, 40)).repeat(3, 0).repeat(3, 1)]


MASKS = {
    "numbers": [RNG.integers(0, 3, (12, 120), dtype=np.uint8) for _ in range(3)],
    "colours": [blocks([(0, 0, 0), (255, 0, 0), (255, 255, 255)]) for _ in range(3)],
    "objects": [squares(24), squares(21), squares(2)],
}


@pytest.mark.parametrize("kind", MASKS)
def test_as_a_scan_says(kind: str, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, mask in enumerate(MASKS[kind]):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
        image = RNG.integers(0, 256, mask.shape[:2], dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
    report = scan(tmp_path / "images", tmp_path / "masks", class_names=None, ignore="auto", progress=Silent())
    paths = sorted((tmp_path / "masks").iterdir())
    found = find_file_labels(paths, class_names=None, ignore="auto", instances="auto", progress=Silent())
    assert not report.findings
    assert found == (report.labels, report.labels_sentence)
    assert found[0].instances is (kind == "objects")


def test_one_mask_of_other_values_among_binary_ones_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path, values in zip(paths, ([0, 255], [0, 1, 2], [255, 0]), strict=True):
        Image.fromarray(np.array([values], np.uint8)).save(path)
    with pytest.raises(DataError, match=r"b\.png contains 2 values that are no labels"):
        find_file_labels(paths, class_names=None, ignore="auto", instances="auto", progress=Silent())
    assert find_file_labels(paths, class_names=None, ignore="255", instances="auto", progress=Silent())[0].count == 3


def test_no_rule(tmp_path: Path) -> None:
    Image.fromarray(np.array([[3, 90]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="fit no rule"):
        find_file_labels([tmp_path / "m.png"], class_names=None, ignore="auto", instances="auto", progress=Silent())
