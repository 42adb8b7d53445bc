"""Charts of a report as SVG text, drawn with matplotlib, in colours that the page decides: light, dark or on paper.

Computes no number, and draws nothing where matplotlib is not installed.
"""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from keepmap import external
from keepmap.metrics.confusion import ImageScores, ReliabilityBin

_SIZE = (5.0, 2.9)  # inches, of 72 px each: a column of the page, and the width of a phone
_INK, _FAINT, _LINE, _MAIN, _OTHER = "#010203", "#020304", "#030405", "#040506", "#050607"
_VARIABLES = {_INK: "ink", _FAINT: "faint", _LINE: "line", _MAIN: "main", _OTHER: "other"}
"""Colours that stand in the drawing for those of the page."""
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "keepmap", "font.size": 10.5, "text.color": _INK, "axes.labelcolor": _FAINT,
    "axes.edgecolor": _LINE, "xtick.color": _LINE, "ytick.color": _LINE, "xtick.labelcolor": _FAINT,
    "ytick.labelcolor": _FAINT, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": _LINE, "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.linewidth": 0.8,
    "legend.frameon": False, "legend.fontsize": 10.5,
}  # fmt: skip
_BINS = 20
_POINTS = 2000
"""Points of a curve or a cloud, at most, so that a page stays small; of more, every so many-th is drawn."""

Paint = Callable[[Any], None]


def can_draw() -> bool:
    """Whether there is what charts are drawn with."""
    return external.available("matplotlib")


def losses(steps: Sequence[int], values: Sequence[float]) -> str:
    """The loss over the steps."""

    def paint(axes: Any) -> None:
        marker = "o" if len(steps) < 3 else None
        axes.plot(_thinned(steps), _thinned(values), color=_MAIN, linewidth=1.6, marker=marker, markersize=3)
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="loss")

    return _drawn(paint, "The loss over the steps of the training")


def validations(steps: Sequence[int], values: Sequence[float], best: int) -> str:
    """Mean IoU on the held-out images over the steps. best: place of the one whose weights are kept."""

    def paint(axes: Any) -> None:
        axes.plot(steps, values, color=_OTHER, linewidth=1.6, marker="o", markersize=3.5)
        axes.plot([steps[best]], [values[best]], color=_MAIN, marker="o", markersize=8, linestyle="", label="kept")
        axes.set(xlabel="step", ylabel="mean IoU, held out", ylim=(0, 1))
        axes.legend(loc="lower right")

    return _drawn(paint, "Mean IoU on the held-out images over the steps of the training")


def reliability(bins: Sequence[ReliabilityBin]) -> str:
    """How many pixels are right by how probable they were said to be; dots by their share of all pixels."""
    known = [(b.confidence, b.accuracy, b.pixels) for b in bins if b.confidence is not None and b.accuracy is not None]
    most = max(pixels for *_, pixels in known)

    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot([c for c, *_ in known], [a for _, a, _ in known], color=_MAIN, linewidth=1.6)
        areas = [12 + 110 * pixels / most for *_, pixels in known]
        axes.scatter([c for c, *_ in known], [a for _, a, _ in known], s=areas, color=_MAIN)
        axes.set(xlabel="probability that is stated", ylabel="share that is right", xlim=(0, 1.03), ylim=(0, 1.05))

    return _drawn(paint, "The share of right pixels by the stated probability, beside the diagonal of a perfect model")


def distribution(values: Sequence[float], name: str) -> str:
    """How many images have which score in 0..1, and their median."""
    middle = statistics.median(values)

    def paint(axes: Any) -> None:
        axes.hist(values, bins=[place / _BINS for place in range(_BINS + 1)], color=_MAIN, rwidth=0.86)
        axes.axvline(middle, color=_OTHER, linewidth=1.4, label=f"median {middle:.2f}")
        axes.set(xlabel=f"{name} of an image", ylabel="images", xlim=(0, 1))
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="upper left")

    return _drawn(paint, f"The number of images by their {name}")


def forecasts(images: Sequence[ImageScores]) -> str:
    """The Dice that the probabilities expect of each image, and the one it has. At least one image has both."""
    both = [(i.expected_dice, i.mean_dice) for i in images if i.expected_dice is not None and i.mean_dice is not None]
    known = _thinned(both)

    def paint(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axes.scatter(*zip(*known, strict=True), s=16, color=_MAIN, alpha=0.7, linewidths=0)
        axes.set(xlabel="expected Dice, without the truth", ylabel="real Dice", xlim=(0, 1), ylim=(0, 1.02))

    return _drawn(paint, "The real Dice of each image by the one that the probabilities expect")


def _thinned(values: Sequence[Any]) -> Sequence[Any]:
    return values[:: -(-len(values) // _POINTS) or 1]


def _drawn(paint: Paint, words: str) -> str:
    """An `<svg>` that is described by `words`. Raises MissingPackage."""
    matplotlib = external.load("matplotlib", "a chart")
    figures = external.load("matplotlib.figure", "a chart")
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.tick_params(length=0)
        paint(axes)
        buffer = io.StringIO()
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=unsaid)
    return _for_the_page(buffer.getvalue(), words)


def _for_the_page(svg: str, words: str) -> str:
    """The drawing without prologue, fixed size and names of its parts, in the fonts and colours of the page."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{words}">', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[\w.]+_\d+">', "<g>", text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]+; ?", "", text)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text)
