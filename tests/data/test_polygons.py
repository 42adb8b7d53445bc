"""Polygons against painting them back, against labelling of each class, and on maps drawn by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from scipy import ndimage

from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.polygons import Polygon, geojson, outlines
from keepmap.data.regions import fill_polygon
from keepmap.data.values import COLOUR
from keepmap.protocols import Geometry

MAPS = drawn.arrays(np.int16, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(-1, 2))
CHECKERS = np.indices((6, 7)).sum(0) % 2
PINCHED = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]])
NESTED = np.pad(np.pad(np.pad(np.array([[1]]), 1), 1, constant_values=1), 1)


def painted(polygons: list[Polygon], size: tuple[int, int]) -> np.ndarray:
    """The map that the rings give by the even-odd rule; no pixel twice."""
    image = np.full(size, -1)
    for polygon in polygons:
        inside = np.zeros(size, bool)
        for ring in polygon.rings:
            window, pixels = fill_polygon(ring.astype(float), size)
            inside[window] ^= pixels
        assert inside.sum() == polygon.pixels
        assert (image[inside] == -1).all()
        image[inside] = polygon.index
    return image


def area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


@given(MAPS, st.integers(1, 40))
@settings(max_examples=150, deadline=None)
@example(CHECKERS, 7)
@example(PINCHED, 100)
@example(np.rot90(PINCHED), 100)
@example(NESTED, 9)
@example(np.kron(CHECKERS[:4, :4], NESTED), 100)
def test_rings_painted_back_are_the_map_and_each_is_simple(indices: np.ndarray, band: int) -> None:
    polygons = list(outlines(indices, band))
    assert np.array_equal(painted(polygons, indices.shape), np.maximum(indices, -1))
    regions = [ndimage.label(indices == k)[0] for k in range(3)]
    assert len(polygons) == sum(int(numbers.max()) for numbers in regions)
    for polygon in polygons:
        exterior, *holes = polygon.rings
        assert area(exterior) > 0
        assert all(area(ring) < 0 for ring in holes)
        for ring in polygon.rings:
            steps = np.diff(ring, axis=0, append=ring[:1])
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert (np.diff(steps[:, 0] == 0, append=steps[0, 0] == 0)).all(), "a corner where nothing turns"
            assert len(np.unique(ring, axis=0)) == len(ring), "a ring that meets itself"
        x, y = exterior[0]
        number = regions[polygon.index][y, x]
        assert number
        assert (regions[polygon.index] == number).sum() == polygon.pixels


def test_the_order_is_that_of_reading_and_rings_start_there() -> None:
    one, two, three = outlines(np.array([[0, 0, 1], [0, 2, 2]]))
    assert [(p.index, p.pixels) for p in (one, two, three)] == [(0, 3), (1, 1), (2, 2)]
    assert one.rings[0].tolist() == [[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]
    assert not list(outlines(np.full((3, 4), -1)))
    assert next(outlines(np.zeros((1, 1), np.uint8))).rings[0].tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


def labels(*names: str, values: tuple[int, ...] = (0, 7)) -> LabelSet:
    return LabelSet(values, names, None, default_colours(2))


def read(indices: np.ndarray, names: LabelSet, geometry: Geometry = Geometry()) -> dict:  # noqa: B008
    return json.loads("".join(geojson(indices, names, geometry, "a.tif")))


def test_geojson_in_pixels_leaves_out_the_ground() -> None:
    found = read(PINCHED, labels("Background", "C\u00e9ll"), Geometry((0.5, 0.25), "micrometer"))
    assert "crs" not in found
    assert found["keepmap"] == {
        "coordinates": "pixels of the image: x to the right, y down, from its upper left corner", "image": "a.tif",
        "height": 3, "width": 3,
    }  # fmt: skip
    (feature,) = found["features"]
    assert feature["properties"] == {
        "class": "C\u00e9ll", "value": 7, "area_px": 7, "area": 0.875, "area_unit": "micrometer^2"
    }
    rings = feature["geometry"]["coordinates"]
    assert [len(ring) for ring in rings] == [7, 5]
    assert all(ring[0] == ring[-1] for ring in rings)
    both = read(PINCHED, labels("sky", "ground"))["features"]
    assert [f["properties"]["class"] for f in both] == ["ground", "sky", "sky"]
    coloured = read(PINCHED, labels("class 0", "x", values=(0, COLOUR + 0xFF0000)))["features"]
    assert coloured[0]["properties"]["value"] == "rgb 255,0,0"
    assert read(np.zeros((2, 2), int), labels("background", "x"))["features"] == []


@pytest.mark.parametrize(("down", "point"), [(-10.0, False), (10.0, True)])
def test_geojson_on_the_earth_is_counterclockwise_there(down: float, point: bool) -> None:
    keys = (1, 1, 0, 3, 1025, 0, 1, 1 + point, 3072, 0, 1, 32632, 3076, 0, 1, 9001)
    matrix = (10.0, 0, 0, 5e5, 0, down, 0, 4e6, 0, 0, 0, 0, 0, 0, 0, 1.0)
    geometry = Geometry(tags=((34735, 3, len(keys), keys), (34264, 12, 16, matrix)))
    found = read(PINCHED, labels("background", "x"), geometry)
    assert found["crs"] == {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    assert found["keepmap"]["coordinates"] == "EPSG:32632"
    (feature,) = found["features"]
    assert (feature["properties"]["area"], feature["properties"]["area_unit"]) == (700.0, "meter^2")
    exterior, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    assert area(exterior[:-1]) == 800
    assert area(hole[:-1]) == -100
    corner = [5e5 - 5 * point, 4e6 - down / 2 * point]
    assert corner in exterior.tolist()
