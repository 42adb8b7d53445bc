"""Single images of an evaluation as pictures for a page: which ones, and image, truth, prediction and errors of each.

Computes no score. A layer holds colours on nothing, so that the page can fade it over the image.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from keepmap.data.labels import LabelSet
from keepmap.data.overlay import class_borders, lighter, to_rgb
from keepmap.evaluation.looking import Look, Sight
from keepmap.metrics.confusion import ImageScores, Scores
from keepmap.metrics.regions import Region
from keepmap.protocols import Array, Progress, Silent

_SIDES = (448, 224, 112)
"""Pixels of the longer side of a picture, at most: the first with which the pictures of a case are small enough."""
_CHARACTERS = 600_000
"""Of the pictures of a case, at most: ten of them leave a page below 10 MB. Only noise needs so many."""
_FILL, _WRONG_FILL = 150, 215
_WRONG, _IGNORED = (226, 40, 60), (128, 128, 128)
_DARK, _BRIGHT = 110, 200
"""An image whose brightest hundredth is below the first is shown with it at the second."""
_MARGIN = 0.25
"""Of the side of a region: what is shown around it."""


@dataclass(frozen=True)
class Case:
    """An image that is shown. kind: why; score: its own; the pictures are data URLs, image None where there is none.

    width, height: of the pictures in pixels. brightened: whether a dark image is shown brighter than it is.
    """

    kind: str
    stem: str
    score: ImageScores
    image: str | None
    truth: str
    prediction: str
    errors: str
    width: int
    height: int
    brightened: bool


@dataclass(frozen=True)
class Gallery:
    """What is shown. speed: megapixels a second of all predictions that were made for it, None where none were."""

    cases: tuple[Case, ...]
    regions: tuple[Case, ...]
    speed: float | None
    left_out: int


def make_gallery(
    scores: Scores, sight: Sight, budget: int, regions: int, progress: Progress | None = None
) -> Gallery:
    """The worst, median and best images of an evaluation, and the regions in which most is wrong.

    budget: pixels that may be predicted or read for it; images beyond are left out, and counted. regions: how many.
    progress: told of every image.
    Raises DataError where a file has changed.
    """
    ranked = [image for image in scores.images if image.mean_iou is not None]
    chosen = list(_chosen(ranked))
    wrongest = sorted(
        (image for image in ranked if image.worst_region), key=lambda i: i.worst_region.wrong if i.worst_region else 0,
        reverse=True,
    )[:regions]  # fmt: skip
    cases, places, left = [], [], budget
    predicted, seconds = 0, 0.0
    wanted = {image.stem: image for image in [*(image for _, image in chosen), *wrongest]}
    kinds = {image.stem: kind for kind, image in chosen}
    shown = 0
    with (progress or Silent()).track("pictures", len(wanted), "images") as tracker:
        for stem, image in wanted.items():
            tracker.advance()
            pixels = sight.pixels(stem)
            if pixels > left:
                continue
            left, shown = left - pixels, shown + 1
            look = sight.look(stem)
            if look.seconds > 0:
                predicted, seconds = predicted + pixels, seconds + look.seconds
            if stem in kinds:
                cases.append(_case(kinds[stem], image, look, sight.labels, None))
            if image in wrongest:
                places.append(_case("region", image, look, sight.labels, image.worst_region))
    order = {kind: place for place, kind in enumerate(("worst", "median", "best"))}
    cases.sort(key=lambda case: (order[case.kind], case.score.mean_iou or 0.0))
    places.sort(key=lambda case: -(case.score.worst_region.wrong if case.score.worst_region else 0))
    speed = predicted / 1e6 / seconds if seconds else None
    return Gallery(tuple(cases), tuple(places), speed, len(wanted) - shown)


def _chosen(ranked: Sequence[ImageScores]) -> Iterator[tuple[str, ImageScores]]:
    """Three of the worst, one in the middle and two of the best of images in the order of their scores, each once.

    The most telling first, for the case that not all can be shown.
    """
    count = len(ranked)
    first = [("worst", 0), ("best", count - 1), ("median", count // 2)]
    taken: set[int] = set()
    for kind, place in (*first, ("worst", 1), ("best", count - 2), ("worst", 2)):
        if 0 <= place < count and place not in taken:
            taken.add(place)
            yield kind, ranked[place]


def _case(kind: str, score: ImageScores, look: Look, labels: LabelSet, region: Region | None) -> Case:
    rows, columns = (slice(None), slice(None)) if region is None else _around(region, look.truth.shape)
    truth, prediction = look.truth[rows, columns], look.prediction[rows, columns].astype(np.int16)
    pixels, brightened = None, False
    if look.image is not None:
        pixels, brightened = _seen(to_rgb(look.image)[rows, columns])
    for side in _SIDES:
        step = -(-max(truth.shape) // side)
        a, b = truth[::step, ::step], prediction[::step, ::step]
        pictures = (_photo(pixels, a.shape), _layer(a, labels), _layer(b, labels), _errors(a, b))
        if sum(len(picture or "") for picture in pictures) <= _CHARACTERS:
            break
    return Case(kind, score.stem, score, *pictures, a.shape[1], a.shape[0], brightened)


def _seen(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], bool]:
    """Colours (h, w, 3), brighter where they are dark, and whether they were."""
    step = -(-max(pixels.shape) // _SIDES[0])
    bright = float(np.percentile(pixels[::step, ::step], 99))
    if bright >= _DARK:
        return pixels, False
    return np.minimum(pixels * np.float32(_BRIGHT / max(bright, 8)), 255).astype(np.uint8), True


def _photo(pixels: npt.NDArray[np.uint8] | None, size: tuple[int, ...]) -> str | None:
    if pixels is None:
        return None
    height, width = size
    return _url(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX), "JPEG", quality=82)


def _around(region: Region, size: tuple[int, ...]) -> tuple[slice, slice]:
    margin = round(_MARGIN * max(region.height, region.width))
    rows = slice(max(0, region.row - margin), min(size[0], region.row + region.height + margin))
    columns = slice(max(0, region.column - margin), min(size[1], region.column + region.width + margin))
    return rows, columns


def _layer(indices: Array, labels: LabelSet) -> str:
    """Classes (h, w) in their colours, half transparent, with crisp borders; neither the ground nor what is ignored."""
    fills = np.array([(*colour, _FILL) for colour in labels.colours], np.uint8)
    edges = np.concatenate([lighter(np.array(labels.colours, np.float32)).round(), np.full((labels.count, 1), 255)], 1)
    if labels.has_ground:
        fills[0] = 0
    drawn = fills[np.maximum(indices, 0)]
    borders = class_borders(indices)
    drawn[borders] = edges.astype(np.uint8)[np.maximum(indices, 0)[borders]]
    drawn[indices < 0] = 0
    return _transparent(drawn)


def _errors(truth: Array, prediction: Array) -> str:
    """Red where the prediction is wrong, hatched where nothing is counted."""
    drawn = np.zeros((*truth.shape, 4), np.uint8)
    drawn[(truth != prediction) & (truth >= 0)] = (*_WRONG, _WRONG_FILL)
    diagonals = np.add.outer(np.arange(truth.shape[0]), np.arange(truth.shape[1]))
    drawn[(truth < 0) & (diagonals % 8 < 3)] = (*_IGNORED, _WRONG_FILL)
    return _transparent(drawn)


def _transparent(drawn: npt.NDArray[np.uint8]) -> str:
    """A picture (h, w, 4) of few colours as a PNG with a palette."""
    codes = drawn.view(np.uint32)[..., 0]
    colours, places = np.unique(codes, return_inverse=True)
    if len(colours) > 256:
        return _url(Image.fromarray(drawn), "PNG")
    table = colours.view(np.uint8).reshape(-1, 4)
    picture = Image.fromarray(places.reshape(codes.shape).astype(np.uint8))
    picture.putpalette(table[:, :3].tobytes())
    return _url(picture, "PNG", transparency=table[:, 3].tobytes())


def _url(picture: Image.Image, kind: str, **options: int | bytes) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
