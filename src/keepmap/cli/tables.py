"""The tables of the command line: scores per class and headline numbers, of one source or of two side by side.

Knows what to show, not how it was measured.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from keepmap.evaluation.sources import Pairing, WrongPlace, worst_places
from keepmap.metrics.confusion import Figure, ImageScores, Interval, Scores
from keepmap.units import in_thousands

_COLUMNS = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"}
_SHAPES = {"boundary_f": "bound. F", "object_f1": "object F1"}
_WORST = 3


def make_table(title: str = "") -> Table:
    """An empty table in the style of all others."""
    return Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title or None,
        title_justify="left",
        pad_edge=False,
        show_edge=False,
    )


def score_table(scores: Scores, title: str = "") -> Table:
    """One row per class, then the means, unless `figure_table` shows them; n/a where a score has no denominator."""
    shapes = {name: _SHAPES[name] for name in _SHAPES if any(getattr(row, name) is not None for row in scores.classes)}
    table = make_table(title)
    table.add_column("class", overflow="fold")
    table.add_column("pixels", justify="right", no_wrap=True)
    for text in (_COLUMNS | shapes).values():
        table.add_column(text, justify="right", no_wrap=True)
    for row in scores.classes:
        values = (getattr(row, name) for name in _COLUMNS | shapes)
        table.add_row(Text(row.name), in_thousands(row.pixels), *map(score, values))
    if not scores.figures:
        table.add_section()
        table.add_row("mean", "", score(scores.mean_iou), score(scores.mean_dice), style="bold")
        table.add_row("pixel accuracy", "", score(scores.pixel_accuracy), style="bold")
    return table


def figure_table(scores: Scores) -> Table:
    """One row per headline number: over the data set, and the mean of the images' own, each with its interval."""
    table = make_table()
    table.add_column("score", overflow="fold")
    for text in ("data set (95 %)", "per image (95 %)"):
        table.add_column(text, justify="right", no_wrap=True)
    names = list(dict.fromkeys(figure.name for figure in scores.figures))
    for name in names:
        of = {figure.of: figure for figure in scores.figures if figure.name == name}
        unit = next(iter(of.values())).unit
        label = name if not unit else f"{name.removesuffix(', in units')}, {unit}"
        image = of.get("image")
        if image is not None and image.images < len(scores.images):
            label += f" ({image.images} images)"
        table.add_row(label, with_interval(of.get("data set")), with_interval(image))
    return table


def with_interval(figure: Figure | None) -> str:
    """A number and its interval: "0.8123 (0.79 to 0.83)"; nothing for none."""
    if figure is None:
        return ""
    digits = _digits(figure.unit, figure.value)
    return f"{score(figure.value, digits)}{_between(figure.interval, digits)}"


def _digits(unit: str, value: float | None) -> int:
    """Decimals of a number: four of a fraction, of a length as many as are worth their place."""
    if not unit:
        return 4
    return 2 if abs(value or 0) < 100 else 0


def _between(interval: Interval | None, digits: int, sign: str = "") -> str:
    bounds = [f"{bound:{sign}.{min(digits, 3)}f}" for bound in interval or ()]
    return f" ({' to '.join(bounds)})" if bounds else ""


def score_notes(scores: Scores) -> list[str]:
    """What the intervals are over, what is n/a and why, and which images are worst."""
    worst = [f"{image.stem} {image.mean_iou:.3f}" for image in scores.images[:_WORST] if image.mean_iou is not None]
    notes = ["", f"{scores.resampled}."]
    if scores.quality_correlation is not None:
        notes.append(f"Expected Dice against the real one, rank correlation: {scores.quality_correlation:.2f}.")
    if scores.area_unit:
        areas = [f"{row.name} {row.area:.4g} ({row.predicted_area:.4g} predicted)" for row in scores.classes]
        notes.append(f"Area, {scores.area_unit}: {', '.join(areas)}.")
    notes += [f"{remark}." for remark in scores.remarks]
    known = sorted(((row.iou, row.name) for row in scores.classes if row.iou is not None), key=lambda pair: pair[0])
    if len(known) > 1:
        notes.append(f"Worst classes by IoU: {', '.join(f'{name} {value:.3f}' for value, name in known[:_WORST])}.")
    if places := worst_places(scores.images)[:_WORST]:
        notes.append(f"Worst regions: {_places(places)}.")
    return [*notes, f"Worst images by mean IoU: {', '.join(worst)}." if len(scores.images) > 1 and worst else ""]


def _places(places: Sequence[WrongPlace]) -> str:
    """The squares in words: "a 512 wrong px in rows 0 to 127, columns 128 to 255"."""
    return "; ".join(
        f"{place.stem} {one.wrong} wrong px in rows {one.row} to {one.row + one.height - 1}, "
        f"columns {one.column} to {one.column + one.width - 1}"
        for place in places
        for one in (place.region,)
    )


def image_lines(scores: Scores) -> str:
    """The images as CSV, worst mean IoU first; n/a is empty, the IoU of each class is a column of its name."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fields = [field.name for field in dataclasses.fields(ImageScores) if field.name not in ("iou", "worst_region")]
    writer.writerow([*fields, *(f"iou {row.name}" for row in scores.classes)])
    for image in scores.images:
        values: list[Any] = [*(getattr(image, name) for name in fields), *image.iou]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def pairing_parts(pairing: Pairing) -> list[RenderableType]:
    """One comparison of two sources: numbers side by side, then the classes and images that lost most."""
    table = make_table()
    table.add_column("score", overflow="fold")
    table.add_column("of", overflow="fold")
    for text in ("first", "second", "difference (95 %)"):
        table.add_column(text, justify="right", no_wrap=True)
    most = max(number.images for number in pairing.numbers)
    for number in pairing.numbers:
        digits = _digits(number.unit, number.first)
        name = "IoU" if number.of == "class" else number.name.removesuffix(", in units")
        of = number.name if number.of == "class" else number.of
        if number.images < most:
            of = f"{number.images} of {most} images"
        difference = "n/a" if number.difference is None else f"{number.difference:+.{digits}f}"
        table.add_row(
            Text(name if not number.unit else f"{name}, {number.unit}"), Text(of), score(number.first, digits),
            score(number.second, digits), difference + _between(number.interval, digits, "+"),
        )  # fmt: skip
    parts: list[RenderableType] = [Text(f"first  {pairing.first}\nsecond {pairing.second}\n"), table]
    if pairing.worst_classes:
        parts.append(Text(f"\nLost most IoU: {', '.join(pairing.worst_classes)}."))
    if pairing.worst_images:
        images = ", ".join(f"{image.stem} {image.first:.3f} to {image.second:.3f}" for image in pairing.worst_images)
        parts.append(Text(f"Lost most mean IoU: {images}."))
    if pairing.worst_regions:
        parts.append(Text(f"Lost images, worst regions: {_places(pairing.worst_regions[:_WORST])}."))
    return parts


def score(value: float | None, digits: int = 4) -> str:
    """A number with so many decimals, or n/a."""
    return "n/a" if value is None else f"{value:.{digits}f}"
