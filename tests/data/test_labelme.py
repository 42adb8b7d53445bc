"""labelme files: each kind of shape by its pixels, and every shape that is wrong by its number."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepmap.data.labelme import read_labelme
from keepmap.data.regions import paint
from keepmap.errors import DataError

PATH = Path("a.json")
STAMP = np.array([[0, 1], [1, 1]], np.uint8)


def png(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def content(*shapes: dict[str, Any]) -> dict[str, Any]:
    return {"imageHeight": 5, "imageWidth": 6, "shapes": [{"label": "cell"} | shape for shape in shapes]}


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ({"shape_type": "polygon", "points": [[1, 1], [4, 1], [4, 3], [1, 3]]}, ["", ".###", ".###"]),
        ({"points": [[0, 0], [2, 0], [2, 1], [0, 1]]}, ["##"]),
        ({"shape_type": "rectangle", "points": [[4, 3], [1, 1]]}, ["", ".###", ".###"]),
        ({"shape_type": "circle", "points": [[2.5, 1.5], [2.5, 2.6]]}, ["..#", ".###", "..#"]),
        ({"shape_type": "mask", "points": [[3, 1], [4, 2]], "mask": png(STAMP)}, ["", "....#", "...##"]),
        ({"shape_type": "mask", "points": [[3, 1], [4, 2]], "mask": png(STAMP > 0)}, ["", "....#", "...##"]),
    ],
)
def test_shapes(shape: dict[str, Any], rows: list[str]) -> None:
    drawing, flat = read_labelme(PATH, content(shape), "a.png", 10**6)
    assert (drawing.name, drawing.size, flat) == ("a.png", (5, 6), 0)
    expected = [[int(c == "#") for c in row.ljust(6)] for row in [*rows, *[""] * (5 - len(rows))]]
    assert paint(drawing, {"cell": 1})[0].tolist() == expected


def test_points_and_lines_are_counted() -> None:
    shapes = [{"shape_type": kind, "points": [[1, 1]]} for kind in ("point", "line", "linestrip")]
    drawing, flat = read_labelme(PATH, content(*shapes), "a.png", 10**6)
    assert (drawing.regions, flat) == ((), 3)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": ""}, "shape 0 has no label"),
        ({"shape_type": "rectangel", "points": []}, r"(?s)kind that is not read.*did you mean rectangle"),
        ({"shape_type": "circle", "points": [[1, 1]]}, "shape 0 is no circle"),
        ({"shape_type": "rectangle", "points": [[1, 1], [2, 2], [3, 3]]}, "shape 0 is no rectangle"),
        ({"points": [[1, 1], [2, 2]]}, "shape 0 is no polygon"),
        ({"points": [[1, 1, 0], [2, 2, 0], [3, 1, 0], [1, 3, 0]]}, "polygon that cannot be read"),
        ({"shape_type": "circle", "points": [[1, 1], [1e200, 1]]}, "three points or more, none farther than 1e"),
        ({"points": [[1, 1], [2, "x"], [3, 3]]}, "polygon that cannot be read"),
        ({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "eHh4"}, "mask that cannot be decoded"),
        ({"shape_type": "mask", "points": [[1, 1], [2, 2]], "mask": "?"}, "mask that cannot be decoded"),
        ({"shape_type": "mask", "points": [[1, 1], [2, 2]]}, "mask that cannot be decoded"),
    ],
)
def test_shapes_that_are_wrong_are_named(shape: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        paint(read_labelme(PATH, content(shape), "a.png", 10**6)[0], {"cell": 1})
    assert caught.value.summary.startswith("a.json: shape 0")


def test_a_file_without_a_size_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.json does not give the size of its image"):
        read_labelme(PATH, content() | {"imageWidth": None}, "a.png", 10**6)
