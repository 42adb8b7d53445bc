"""labelme annotation files: one JSON file for each image, with labelled shapes.

Does not paint (`regions` does), and looks neither at the image nor at its copy inside the file. Points, lines and line
strips cover no pixels and are left out.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from keepmap.data.coco import polygon_points
from keepmap.data.headers import require_pixels
from keepmap.data.regions import Drawing, Inside, Region, fill_disc, fill_polygon, fill_stamp
from keepmap.errors import DataError, KeepmapError, nearest

BACKGROUND, IGNORED = "_background_", "__ignore__"
"""labelme's own names for what is no class."""

_FLAT = ("point", "points", "line", "linestrip")
_CORNERS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}


def read_labelme(path: Path, content: Mapping[str, Any], name: str, limit: int) -> tuple[Drawing, int]:
    """The drawing of one file, and how many of its shapes cover no pixels.

    path: for messages. content: the file as JSON. name: of the image. limit: most
    pixels of a shape that is a mask. Raises DataError naming the shape that is wrong.
    """
    size = content.get("imageHeight"), content.get("imageWidth")
    if not all(type(length) is int and length > 0 for length in size):
        raise DataError(
            f"{path} does not give the size of its image.", found=f"imageHeight {size[0]}, imageWidth {size[1]}",
            expected="whole numbers", do="open and save it with labelme",
        )
    regions, flat = [], 0
    for number, shape in enumerate(content["shapes"]):
        where = f"{path}: shape {number}"
        kind, label = (shape.get(key) for key in ("shape_type", "label")) if isinstance(shape, dict) else (None, None)
        kind = "polygon" if kind is None else kind  # as in files before shapes had a type
        if not isinstance(label, str) or not label:
            raise DataError(f"{where} has no label.", found=repr(label))
        if kind in _FLAT:
            flat += 1
        elif kind in _CORNERS:
            regions.append(Region(label, partial(_fill, kind, shape, where, limit)))
        else:
            raise DataError(f"{where} is of a kind that is not read.", found=repr(kind),
                            expected=nearest(str(kind), (*_CORNERS, *_FLAT)))  # fmt: skip
    return Drawing(name, (int(size[0] or 0), int(size[1] or 0)), tuple(regions)), flat


def _fill(
    kind: str, shape: Mapping[str, Any], where: str, limit: int, size: tuple[int, int]
) -> Sequence[Inside]:
    points = shape.get("points")
    if not isinstance(points, list) or len(points) < _CORNERS[kind] or (kind != "polygon" and len(points) != 2):
        raise DataError(f"{where} is no {kind}.", found=f"points {points!r:.60}", expected=f"{_CORNERS[kind]} points")
    if kind == "polygon":
        return [fill_polygon(polygon_points(points, where), size)]
    (left, top), (right, bottom) = polygon_points([*points, [0, 0]], where)[:2].tolist()
    if kind == "rectangle":
        return [fill_polygon(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), size)]
    if kind == "circle":
        return [fill_disc((left, top), float(np.hypot(right - left, bottom - top)), size)]
    return [fill_stamp(_decode(shape.get("mask"), where, limit), (round(left), round(top)), size)]


def _decode(text: Any, where: str, limit: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The pixels of a shape that is a mask: a PNG file in base64."""
    try:
        with PngImageFile(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            require_pixels(Path(where), image.height, image.width, limit)
            inside: np.ndarray[Any, np.dtype[np.bool_]] = np.asarray(image.convert("L")) != 0
            return inside
    except (KeepmapError, MemoryError):
        raise
    except (TypeError, binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{where} has a mask that cannot be decoded.", found=str(error), expected="PNG in base64"
        ) from error
