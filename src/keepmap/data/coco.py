"""COCO annotation files: images, categories, and regions as polygons or run lengths.

Written after the data format page of cocodataset.org. Does not paint (`regions` does) and opens no image. A region of a
crowd belongs to its category like any other; boxes without an outline are no regions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from keepmap.data.regions import Drawing, Inside, Region, decode_runs, fill_polygon, fill_runs
from keepmap.errors import DataError

_FARTHEST = 1e9
"""Pixels from the image at which a point is no point any more."""


def read_coco(path: Path, content: Mapping[str, Any]) -> tuple[list[Drawing], list[str], int]:
    """The drawings in the order of the images, the category names by their ids, and how many objects have no outline.

    path: for messages. content: the file as JSON. Raises DataError naming the entry that is wrong.
    """
    names: dict[int, str] = {}
    for entry in _get(content, "categories", list, str(path)):
        number, name = _get(entry, "id", int, f"{path}: a category"), _get(entry, "name", str, f"{path}: a category")
        if names.setdefault(number, name) != name:
            raise DataError(
                f"{path} gives the category id {number} twice.", found=f"{names[number]} and {name}",
                expected="one name an id",
            )  # fmt: skip
    regions: dict[int, list[Region]] = defaultdict(list)
    boxes = 0
    for number, entry in enumerate(_get(content, "annotations", list, str(path))):
        where = f"{path}: annotation {entry.get('id', number) if isinstance(entry, dict) else number}"
        category = _get(entry, "category_id", int, where)
        if category not in names:
            raise DataError(
                f"{where} has a category that is not listed.", found=str(category), expected=str(sorted(names))
            )
        if not entry.get("segmentation"):
            boxes += 1
            continue
        fill = partial(_fill, entry["segmentation"], where)
        regions[_get(entry, "image_id", int, where)].append(Region(names[category], fill))
    drawings = {}
    for entry in _get(content, "images", list, str(path)):
        where = f"{path}: image {entry.get('file_name') if isinstance(entry, dict) else entry}"
        size = _get(entry, "height", int, where), _get(entry, "width", int, where)
        number = _get(entry, "id", int, where)
        if number in drawings:
            raise DataError(f"{where} has an id that another image has.", found=str(number), expected="one image an id")
        name = _safe(_get(entry, "file_name", str, where), where)
        drawings[number] = Drawing(name, size, tuple(regions.pop(number, ())))
    if regions:
        raise DataError(
            f"{path} has annotations for images that it does not list.", found=f"image ids {sorted(regions)[:5]}"
        )
    return list(drawings.values()), [names[number] for number in sorted(names)], boxes


def _get(entry: Any, name: str, kind: type, where: str) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where} has no usable {name}.", found=repr(value)[:60], expected=kind.__name__)
    return value


def _safe(name: str, where: str) -> str:
    """A file name that stays in its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in name:
        raise DataError(f"{where} has a file name that leads out of its folder.", found=name, expected="relative path")
    return str(path)


def _fill(segmentation: Any, where: str, size: tuple[int, int]) -> Sequence[Inside]:
    if isinstance(segmentation, list):
        return [fill_polygon(polygon_points(flat, where), size) for flat in segmentation]
    runs = segmentation if isinstance(segmentation, dict) else {}
    counts, extent = runs.get("counts"), runs.get("size")
    if extent != list(size):
        raise DataError(f"{where} has another size than its image.", found=str(extent), expected=str(list(size)))
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        return [fill_runs(counts, size, where)]
    if isinstance(counts, str):
        return [fill_runs(decode_runs(counts, where), size, where)]
    raise DataError(f"{where} has a segmentation that cannot be read.", found=repr(counts)[:60],
                    expected="polygons, or counts as a list or a string")  # fmt: skip


def polygon_points(flat: Any, where: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Corners (n, 2) of x and y from [x, y, x, y, ...] or [[x, y], ...].

    Raises DataError for fewer than three, and for one that is a billion pixels away.
    """
    try:
        numbers = np.asarray(flat, np.float64)
        points = numbers.reshape((-1, 2) if numbers.ndim == 1 else (len(numbers), 2))
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} has a polygon that cannot be read.", found=repr(flat)[:60]) from error
    if len(points) < 3 or not (np.abs(points) <= _FARTHEST).all():
        raise DataError(
            f"{where} has a polygon that is none.", found=repr(flat)[:60],
            expected=f"three points or more, none farther than {_FARTHEST:.0e} px",
        )  # fmt: skip
    return points
