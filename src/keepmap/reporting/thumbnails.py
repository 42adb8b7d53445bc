"""Small pictures of image and mask files as data URLs, so that a page needs no other file.

Does not choose which files are shown, and shows nothing of a file that cannot be read.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.mending import read_raw_mask
from keepmap.data.overlay import to_rgb
from keepmap.data.values import is_coloured, unpack_colours
from keepmap.errors import DataError
from keepmap.protocols import Array

SIDE = 168
"""Longest side of a thumbnail, in pixels."""

_STRANGE = (226, 40, 60)
_IGNORED = (150, 150, 150)
_MOST = 25_000_000  # px of an image that is read for a thumbnail


def image_thumbnail(path: Path) -> str | None:
    """An image file as a JPEG data URL; None where it cannot be read or is too large to be decoded whole."""
    try:
        source = open_image(path)
        if source.shape[1] * source.shape[2] > _MOST:
            return None
        return _url(to_rgb(_thinned(source.read())), "JPEG")
    except DataError:
        return None


def mask_thumbnail(path: Path, labels: LabelSet | None) -> str | None:
    """A mask file in its classes' colours, values that are no labels in red; None where it cannot be read.

    Without labels, grey values and colours are shown as they are, few different ids in colours of their own.
    """
    try:
        values = read_raw_mask(path).values
    except DataError:
        return None
    return _url(_coloured(_thinned(values[None])[0], labels), "PNG")


def _coloured(values: Array, labels: LabelSet | None) -> npt.NDArray[np.uint8]:
    """Label values (h, w) as a picture (h, w, 3)."""
    found, places = np.unique(values, return_inverse=True)
    if labels is not None:
        known = dict(zip(labels.values, labels.colours, strict=True))
        other = labels.colours[1] if labels.instances else _STRANGE
        colours = [_IGNORED if v == labels.ignore else known.get(v, other) for v in found.tolist()]
    elif is_coloured(found.tolist()):
        return unpack_colours(values)
    elif len(found) <= 20 and found[-1] < 200:
        colours = list(default_colours(len(found)))
    else:
        colours = [(v, v, v) for v in np.clip(found, 0, 255).tolist()]
    return np.array(colours, np.uint8)[places.reshape(values.shape)]


def _thinned(pixels: Array) -> Array:
    """Every n-th pixel of (C, H, W), so that few enough are left."""
    step = -(-max(pixels.shape[1:]) // (2 * SIDE))
    return pixels[:, ::step, ::step]


def _url(picture: npt.NDArray[np.uint8], kind: str) -> str:
    image = Image.fromarray(np.ascontiguousarray(picture))
    scale = SIDE / max(image.size)
    if scale < 1 or scale > 2:
        size = tuple(max(1, round(side * scale)) for side in image.size)
        way = Image.Resampling.NEAREST if kind == "PNG" or scale > 1 else Image.Resampling.BOX
        image = image.resize((size[0], size[1]), way)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
