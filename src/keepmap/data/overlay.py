"""Pictures for people: classes drawn over an image, and image, truth, prediction and differences side by side.

Draws arrays and writes no file; `sinks.write_picture` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from keepmap.data.labels import LabelSet
from keepmap.data.values import Colour
from keepmap.protocols import Array, LabelMap

Picture = npt.NDArray[np.uint8]

_WRONG: Colour = (226, 40, 60)
_PAPER: Colour = (250, 250, 248)
_INK: Colour = (34, 36, 42)
_FAINT: Colour = (112, 116, 126)
_IGNORED_GREY = 150
_ROWS = 256  # that are drawn at a time
_SAMPLED = 1_000_000  # pixels that the range of an image is judged by

_CELL = (340, 640)  # px: the least and the most width of one picture in a comparison
_SMALL_CELL = (160, 288)  # the same on a contact sheet
_SHEET_WIDTH = 2200  # px, that a contact sheet may have
_MARGIN, _GAP, _TITLE, _FONT, _SWATCH = 22, 14, 30, 15, 14


def to_rgb(image: Array) -> Picture:
    """An image (C, H, W) of any dtype as an 8-bit RGB picture (H, W, 3).

    The first three channels are shown, a lone one or a pair as grey; all but uint8 is stretched between the 1st and
    the 99th percentile of all that is shown.
    """
    shown = image[:3] if len(image) >= 3 else np.repeat(image[:1], 3, axis=0)
    if shown.dtype != np.uint8:
        step = max(1, int((shown[0].size / _SAMPLED) ** 0.5))
        sample = shown[:, ::step, ::step].astype(np.float64)
        finite = sample[np.isfinite(sample)]
        low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
        levels = np.empty(shown.shape, np.uint8)
        for rows in _bands(shown.shape[1]):
            scaled = (shown[:, rows] - low) * (255 / max(high - low, 1e-12))
            levels[:, rows] = np.nan_to_num(np.clip(scaled, 0, 255), nan=0.0).round()
        shown = levels
    return np.ascontiguousarray(np.moveaxis(shown, 0, -1))


def _bands(height: int) -> Iterator[slice]:
    """Rows that are drawn at a time, so that floats of a whole picture are never held."""
    return (slice(top, min(top + _ROWS, height)) for top in range(0, height, _ROWS))


def draw_overlay(image: Array, indices: LabelMap, labels: LabelSet, opacity: float = 0.5) -> Picture:
    """An image (C, H, W) tinted by its classes (H, W), with a crisp line along their borders: (H, W, 3) uint8.

    indices: 0..K-1, negative where ignored, which is tinted grey. A first class that is
    named "background", or has no name of its own, is not tinted.
    opacity: 0 shows the image alone, 1 the colours alone.
    """
    picture = to_rgb(image)
    drawn = np.empty(picture.shape, np.uint8)
    for rows in _bands(len(picture)):
        seen = slice(max(0, rows.start - 1), rows.stop + 1)  # a border depends on the rows beside it
        part = _tint(picture[seen], np.asarray(indices[seen]), labels, opacity, line=1)
        drawn[rows] = part[rows.start - seen.start :][: rows.stop - rows.start]
    return drawn


def _tint(picture: Picture, indices: Array, labels: LabelSet, opacity: float, line: int) -> Picture:
    colours = np.array([*labels.colours, (_IGNORED_GREY,) * 3], np.float32)  # index -1 is the last
    strength = np.full(labels.count + 1, opacity, np.float32)
    if labels.has_ground:
        strength[0] = 0
    share = strength[indices][..., None]
    tinted = picture * (1 - share) + colours[indices] * share
    edge = class_borders(indices, line)
    tinted[edge] = lighter(colours)[indices[edge]]
    return np.asarray(tinted.round(), np.uint8)


def lighter(colours: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Colours (N, 3) of classes as those of their borders."""
    return colours + (255 - colours) * np.float32(0.35)


