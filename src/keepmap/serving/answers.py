"""A prediction as a client asked for it: a mask, probabilities, or JSON with areas, runs and polygons.

Knows images, labels and files; nothing of requests. The mask is written by what `keepmap predict` writes it with.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keepmap.data import headers
from keepmap.data.georeference import place_of
from keepmap.data.labels import LabelSet
from keepmap.data.overlay import to_rgb
from keepmap.data.polygons import geojson
from keepmap.data.sinks import LabelSink, open_probabilities
from keepmap.errors import DataError
from keepmap.inference.files import open_mask
from keepmap.inference.finished import IndexView, blank_of, mask_dtype
from keepmap.inference.predictor import Predictor
from keepmap.metrics.areas import class_areas
from keepmap.protocols import Array, Window
from keepmap.serving.decoding import Decoded
from keepmap.serving.refusals import encode
from keepmap.serving.tickets import Ticket
from keepmap.serving.wishes import FORMS, Wish

_CHANGES = {"none": math.inf, "runs": 20e6, "polygons": 2e6}
"""Changes of class along the rows of a map that is told in a shape, at most: noise would take gigabytes and minutes."""
_PREVIEW = 2048
"""Pixels of the longer side of a preview, at most."""


@dataclass(frozen=True)
class Answer:
    """A file that is handed out, its media type and the name that it is offered under."""

    path: Path
    media_type: str
    name: str


def write_answer(
    predictor: Predictor, source: Decoded, folder: Path, wish: Wish, ticket: Ticket, most: int
) -> Answer:
    """Predict `source` and write into `folder` what was wished for.

    most: pixels of an answer that is made in memory, and values of probabilities. Raises DataError, Cancelled.
    """
    form = wish.form
    if form == "same":
        form = "tiff" if source.kind == headers.TIFF else "png"
    _, height, width = source.shape
    count = height * width * (predictor.labels.count if form == "npy" else 1)
    if form in ("json", "npy") and count > most:
        raise DataError(
            "The image is too large for this form.", found=f"{count / 1e6:.0f} million values",
            expected=f"at most {most / 1e6:g} million", do="ask for as=tiff",
        )
    media_type, suffix = FORMS[form]
    path = folder / f"mask{'.ome' * (form == 'tiff' and _is_ome(source, wish))}{suffix}"
    if form == "json":
        path.write_bytes(_as_json(predictor, source, folder, wish, ticket))
    elif form == "npy":
        path = path.with_name("probabilities.npy")
        with open_probabilities(path, (predictor.labels.count, height, width)) as values:
            predictor.predict(source, _Nowhere(), probabilities=values, tracker=ticket)
    else:
        with open_mask(path, source, predictor.labels) as sink:
            predictor.predict(source, sink, tracker=ticket)
    return Answer(path, media_type, path.name)


def _is_ome(source: Decoded, wish: Wish) -> bool:
    return wish.ome and source.kind == headers.TIFF


class _Nowhere:
    """An ArraySink for a mask that nobody asked for."""

    def write(self, window: Window, labels: Array) -> None:
        """Drop it."""


def _as_json(predictor: Predictor, source: Decoded, folder: Path, wish: Wish, ticket: Ticket) -> bytes:
    labels = predictor.labels
    sink = LabelSink(Path("The mask"), np.zeros(source.shape[1:], mask_dtype(source, labels)))
    predictor.predict(source, sink, tracker=ticket)
    values = sink.finish()
    indices = IndexView(values, labels, blank_of(source, labels))[:]
    _require_few_changes(indices, wish.shapes)
    found = {"image": _image(source), "classes": class_rows(indices, source, labels)}
    if wish.shapes == "runs":
        found["runs"] = runs(indices)
    if "mask" in wish.include:
        path = folder / (f"mask{'.ome' * _is_ome(source, wish)}.tif" if source.kind == headers.TIFF else "mask.png")
        with open_mask(path, source, labels) as whole:
            whole.write((slice(0, values.shape[0]), slice(0, values.shape[1])), values)
        media = "image/tiff" if path.suffix == ".tif" else "image/png"
        found["mask"] = _embedded(path.read_bytes(), media)
    if "preview" in wish.include:
        found["preview"] = _embedded(_preview(source), "image/jpeg")
    body = encode(found)
    if wish.shapes == "polygons":
        body = body[:-1] + b',"polygons":' + "".join(geojson(indices, labels, source.geometry)).encode() + b"}"
    return body


def _require_few_changes(indices: Array, shapes: str) -> None:
    changes = np.count_nonzero(indices[:, 1:] != indices[:, :-1])
    if changes > _CHANGES[shapes]:
        raise DataError(
            f"The mask is too ragged for {shapes}.", found=f"{changes / 1e6:.1f} million changes along its rows",
            expected=f"at most {_CHANGES[shapes] / 1e6:g} million", do="ask for as=tiff",
        )  # fmt: skip


def _image(source: Decoded) -> dict[str, Any]:
    channels, height, width = source.shape
    geometry = source.geometry
    return {
        "height": height, "width": width, "channels": channels, "dtype": source.dtype.name, "format": source.kind,
        "spacing": geometry.spacing, "unit": geometry.unit or None, "coordinates": place_of(geometry).text,
    }  # fmt: skip


def class_rows(indices: Array, source: Decoded, labels: LabelSet) -> list[dict[str, Any]]:
    """One row for each class: what it is, its area in pixels, per cent and where known in units, its objects."""
    place = place_of(source.geometry)
    rows = []
    for index, figures in enumerate(class_areas(indices, labels.count)):
        plain = {name: None if math.isnan(value) else value for name, value in asdict(figures).items()}
        area = {"area": place.area_of(figures.pixels), "area_unit": place.area_unit or None}
        rows.append({**class_fields(labels, index), **plain, **area})
    return rows


def class_fields(labels: LabelSet, index: int) -> dict[str, Any]:
    """What the class of an index is: name, the value in masks, its colour in pictures, whether it is the ground."""
    value = labels.values[index]
    return {
        "index": index, "name": labels.names[index], "value": labels.text(value) if labels.coloured else value,
        "colour": labels.colours[index], "ground": index == 0 and labels.has_ground,
    }  # fmt: skip


def runs(indices: Array) -> dict[str, list[int]]:
    """A map (H, W) row after row as runs of one class index each, -1 where nothing was measured."""
    flat = indices.reshape(-1)
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    lengths = np.diff(np.append(starts, flat.size))
    return {"indices": flat[starts].tolist(), "lengths": lengths.tolist()}


def _embedded(content: bytes, media_type: str) -> dict[str, str]:
    return {"media_type": media_type, "base64": base64.b64encode(content).decode("ascii")}


def _preview(source: Decoded) -> bytes:
    """The image as a JPEG for people, thinned out to a side that a screen has."""
    step = -(-max(source.shape[1:]) // _PREVIEW)
    buffer = io.BytesIO()
    Image.fromarray(to_rgb(source.read()[:, ::step, ::step])).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
