"""Where the pixels of an image lie, by what its file says: in a coordinate system on the Earth, or in pixels only.

Reads the GeoTIFF tags that `tiff_tags` hands on; transforms no coordinates from one system to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keepmap.data.tiff_tags import METRES
from keepmap.protocols import Array, Geometry

_SCALE, _TIEPOINT, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED, _LENGTH = 1025, 2048, 3072, 3076
_POINT, _USER_DEFINED, _METRE = 2, 32767, 9001
_FARTHEST = 1e100
"""No coordinate is as large; areas of such pixels are no numbers any more."""
_IN_PIXELS = "pixels of the image: x to the right, y down, from its upper left corner"


@dataclass(frozen=True)
class Place:
    """From pixels to coordinates.

    matrix: (2, 3), takes (x, y, 1) in pixels from the upper left corner of the image to coordinates.
    crs: the name of their system, "urn:ogc:def:crs:EPSG::32632"; "" where there is none or it has no EPSG number.
    text: what they are, for people. pixel_area: of one pixel in `area_unit`, None where the file does not tell.
    """

    matrix: npt.NDArray[np.float64] | None
    crs: str
    text: str
    pixel_area: float | None
    area_unit: str

    @property
    def mirrored(self) -> bool:
        """Whether what turns clockwise in pixel numbers turns the other way in coordinates."""
        return self.matrix is not None and _determinant(self.matrix) < 0

    def area_of(self, pixels: int) -> float | None:
        """The area of so many pixels in `area_unit`; None where the file does not tell."""
        return None if self.pixel_area is None else pixels * self.pixel_area

    def apply(self, points: Array) -> Array:
        """Coordinates (n, 2) of points (n, 2) in pixels; as they are where there are none."""
        if self.matrix is None:
            return points
        moved: Array = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return moved


def place_of(geometry: Geometry) -> Place:
    """What `geometry` says of where the pixels lie. Sources: GeoTIFF (OGC 19-008r4), 7.1 and annex B."""
    area, unit = None, ""
    if geometry.spacing is not None and geometry.unit in METRES:
        area, unit = geometry.spacing[0] * geometry.spacing[1], f"{geometry.unit}^2"
    keys = _geo_keys(geometry)
    matrix = _matrix(geometry, keys)
    if matrix is None:
        return Place(None, "", _IN_PIXELS, area, unit)
    code = keys.get(_PROJECTED, keys.get(_GEOGRAPHIC, _USER_DEFINED))
    known = 1024 <= code < _USER_DEFINED
    text = f"EPSG:{code}" if known else "the coordinate system of the image's file, which names none by an EPSG number"
    if keys.get(_LENGTH) == _METRE:
        area, unit = abs(_determinant(matrix)), "meter^2"
    return Place(matrix, f"urn:ogc:def:crs:EPSG::{code}" if known else "", text, area, unit)


def pixel_size(geometry: Geometry) -> tuple[tuple[float, float] | None, str]:
    """Height and width of a pixel in a unit of length, and the unit; (None, "") where the file tells none.

    A GeoTIFF tells them if its coordinates are in metres and its pixels are rectangles, turned or not. Inches are how
    large an image is printed, not how large what it shows is: they tell none.
    """
    if geometry.spacing is not None and geometry.unit in METRES and geometry.unit != "inch":
        return geometry.spacing, geometry.unit
    place = place_of(geometry)
    if place.matrix is None or place.area_unit != "meter^2":
        return None, ""
    across, down = place.matrix[:, 0], place.matrix[:, 1]
    width, height = float(np.hypot(*across)), float(np.hypot(*down))
    return ((height, width), "meter") if abs(across @ down) <= 1e-6 * width * height else (None, "")


def _geo_keys(geometry: Geometry) -> dict[int, int]:
    """The keys whose values are numbers in the directory itself."""
    values = _numbers(geometry, _KEYS)
    entries = [values[at : at + 4] for at in range(4, len(values) - 3, 4)]
    return {key: value for key, place, _, value in entries if place == 0}


def _numbers(geometry: Geometry, code: int) -> tuple[Any, ...]:
    """What a tag holds, if it is there and numbers: files exist in which it is one number, or a text."""
    value = next((tag[3] for tag in geometry.tags if tag[0] == code), ())
    return value if isinstance(value, tuple) and all(isinstance(each, int | float) for each in value) else ()


def _matrix(geometry: Geometry, keys: dict[int, int]) -> npt.NDArray[np.float64] | None:
    scale, tie, full = (_numbers(geometry, code) for code in (_SCALE, _TIEPOINT, _MATRIX))
    if len(full) == 16:
        matrix = np.array(full, np.float64).reshape(4, 4)[:2][:, [0, 1, 3]]
    elif len(scale) >= 2 and len(tie) == 6:
        across, down = scale[0], -scale[1]
        matrix = np.array([[across, 0, tie[3] - tie[0] * across], [0, down, tie[4] - tie[1] * down]], np.float64)
    else:
        return None
    if keys.get(_RASTER_TYPE) == _POINT:  # the coordinates of whole numbers are those of the centres
        matrix[:, 2] -= matrix[:, :2].sum(axis=1) / 2
    return matrix if (np.abs(matrix) < _FARTHEST).all() and _determinant(matrix) else None


def _determinant(matrix: npt.NDArray[np.float64]) -> float:
    return float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
