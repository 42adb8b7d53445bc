"""Runs give the map back, areas have units, and a form that would not fit the memory is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import keepmap
from keepmap.data.labels import LabelSet, default_colours
from keepmap.errors import DataError
from keepmap.serving import answers
from keepmap.serving.answers import class_rows, runs, write_answer
from keepmap.serving.decoding import Decoded
from keepmap.serving.tickets import Ticket
from keepmap.serving.wishes import Wish

maps = arrays.arrays(np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 2))


def decoded(folder: Path, height: int, width: int, **facts: Any) -> Decoded:
    (folder / "pixels").write_bytes(bytes(range(256)) * (height * width * 3 // 256 + 1))
    whole = {
        "kind": "TIFF", "shape": [3, height, width], "dtype": "uint8", "orientation": 1, "nodata": None,
        "spacing": [2.0, 0.5], "unit": "micrometer", "origin": [0, 0], "tags": [], **facts,
    }  # fmt: skip
    return Decoded(folder / "pixels", whole, Ticket())


@settings(max_examples=30, deadline=None)
@given(maps)
def test_runs_give_the_map_back(indices: Any) -> None:
    told = runs(indices)
    np.testing.assert_array_equal(np.repeat(told["indices"], told["lengths"]).reshape(indices.shape), indices)
    assert all(a != b for a, b in zip(told["indices"], told["indices"][1:], strict=False))


def test_rows_have_areas_in_units_and_null_where_there_is_nothing(tmp_path: Path) -> None:
    labels = LabelSet((0, 7, 9), ("background", "a", "b"), None, default_colours(3))
    indices = np.zeros((4, 6), np.int16)
    indices[1:3, 2:4] = 1
    rows = class_rows(indices, decoded(tmp_path, 4, 6), labels)
    assert [(r["pixels"], r["area"], r["area_unit"], r["objects"]) for r in rows] == [
        (20, 20.0, "micrometer^2", 1), (4, 4.0, "micrometer^2", 1), (0, 0.0, "micrometer^2", 0),
    ]  # fmt: skip
    assert rows[2]["mean"] is None and rows[1]["percent"] == pytest.approx(100 * 4 / 24)
    assert json.loads(json.dumps(rows, allow_nan=False)) and rows[0]["ground"]


def test_what_was_not_measured_is_of_no_class(run: Path, tmp_path: Path) -> None:
    predictor = keepmap.load(run, precision="float32")
    source = decoded(tmp_path, 8, 8, nodata=7.0)
    empty = (source.read() == 7).all(axis=0)
    answer = write_answer(predictor, source, tmp_path, Wish("json", "runs"), Ticket(), 10_000)
    told = json.loads(answer.path.read_bytes())
    found = np.repeat(told["runs"]["indices"], told["runs"]["lengths"]).reshape(8, 8)
    np.testing.assert_array_equal(found < 0, empty)


@pytest.mark.parametrize("shapes", ["runs", "polygons"])
def test_a_ragged_mask_is_not_told_in_shapes(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: Any
) -> None:
    predictor, source = keepmap.load(run, precision="float32"), decoded(tmp_path, 8, 8, nodata=7.0)
    monkeypatch.setitem(answers._CHANGES, shapes, 0)
    with pytest.raises(DataError, match=f"too ragged for {shapes}"):
        write_answer(predictor, source, tmp_path, Wish("json", shapes), Ticket(), 10_000)
    assert write_answer(predictor, source, tmp_path, Wish("json"), Ticket(), 10_000).path.exists()


def test_a_form_that_does_not_fit_is_refused(run: Path, tmp_path: Path) -> None:
    predictor = keepmap.load(run, precision="float32")
    for form, most in (("json", 63), ("npy", 127)):
        with pytest.raises(DataError, match="too large for this form"):
            write_answer(predictor, decoded(tmp_path, 8, 8), tmp_path, Wish(form), Ticket(), most)
