"""COCO files: drawings in the order of the images, and every entry that is wrong by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepmap.data.coco import read_coco
from keepmap.data.regions import paint
from keepmap.errors import DataError

PATH = Path("coco.json")
IMAGES = [
    {"id": 7, "file_name": "b.jpg", "height": 4, "width": 5},
    {"id": 3, "file_name": "x/a.jpg", "height": 2, "width": 2},
]
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 2, "name": "cat"}]
SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    plain = {"image_id": 7, "category_id": 2, "iscrowd": 0}
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": [plain | a for a in annotations]}


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        [[1, 1, 2, 1, 2, 3, 1, 3], [2, 1, 3, 1, 3, 3, 2, 3]],
        [SQUARE, SQUARE],
        {"size": [4, 5], "counts": [5, 2, 2, 2, 9]},
        {"size": [4, 5], "counts": "52207"},
    ],
)
def test_polygons_and_run_lengths_give_the_same_pixels(segmentation: object) -> None:
    drawings, names, boxes = read_coco(PATH, content({"segmentation": segmentation}))
    assert (names, boxes) == (["cat", "dog"], 0)
    assert [(d.name, d.size) for d in drawings] == [("b.jpg", (4, 5)), ("x/a.jpg", (2, 2))]
    painted, disputed = paint(drawings[0], {"cat": 1, "dog": 2})
    expected = np.zeros((4, 5), int)
    expected[1:3, 1:3] = 1
    assert np.array_equal(painted, expected)
    assert disputed == 0
    assert not paint(drawings[1], {})[0].any()


def test_crowds_are_regions_and_boxes_are_none() -> None:
    crowd = {"segmentation": {"size": [4, 5], "counts": [0, 20]}, "iscrowd": 1, "category_id": 18}
    drawings, _, boxes = read_coco(PATH, content(crowd, {"bbox": [0, 0, 2, 2]}, {"segmentation": []}))
    assert boxes == 2
    assert (paint(drawings[0], {"dog": 2})[0] == 2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "has no usable annotations"),
        ({"categories": [{"id": "2", "name": "cat"}]}, "a category has no usable id"),
        ({"categories": [*CATEGORIES, {"id": 18, "name": "cow"}]}, "gives the category id 18 twice"),
        ({"images": [IMAGES[0] | {"file_name": "b\0.jpg"}]}, "leads out of its folder"),
        ({"images": [*IMAGES, IMAGES[0]]}, "image b.jpg has an id that another image has"),
        ({"images": IMAGES[1:]}, "annotations for images that it does not list"),
        ({"images": [IMAGES[0] | {"width": True}]}, "image b.jpg has no usable width"),
        ({"images": [IMAGES[0] | {"file_name": "../b.jpg"}]}, "leads out of its folder"),
        ({"images": [IMAGES[0] | {"file_name": "C:\\..\\b.jpg"}]}, "leads out of its folder"),
        ({"images": [IMAGES[0] | {"file_name": "/b.jpg"}]}, "leads out of its folder"),
        ({"annotations": [{"id": 5, "image_id": 7, "category_id": 1, "segmentation": [SQUARE]}]},
         "annotation 5 has a category that is not listed"),
        ({"annotations": ["x"]}, "annotation 0 has no usable category_id"),
    ],
)  # fmt: skip
def test_entries_that_are_wrong_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_coco(PATH, content({"id": 1, "segmentation": [SQUARE]}) | change)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 2, 2]], "annotation 4 has a polygon that is none"),
        ([[1, 1, 2, 2, 3]], "annotation 4 has a polygon that cannot be read"),
        ([["a", 1, 2, 2, 3, 3]], "cannot be read"),
        ([[1, 1, 2, float("nan"), 3, 3]], "polygon that is none"),
        ({"size": [5, 4], "counts": [20]}, "annotation 4 has another size than its image"),
        ({"size": [4, 5], "counts": 20}, "segmentation that cannot be read"),
        ({"size": [4, 5], "counts": [19]}, "do not fill the image"),
        ({"size": [4, 5], "counts": [2**63 - 1, 2**63 - 1, 22]}, "do not fill the image"),
        ({"size": [4, 5], "counts": [10**30]}, "do not fill the image"),
        ([[-1e308, 1, 1e308, 1, 2, 1e308]], "polygon that is none"),
        ("x", "annotation 4 has another size"),
    ],
)
def test_segmentations_that_are_wrong_are_named(segmentation: object, message: str) -> None:
    drawings, _, _ = read_coco(PATH, content({"id": 4, "segmentation": segmentation}))
    with pytest.raises(DataError, match=rf"coco\.json: .*{message}"):
        paint(drawings[0], {"cat": 1})
