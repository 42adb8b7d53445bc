"""The report on a training or an evaluation as one HTML page, which needs no other file and no network.

Computes no score: it shows what the scores hold, beside what the files of the RUN say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from keepmap import __version__, external
from keepmap.data.labels import LabelSet
from keepmap.metrics.confusion import ClassScores, Figure, Scores
from keepmap.reporting import charts
from keepmap.reporting.cases import Gallery
from keepmap.reporting.run_facts import Rows, RunFacts, course, curve, data_rows, plan_groups, remarks
from keepmap.units import in_thousands

_TEMPLATE = Path(__file__).with_name("run_page.html")
_WORST = 10  # images in the table
_CLASSES, _MATRIX, _NAMES = 400, 25, 40
"""Classes in a table, in the matrix and in the legend, at most: what a page below 10 MB and a reader can hold."""
_RARE = 0.005
"""Share of the pixels below which a class is called rare."""
_TILES = ("mean IoU", "mean Dice", "pixel accuracy", "boundary F", "object F1")
_CLASS_COLUMNS = {
    "iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall", "boundary_f": "boundary F",
    "surface_dice": "surface Dice", "object_f1": "object F1", "ap50": "AP50", "hausdorff95": "Hausdorff 95 %, px",
    "surface_distance": "surface distance, px", "count_error": "count error",
}  # fmt: skip
_LENGTHS = ("hausdorff95", "surface_distance", "count_error")
"""Numbers of a class that are no fractions."""
_OF = {"data set": "all pixels together", "image": "mean of the images"}


@dataclass(frozen=True)
class Subject:
    """What a report is on. title: its name; data: that of the images; training: whether a training held these out.

    command: what reproduces it. facts: None where there is no RUN. model: what is known of what predicted.
    """

    title: str
    data: str
    training: bool
    scores: Scores
    gallery: Gallery
    labels: LabelSet
    facts: RunFacts | None
    command: str
    model: Rows


def run_page(subject: Subject) -> str:
    """The page as HTML text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["thousands"] = in_thousands
    environment.filters["score"] = _number
    scores, facts, gallery = subject.scores, subject.facts, subject.gallery
    names = [row.name for row in scores.classes]
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        subject=subject,
        scores=scores,
        gallery=gallery,
        colours=dict(zip(names, ("#{:02x}{:02x}{:02x}".format(*c) for c in subject.labels.colours), strict=True)),
        legend=names[:_NAMES],
        classes=list(_weakest(scores)),
        lengths=_LENGTHS,
        tiles=list(_tiles(scores)),
        short=list(in_short(subject)),
        figures=list(_figure_rows(scores)),
        columns=[(name, text) for name, text in _CLASS_COLUMNS.items() if _has(scores, name)],
        matrix=list(_shares(scores)),
        drawings=list(_drawings(subject)),
        missing="" if charts.can_draw() else external.install_line("matplotlib"),
        worst=[image for image in scores.images if image.mean_iou is not None][:_WORST],
        data=data_rows(facts) if facts else [],
        shares=list(_class_shares(facts))[:_CLASSES] if facts else [],
        plan=list(plan_groups(facts.plan)) if facts and facts.plan else [],
        remarks=remarks(facts) if facts else [],
        course=course(facts) if facts else "",
        untold=list(untold(subject)),
        version=__version__,
    )


