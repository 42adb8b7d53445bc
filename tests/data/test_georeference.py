"""Tags to coordinates, on cases worked out by hand and against rasterio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keepmap.data.georeference import pixel_size, place_of
from keepmap.data.images import open_image
from keepmap.protocols import Geometry

SCALE, TIE = (33550, 12, 3, (0.5, 0.25, 0.0)), (33922, 12, 6, (2.0, 4.0, 0.0, 100.0, 50.0, 0.0))


def keys(*pairs: int) -> tuple[int, int, int, tuple[int, ...]]:
    values = (1, 1, 0, len(pairs) // 2)
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        values += (key, 0, 1, value)
    return 34735, 3, len(values), values


def test_no_tags_are_pixels() -> None:
    place = place_of(Geometry((2.0, 3.0), "micrometer"))
    assert (place.crs, place.pixel_area, place.area_unit, place.mirrored) == ("", 6.0, "micrometer^2", False)
    points = np.array([[1, 2]])
    assert place.apply(points) is points
    assert place_of(Geometry()).pixel_area is None


@pytest.mark.parametrize(
    ("tags", "corner", "crs", "area"),
    [
        ((SCALE, TIE), (99.0, 51.0), "", None),
        ((SCALE, TIE, keys(1025, 2, 3072, 32632, 3076, 9001)), (98.75, 51.125), "EPSG::32632", 0.125),
        ((SCALE, TIE, keys(2048, 4326)), (99.0, 51.0), "EPSG::4326", None),
        ((SCALE, TIE, keys(3072, 32767, 3076, 9001)), (99.0, 51.0), "", 0.125),
        ((SCALE, TIE, keys(3072, 2263, 3076, 9003)), (99.0, 51.0), "EPSG::2263", None),
        ((SCALE,), (0.0, 0.0), "", None),
        (((34264, 12, 16, (0.0,) * 16),), (0.0, 0.0), "", None),
        (((33550, 2, 4, "abc"), (33922, 2, 7, "abcdef"), (34735, 3, 1, 5)), (0.0, 0.0), "", None),
        (((33550, 12, 1, 5.0), TIE, (34735, 2, 9, "abcdefgh")), (0.0, 0.0), "", None),
        (((33550, 12, 3, (1e200, 1e200, 0.0)), TIE, keys(3072, 32632, 3076, 9001)), (0.0, 0.0), "", None),
    ],
)
def test_tags_place_the_corner(tags, corner, crs, area) -> None:
    place = place_of(Geometry(tags=tags))
    assert tuple(place.apply(np.array([[0, 0]]))[0]) == corner
    assert place.crs.endswith(crs)
    assert bool(place.crs) == bool(crs)
    assert place.pixel_area == area
    assert "pixels" in place.text or "system" in place.text or place.text.startswith("EPSG")


def test_rasterio_agrees(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    matrix = rasterio.Affine(3.0, 0.5, 4e5, -0.25, -2.0, 5e6)
    options = {"driver": "GTiff", "width": 5, "height": 4, "count": 1, "dtype": "uint8", "crs": "EPSG:25832"}
    with rasterio.open(tmp_path / "x.tif", "w", transform=matrix, **options) as file:
        file.write(np.zeros((1, 4, 5), np.uint8))
    place = place_of(open_image(tmp_path / "x.tif").geometry)
    assert np.allclose(place.apply(np.array([[2, 3]]))[0], rasterio.transform.xy(matrix, 3, 2, offset="ul"))
    assert place.crs == "urn:ogc:def:crs:EPSG::25832"
    assert place.pixel_area == pytest.approx(abs(matrix.determinant))
    assert place.mirrored


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ((SCALE, TIE, keys(3072, 32632, 3076, 9001)), ((0.25, 0.5), "meter")),
        ((SCALE, TIE, keys(3072, 2263, 3076, 9003)), (None, "")),
        ((SCALE, TIE, keys(2048, 4326)), (None, "")),
        (((34264, 12, 16, (3.0, -8.0, 0, 0, 4.0, 6.0, 0, 0, *[0.0] * 8)), keys(3076, 9001)), ((10.0, 5.0), "meter")),
        (((34264, 12, 16, (3.0, 8.0, 0, 0, 4.0, 6.0, 0, 0, *[0.0] * 8)), keys(3076, 9001)), (None, "")),
    ],
    ids=["metres", "feet", "degrees", "turned", "sheared"],
)
def test_pixels_have_a_size_where_they_are_rectangles_of_metres(tags, size) -> None:
    assert pixel_size(Geometry(tags=tags)) == size
    assert pixel_size(Geometry((2.0, 3.0), "micrometer", tags=tags)) == ((2.0, 3.0), "micrometer")
    assert pixel_size(Geometry()) == (None, "")
