"""A map of class indices as polygons along the edges of its pixels, exactly, and as GeoJSON.

Writes no file, simplifies nothing and knows no coordinate system: where pixels lie is told by `georeference`.

A polygon is one region of pixels of one class that are connected through their four sides. With the eight neighbours,
regions that touch at a corner only would be one, with an exterior that meets itself and an interior in two parts; and
where two classes cross at a corner, both would run through it. So every ring is simple and every polygon valid (OGC
06-103r4, 6.1.11).
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from keepmap.data.georeference import place_of
from keepmap.data.labels import LabelSet
from keepmap.protocols import Array, Geometry, LabelMap

_BAND = 1 << 20
"""Pixels that are looked at in one go."""
_RIGHT, _DOWN, _LEFT, _UP = range(4)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Polygon:
    """One region of class `index` with `pixels` pixels.

    rings: the exterior, then the holes; each (n, 2) of x (to the right) and y (down) in pixels from the upper left
    corner of the image, corners only, the first not repeated. In these numbers the exterior has a positive area by the
    shoelace formula, which is counterclockwise where y points up, and the holes have a negative one.
    """

    index: int
    pixels: int
    rings: tuple[Ints, ...]


def outlines(indices: LabelMap, band: int = _BAND) -> Iterator[Polygon]:
    """The polygons of class indices (H, W), each class anew, in the order of their uppermost, then leftmost corners.

    Pixels of negative indices belong to none. Filling all rings of a class by the even-odd rule
    (`regions.fill_polygon`) gives its pixels. indices: any integers up to 32767; may be mapped from a file, since
    `band` pixels are read at a time. The memory follows the corners, about 100 bytes each.
    """
    corners = _corners(indices, band)
    if not len(corners.x):
        return
    order, starts = corners.rings()
    x, y = corners.x[order].astype(np.int64), corners.y[order].astype(np.int64)
    stops = np.append(starts[1:], len(order))
    following = np.arange(1, len(order) + 1)
    following[stops - 1] = starts
    areas = np.add.reduceat(x * y[following] - x[following] * y, starts) // 2
    owners = _owners(indices, corners, order, starts, areas)
    family = np.argsort(owners, kind="stable")  # an exterior comes before its holes: it has the first corner
    firsts = np.flatnonzero(np.diff(owners[family], prepend=-1))
    for members in np.split(family, firsts[1:]):
        rings = tuple(np.stack([x[starts[r] : stops[r]], y[starts[r] : stops[r]]], axis=1) for r in members)
        yield Polygon(int(corners.index[order[starts[members[0]]]]), int(areas[members].sum()), rings)


def geojson(indices: LabelMap, labels: LabelSet, geometry: Geometry = Geometry(), name: str = "") -> Iterator[str]:  # noqa: B008
    """The pieces of a GeoJSON FeatureCollection (RFC 7946) of class indices (H, W): one line for each polygon.

    Left out are negative indices and a first class that is the ground (`LabelSet.has_ground`). Properties: class, value
    as mask files have it, area_px, and area in area_unit where the size of a pixel is known. Coordinates are those of
    the coordinate system that the image's file names, else pixels (x to the right, y down); the member "keepmap" says
    which. RFC 7946 knows longitude and latitude on WGS 84 only, so another system stands in the member "crs" of its
    predecessor (GeoJSON 2008). Exteriors are counterclockwise in the numbers that are written.
    """
    place = place_of(geometry)
    about = {"coordinates": place.text, "image": name, "height": indices.shape[0], "width": indices.shape[1]}
    head: dict[str, Any] = {"type": "FeatureCollection", "keepmap": about}
    if place.crs:
        head["crs"] = {"type": "name", "properties": {"name": place.crs}}
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "features": ['
    separator = "\n"
    for polygon in outlines(indices):
        if polygon.index == 0 and labels.has_ground:
            continue
        properties: dict[str, Any] = {
            "class": labels.names[polygon.index],
            "value": labels.text(labels.values[polygon.index]) if labels.coloured else labels.values[polygon.index],
            "area_px": polygon.pixels,
        }
        if (area := place.area_of(polygon.pixels)) is not None:
            properties |= {"area": area, "area_unit": place.area_unit}
        rings = [_closed(place.apply(ring), place.mirrored) for ring in polygon.rings]
        shape = {"type": "Polygon", "coordinates": rings}
        feature = {"type": "Feature", "properties": properties, "geometry": shape}
        yield separator + json.dumps(feature, ensure_ascii=False)
        separator = ",\n"
    yield "\n]}\n"


def _closed(ring: Array, mirrored: bool) -> Any:
    """A ring as GeoJSON has it, its first corner repeated; the other way round where the axes mirror it."""
    closed = np.concatenate([ring, ring[:1]])
    return (closed[::-1] if mirrored else closed).tolist()


@dataclass(frozen=True)
class _Corners:
    """Where outlines turn: corner i lies at (x, y), is reached in direction `came` and left in `goes`.

    The region, of class `index`, is on the right hand of who walks along it and sees y point down. pinched: the region
    goes on, perhaps elsewhere connected, diagonally behind the corner. All (n,), sorted by y, x, came.
    """

    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    came: npt.NDArray[np.int8]
    goes: npt.NDArray[np.int8]
    index: npt.NDArray[np.int16]
    pinched: npt.NDArray[np.bool_]

    def along(self, directions: npt.NDArray[np.int8], direction: int) -> Ints:
        """The corners whose entry in `directions` is `direction`, sorted along the lines of that direction."""
        found = np.flatnonzero(directions == direction)
        return found[np.lexsort((self.y[found], self.x[found]))] if direction in (_DOWN, _UP) else found

    def rings(self) -> tuple[Ints, Ints]:
        """The corners ring after ring, and where each ring starts; each starts at its uppermost, leftmost corner."""
        following = np.empty(len(self.x), np.int64)
        for direction in (_RIGHT, _DOWN, _LEFT, _UP):  # sides along a line are apart: the n-th start has the n-th end
            following[self.along(self.goes, direction)] = self.along(self.came, direction)
        order, starts = _cycles(following)
        pinched = np.flatnonzero(self.pinched)
        if not len(pinched):
            return order, starts
        ring = np.empty(len(order), np.int64)
        ring[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
        kind = self.came[pinched] % 2
        one, other = pinched[np.lexsort((kind, self.x[pinched], self.y[pinched]))].reshape(-1, 2).T
        same = ring[one] == ring[other]  # one region on both sides: its ring is cut in two, which touch
        one, other = one[same], other[same]
        following[one], following[other] = following[other], following[one]
        return _cycles(following)


def _corners(indices: LabelMap, band: int) -> _Corners:
    height, width = indices.shape
    rows = max(1, band // max(width, 1))
    found = [_turns(_framed(indices, top, min(rows, height + 1 - top)), top) for top in range(0, height + 1, rows)]
    return _Corners(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _framed(indices: LabelMap, top: int, rows: int) -> npt.NDArray[np.int16]:
    """The pixels around `rows` rows of corners from row `top` on, -1 beside the image."""
    height, width = indices.shape
    framed = np.full((rows + 1, width + 2), -1, np.int16)
    first, last = max(0, top - 1), min(height, top + rows)
    framed[first - top + 1 : last - top + 1, 1:-1] = indices[first:last]
    return framed


def _turns(framed: npt.NDArray[np.int16], top: int) -> tuple[Array, ...]:
    """The fields of `_Corners` for the inner corners of pixels; at a pinch the way goes round the nearer pixel."""
    parts = framed[:-1, :-1], framed[:-1, 1:], framed[1:, 1:], framed[1:, :-1]
    y, x = np.nonzero((parts[0] != parts[1]) | (parts[3] != parts[2]) | (parts[0] != parts[3]))
    around = np.stack([part[y, x] for part in parts], axis=1)  # (n, 4), clockwise from the upper left
    behind_left, ahead_left, ahead_right, behind_right = (np.roll(around, -turn, axis=1) for turn in range(4))
    comes = (behind_right >= 0) & (behind_right != behind_left)
    right = comes & (ahead_right != behind_right)
    left = comes & (ahead_right == behind_right) & (ahead_left == behind_right)
    corner, came = np.nonzero(right | left)
    at = (corner, came)
    goes = (came + np.where(right[at], 1, 3)) % 4
    pinched = right[at] & (ahead_left[at] == behind_right[at])
    return (
        x[corner].astype(np.int32), (y[corner] + top).astype(np.int32), came.astype(np.int8), goes.astype(np.int8),
        behind_right[at], pinched,
    )  # fmt: skip


def _cycles(following: Ints) -> tuple[Ints, Ints]:
    """The entries of a permutation cycle after cycle, and where each starts; each starts at its smallest entry."""
    after, seen = following.data, bytearray(len(following))
    order, starts = array("q"), array("q")
    for first in range(len(following)):
        if not seen[first]:
            starts.append(len(order))
            at = first
            while not seen[at]:
                seen[at] = 1
                order.append(at)
                at = after[at]
    return np.frombuffer(order, np.int64), np.frombuffer(starts, np.int64)


def _owners(indices: LabelMap, corners: _Corners, order: Ints, starts: Ints, areas: Ints) -> Ints:
    """For each ring the exterior of its region: from the pixel above a hole's first corner go left to the region's end.

    The side found there belongs to the exterior, or to a hole that starts further up, whose exterior is known by then.
    """
    ring = np.empty(len(order), np.int64)
    ring[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
    tops = corners.along(corners.came, _UP)
    height = indices.shape[0] + 1
    keys = corners.x[tops].astype(np.int64) * height + corners.y[tops]
    owners = np.arange(len(starts))
    holes: Sequence[int] = np.flatnonzero(areas < 0).tolist()
    row, ends = -1, np.zeros(0, np.int64)
    for hole in holes:
        first = order[starts[hole]]
        if row != corners.y[first] - 1:
            row = int(corners.y[first]) - 1
            line = np.asarray(indices[row])
            ends = np.append(0, np.flatnonzero(line[1:] != line[:-1]) + 1)
        left = ends[np.searchsorted(ends, corners.x[first], side="right") - 1]
        side = tops[np.searchsorted(keys, left * height + row, side="right") - 1]
        owners[hole] = owners[ring[side]]
    return owners
