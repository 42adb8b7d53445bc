"""A label map in its sink: cleaned, measured and outlined as the options say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from keepmap.data.labels import LabelSet, default_colours
from keepmap.inference.finished import IndexView, finish, write_table
from keepmap.inference.jobs import Job
from keepmap.options import PredictOptions
from keepmap.protocols import Geometry

LABELS = LabelSet((0, 7, 300), ("background", "cell", "edge"), None, default_colours(3))


class Source:
    def __init__(self, nodata: float | None = None) -> None:
        self.nodata, self.geometry = nodata, Geometry((0.5, 0.5), "micrometer")

    def read(self, window: object = None) -> np.ndarray:
        return np.zeros((3, 4, 6), np.uint8)


@pytest.fixture
def values() -> np.ndarray:
    """Two cells, one with a hole, a speck of edge and a pixel that was not measured."""
    array = np.zeros((4, 6), np.uint16)
    array[0:3, 0:3] = 7
    array[1, 1] = 0
    array[3, 5] = 7
    array[0, 5] = 300
    array[3, 0] = LABELS.blank
    return array


def test_everything_that_is_asked_for(tmp_path: Path, values: np.ndarray) -> None:
    job = Job(tmp_path / "x.png", tmp_path / "m.png", tmp_path / "o.png", tmp_path / "x.geojson")
    options = PredictOptions(table="t.csv", smallest_object=2, fill_holes=1)
    rows = finish(job, Source(0.0), values, LABELS, options)
    expected = np.zeros((4, 6), np.uint16)
    expected[0:3, 0:3] = 7
    expected[3, 0] = LABELS.blank
    assert np.array_equal(values, expected)
    write_table(tmp_path / "t.csv", rows)
    ground, cell, edge = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert cell == {
        "image": (tmp_path / "x.png").as_posix(), "class": "cell", "value": "7", "area_px": "9",
        "percent": "39.13043478", "area": "2.25", "area_unit": "micrometer^2", "objects": "1", "smallest_px": "9",
        "median_px": "9", "mean_px": "9", "largest_px": "9",
    }  # fmt: skip
    assert (ground["area_px"], ground["objects"], ground["mean_px"]) == ("14", "", "")
    assert (edge["area_px"], edge["objects"], edge["mean_px"]) == ("0", "0", "")
    (feature,) = json.loads((tmp_path / "x.geojson").read_text())["features"]
    assert feature["properties"]["area_px"] == 9
    assert (tmp_path / "o.png").exists()


def test_nothing_is_what_nothing_asked_for(tmp_path: Path, values: np.ndarray) -> None:
    before = values.copy()
    assert finish(Job(tmp_path / "x.png", tmp_path / "m.png"), Source(0.0), values, LABELS, PredictOptions()) == []
    assert np.array_equal(values, before)
    assert not list(tmp_path.iterdir())


def test_indices_are_read_row_by_row(values: np.ndarray) -> None:
    view = IndexView(values, LABELS, LABELS.blank)
    assert view.shape == (4, 6)
    assert view[3].tolist() == [-1, 0, 0, 0, 0, 1]
    assert view[0:1].tolist() == [[1, 1, 1, 0, 0, 2]]