def _number(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def between(figure: Figure, digits: int = 3) -> str:
    """The interval of a figure in words, "" for none."""
    return "" if figure.interval is None else f"{figure.interval[0]:.{digits}f} to {figure.interval[1]:.{digits}f}"


def _tiles(scores: Scores) -> Iterator[dict[str, str]]:
    for figure in scores.figures:
        if figure.name in _TILES and figure.of == "data set" and figure.value is not None:
            yield {"name": figure.name, "value": f"{figure.value:.3f}", "between": between(figure)}


def in_short(subject: Subject) -> Iterator[str]:
    """What a reader with one minute should know, in sentences."""
    scores = subject.scores
    where = "images that the training held out" if subject.training else "images"
    count = len(scores.images)
    if scores.trained_on:
        yield f"Warning: {scores.remarks[0]}."
    if scores.pixel_accuracy is not None:
        on = f"{count} {where}" if count > 1 else f"one {where.replace('images', 'image')}"
        yield f"On {on}, {100 * scores.pixel_accuracy:.1f} % of the pixels get the right class."
    ranked = sorted((row for row in scores.classes if row.iou is not None), key=lambda row: row.iou or 0.0)
    if len(ranked) > 1:
        worst, best = ranked[0], ranked[-1]
        yield f"Best at {best.name} (IoU {best.iou:.2f}), weakest at {worst.name} (IoU {worst.iou:.2f})."
    never = [row.name for row in scores.classes if row.pixels and row.precision is None]
    if never:
        yield f"Never predicted: {', '.join(never)}."
    worst_images = [image for image in scores.images if image.mean_iou is not None][:3]
    if len(scores.images) > 3 and worst_images:
        yield f"Look first at {', '.join(f'{image.stem} ({image.mean_iou:.2f})' for image in worst_images)}."


def _figure_rows(scores: Scores) -> Iterator[dict[str, Any]]:
    for figure in scores.figures:
        digits = 3 if not figure.unit else 2
        places = figure.interval if not figure.unit and figure.interval else None
        yield {
            "name": figure.name.removesuffix(", in units"), "of": _of(figure, len(scores.images)), "unit": figure.unit,
            "value": _number(figure.value, digits), "between": between(figure, digits),
            "at": None if figure.unit or figure.value is None or figure.value > 1 else 100 * figure.value,
            "low": 100 * min(places[0], 1) if places else None,
            "wide": 100 * (min(places[1], 1) - min(places[0], 1)) if places else None,
        }  # fmt: skip


def _of(figure: Figure, images: int) -> str:
    """What a figure is of; how many images, where it is n/a in some."""
    some = figure.of == "image" and figure.images < images
    return f"mean of {figure.images} of {images} images" if some else _OF[figure.of]


def _has(scores: Scores, name: str) -> bool:
    return any(getattr(row, name) is not None for row in scores.classes)


def _weakest(scores: Scores) -> list[ClassScores]:
    """All classes in their order; of more than a table holds, those with the lowest IoU."""
    if len(scores.classes) <= _CLASSES:
        return list(scores.classes)
    known = [row for row in scores.classes if row.iou is not None]
    return sorted(known, key=lambda row: row.iou or 0.0)[:_CLASSES]


def _confused(scores: Scores) -> list[int]:
    """The classes of the matrix, by place: all, or of many those with most pixels taken for or from others."""
    matrix = np.array(scores.matrix)
    wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    return sorted(np.argsort(-wrong, kind="stable")[:_MATRIX].tolist())


def _shares(scores: Scores) -> Iterator[tuple[str, list[float | None]]]:
    """Of each true class of the matrix, the share of its pixels that were given each of these; behind them, others.

    None for a class without pixels.
    """
    shown = _confused(scores)
    for place in shown:
        counts = scores.matrix[place]
        total, found = sum(counts), [counts[other] for other in shown]
        rest = [total - sum(found)] * (len(shown) < len(scores.classes))
        yield scores.classes[place].name, [count / total if total else None for count in (*found, *rest)]


def _drawings(subject: Subject) -> Iterator[dict[str, str]]:
    """Charts with a title and a sentence on how to read them; none where there is nothing to draw or to draw with."""
    scores, facts = subject.scores, subject.facts
    if not charts.can_draw():
        return
    if subject.training and facts:
        steps, values = curve(facts, "loss")
        if steps:
            said = "Falls fast, then slowly. Rising at the end is a bad sign."
            yield _drawing("Loss", charts.losses(steps, values), said)
        steps, values = curve(facts, "validation_mean_iou")
        if steps:
            marked = [step for step, kept in zip(*curve(facts, "kept"), strict=True) if kept and step in steps]
            highest = max(range(len(values)), key=lambda place: (values[place], place))
            best = steps.index(marked[-1]) if marked else highest
            said = "Scores of the held-out images on the way. The weights of the marked one are kept."
            yield _drawing("Validation", charts.validations(steps, values, best), said)
    known = [image.mean_iou for image in scores.images if image.mean_iou is not None]
    if len(known) > 1:
        said = "A long tail to the left would be kinds of images that are not understood."
        yield _drawing("Distribution over the images", charts.distribution(known, "mean IoU"), said)
    if any(one.pixels for one in scores.reliability):
        said = "Below the diagonal the model is too sure of itself, above it too careful. Large dots hold many pixels."
        yield _drawing("Reliability of the probabilities", charts.reliability(scores.reliability), said)
    if scores.quality_correlation is not None:
        said = (
            f"Rank correlation {scores.quality_correlation:.2f}: how well the expected Dice, which needs no truth, "
            "sorts the images by quality. 1 is perfect, 0 is chance."
        )
        yield _drawing("Predicted quality", charts.forecasts(scores.images), said)


def _drawing(title: str, svg: str, reading: str) -> dict[str, str]:
    return {"title": title, "svg": svg, "reading": reading}


def _class_shares(facts: RunFacts) -> Iterator[dict[str, Any]]:
    """Each class of the training images: colour, name, share of the pixels and of the images."""
    if facts.figures is None:
        return
    rows = zip(
        facts.labels.names, facts.labels.colours, facts.figures.class_shares, facts.figures.image_shares, strict=True
    )
    for name, colour, pixels, images in rows:
        text = "#{:02x}{:02x}{:02x}".format(*colour)
        yield {"name": name, "colour": text, "pixels": 100 * pixels, "images": 100 * images}


def untold(subject: Subject) -> Iterator[str]:
    """What the numbers of a report do not say, in sentences."""
    scores = subject.scores
    if subject.training:
        yield (
            "The weights were chosen by these very images, the best of several validations. So the scores are a little "
            "too good. For a number to quote, run keepmap evaluate on images that the training never saw."
        )
        yield "One training with one seed: another seed gives other numbers."
    if scores.resampled.startswith("95 %"):
        yield (
            f"The {scores.resampled} say how far the numbers move on more images of this kind. They know nothing of "
            "other cameras, sites, preparations or seasons."
        )
    else:
        yield f"There is {scores.resampled}: nobody knows how far the numbers move on other images."
    yield "The truth is taken as true. A mistake in a mask counts as a mistake of the model."
    total = sum(row.pixels for row in scores.classes)
    rare = [row.name for row in scores.classes if row.pixels < _RARE * total]
    if rare:
        yield f"Less than {_RARE:.1%} of the pixels each: {', '.join(rare)}. Their scores hang on a few objects."
    if not _has(scores, "object_f1"):
        yield "Pixels are counted, neither objects nor outlines: keepmap evaluate scores those too."
    if subject.training and scores.reliability:
        yield "The temperature was fitted on the pixels that the reliability is shown for."

