"""A label map that is whole but not yet written: cleaned where that is asked for, measured, outlined and drawn.

Knows the sink that it lies in, in memory or in a file; computes nothing with a network.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from keepmap.config import write_text
from keepmap.data.georeference import place_of
from keepmap.data.labels import IGNORE_INDEX, LabelSet
from keepmap.data.overlay import draw_overlay
from keepmap.data.polygons import geojson
from keepmap.data.sinks import write_picture, write_pieces
from keepmap.inference.cleaning import Change, small_holes, small_regions
from keepmap.inference.jobs import Job
from keepmap.metrics.areas import ClassArea, class_areas
from keepmap.options import PredictOptions
from keepmap.protocols import Array, ArraySource, Geometry

TABLE_HEAD = (
    "image", "class", "value", "area_px", "percent", "area", "area_unit", "objects", "smallest_px", "median_px",
    "mean_px", "largest_px",
)  # fmt: skip
"""Columns of the table. percent: of the measured pixels. area: in area_unit, empty where the size of a pixel is not
known. objects: connected through sides and corners; empty for the ground, which has none."""

Row = tuple[str | int | float, ...]


def blank_of(source: ArraySource, labels: LabelSet) -> int | None:
    """The value that says in a mask of `source` that nothing was measured there; None where all was."""
    return None if source.nodata is None else labels.blank


def mask_dtype(source: ArraySource, labels: LabelSet) -> np.dtype[np.generic]:
    """What holds every value of a mask of `source`."""
    return np.promote_types(labels.dtype, np.min_scalar_type(blank_of(source, labels) or 0))


class IndexView:
    """The class indices (H, W) of label values (H, W), read row by row; negative where nothing was measured.

    blank: the value that says so, None where all was.
    """

    def __init__(self, values: Array, labels: LabelSet, blank: int | None) -> None:
        self.shape = values.shape
        self._values, self._labels, self._blank = values, labels, blank

    def __getitem__(self, rows: int | slice) -> Array:
        """The indices int16 of a slice of rows (h, W), or of one (W,)."""
        values = self._values[rows]
        if self._blank is None:
            return self._labels.encode(values)
        empty = values == self._blank
        indices = self._labels.encode(np.where(empty, self._labels.values[0], values))
        indices[empty] = IGNORE_INDEX
        return indices


def finish(
    job: Job, source: ArraySource, values: Array, labels: LabelSet, options: PredictOptions
) -> list[Row]:
    """What `options` asks for beside the mask; returns the rows of the table, none where there is none.

    values: label values (H, W), which are cleaned in place. Raises OutputError.
    """
    indices = IndexView(values, labels, blank_of(source, labels))
    for rows, changed, new in _cleaned(indices, labels, options):
        values[rows][changed] = labels.decode(new)
    if job.polygons is not None:
        write_pieces(job.polygons, geojson(indices, labels, source.geometry, job.image.name))
    if job.overlay is not None:
        write_picture(job.overlay, draw_overlay(source.read(), indices, labels))
    if options.table is None:
        return []
    return table_rows(job.image, class_areas(indices, labels.count), labels, source.geometry)


def table_rows(image: Path, areas: Sequence[ClassArea], labels: LabelSet, geometry: Geometry) -> list[Row]:
    """The rows of the table for one image, a class each; see `TABLE_HEAD`."""
    place = place_of(geometry)
    rows: list[Row] = []
    for k, found in enumerate(areas):
        value = labels.text(labels.values[k])
        area = place.area_of(found.pixels)
        places = "" if area is None else _figure(area), place.area_unit
        first = (image.as_posix(), labels.names[k], value, found.pixels, _figure(found.percent), *places)
        sizes = (found.smallest, found.median, found.mean, found.largest)
        none = k == 0 and labels.has_ground
        rows.append((*first, *([""] * 5 if none else [found.objects, *map(_figure, sizes)])))
    return rows


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows below `TABLE_HEAD` as CSV, whole or not at all. Raises OutputError."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([TABLE_HEAD, *rows])
    write_text(path, text.getvalue())


def _figure(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.10g}"


def _cleaned(indices: IndexView, labels: LabelSet, options: PredictOptions) -> Iterator[Change]:
    """Small regions of one class after the other, then holes, so that no two regions take each other's class."""
    classes, first = range(labels.count), 1 if labels.has_ground else 0
    holes = classes[:1] if labels.has_ground else classes
    small, large = options.smallest_object, options.fill_holes
    regions = [small_regions(indices, k, labels.count, small) for k in classes[first:] if small > 1]
    return chain(*regions, *[small_holes(indices, k, labels.count, large) for k in holes if large])