def class_borders(indices: Array, line: int = 1) -> npt.NDArray[np.bool_]:
    """Pixels within `line` px of a lower class, so that a border is drawn once, in the higher one's colour."""
    edge = np.zeros(indices.shape, bool)
    lowest = indices
    for _ in range(line):
        padded = np.pad(lowest, 1, mode="edge")
        lowest = np.minimum.reduce(
            [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        )
        edge |= lowest < indices
    return edge


def draw_differences(picture: Picture, truth: Array, prediction: Array) -> Picture:
    """`picture` in pale grey where `prediction` is right, red where it is wrong, hatched where truth is negative."""
    grey = 60 + picture.mean(axis=2, keepdims=True) * np.float32(0.55)
    drawn = np.repeat(grey, 3, axis=2)
    wrong = (truth != prediction) & (truth >= 0)
    drawn[wrong] = 0.2 * drawn[wrong] + 0.8 * np.array(_WRONG)
    diagonals = np.add.outer(np.arange(truth.shape[0]), np.arange(truth.shape[1]))
    hatched = (truth < 0) & (diagonals % 8 < 3)
    drawn[hatched] = 0.5 * drawn[hatched] + 0.5 * np.float32(_IGNORED_GREY + 90)
    return np.asarray(drawn.round(), np.uint8)


def comparison(image: Array, truth: Array, prediction: Array, labels: LabelSet) -> Picture:
    """Image, truth, prediction and differences side by side, with titles and a legend: (H', W', 3) uint8.

    image: (C, H, W). truth, prediction: class indices (H, W); where truth is negative nothing is counted.
    Small images are enlarged by a whole factor, large ones thinned out.
    """
    width = truth.shape[1]
    picture, truth, prediction = _scaled([to_rgb(image), truth, prediction])
    counted = truth >= 0
    share = 100 * float((truth == prediction)[counted].mean()) if counted.any() else None
    verdict = "nothing to compare" if share is None else f"{share:.1f} % right"
    line = max(1, picture.shape[1] // width)
    cells = [
        ("Image", "", picture),
        ("Truth", "", _tint(picture, truth, labels, 0.55, line)),
        ("Prediction", "", _tint(picture, prediction, labels, 0.55, line)),
        ("Differences", verdict, draw_differences(picture, truth, prediction)),
    ]
    entries = [*_legend(labels, truth, prediction), ("right", (132, 132, 132)), ("wrong", _WRONG)]
    return _sheet([cells], entries + _not_counted([truth]))


def contact_sheet(
    images: Sequence[Array], indices: Sequence[Array], notes: Sequence[tuple[str, str]], labels: LabelSet
) -> Picture:
    """Crops, each beside itself under its classes, in rows above a legend: (H', W', 3) uint8.

    images: (C, H, W) of one size and dtype, shown on one scale of brightness; indices: (H, W), negative where ignored;
    notes: what stands left and right above each.
    """
    width = images[0].shape[2]
    strip = to_rgb(np.concatenate(images, axis=2))
    cells = []
    for place, (classes, (title, note)) in enumerate(zip(indices, notes, strict=True)):
        crop = strip[:, place * width : (place + 1) * width]
        picture, classes = _scaled([crop, classes], _SMALL_CELL)
        tinted = _tint(picture, classes, labels, 0.5, max(1, len(picture) // width))
        between = np.full((len(picture), 4, 3), _PAPER, np.uint8)
        cells.append((title, note, np.concatenate([picture, between, tinted], axis=1)))
    column = cells[0][2].shape[1] + _GAP
    across = min(len(cells), max(1, (_SHEET_WIDTH - 2 * _MARGIN + _GAP) // column))
    rows = [cells[first : first + across] for first in range(0, len(cells), across)]
    return _sheet(rows, _legend(labels, *indices) + _not_counted(indices))


def _scaled(arrays: Sequence[Array], cell: tuple[int, int] = _CELL) -> list[Array]:
    """Arrays (H, W, ...) enlarged or thinned by one whole factor to a width that suits a cell."""
    height, width = arrays[0].shape[:2]
    least, most = cell
    longest = max(height, width)
    if longest < least:
        factor = -(-least // longest)
        return [array.repeat(factor, axis=0).repeat(factor, axis=1) for array in arrays]
    step = -(-longest // most)
    return [array[::step, ::step] for array in arrays]


def _legend(labels: LabelSet, *indices: Array) -> list[tuple[str, Colour]]:
    """What the colours of the classes that occur stand for; a ground that is not tinted is left out."""
    present = {i for array in indices for i in np.unique(array).tolist()}
    entries = [(labels.names[i], labels.colours[i]) for i in range(labels.count) if i in present]
    if labels.has_ground:
        entries = [entry for entry in entries if entry[0] != labels.names[0]]
    return entries


def _not_counted(indices: Sequence[Array]) -> list[tuple[str, Colour]]:
    return [("not counted", (_IGNORED_GREY + 30,) * 3)] if any((array < 0).any() for array in indices) else []


def _sheet(cells: Sequence[Sequence[tuple[str, str, Picture]]], entries: Sequence[tuple[str, Colour]]) -> Picture:
    """Rows of titled cells, all of one size, above a legend, on paper."""
    height, width = cells[0][0][2].shape[:2]
    column, across = max(width, 190), len(cells[0])
    total = 2 * _MARGIN + across * column + (across - 1) * _GAP
    font = ImageFont.load_default(_FONT)
    rows = _flow(entries, total - 2 * _MARGIN, font)
    below = _TITLE + height + _GAP
    legend_top = _MARGIN + len(cells) * below + 18 - _GAP
    sheet = Image.new("RGB", (total, legend_top + 26 * len(rows) + _MARGIN - 8), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for top, row_of_cells in zip(range(_MARGIN, legend_top, below), cells, strict=False):
        for place, (title, note, picture) in enumerate(row_of_cells):
            left = _MARGIN + place * (column + _GAP)
            draw.text((left, top), title, _INK, font)
            draw.text((left + width, top), note, _FAINT, font, anchor="ra")
            sheet.paste(Image.fromarray(picture), (left, top + _TITLE))
    for line, row in enumerate(rows):
        for left, name, colour in row:
            top = legend_top + 26 * line
            box = (_MARGIN + left, top + 2, _MARGIN + left + _SWATCH, top + 2 + _SWATCH)
            draw.rounded_rectangle(box, 3, colour)
            draw.text((box[2] + 7, top), name, _INK, font)
    return np.asarray(sheet)


def _flow(
    entries: Sequence[tuple[str, Colour]], width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[list[tuple[int, str, Colour]]]:
    """Legend entries in rows of at most `width` px: (left edge, name, colour)."""
    rows: list[list[tuple[int, str, Colour]]] = [[]]
    left = 0
    for name, colour in entries:
        needed = _SWATCH + 7 + int(font.getlength(name)) + 22
        if rows[-1] and left + needed > width:
            rows.append([])
            left = 0
        rows[-1].append((left, name, colour))
        left += needed
    return rows
