"""The tables of the command line: scores per class.

Knows what to show, not how it was measured.
"""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from keepmap.metrics.confusion import Scores
from keepmap.units import in_thousands

_COLUMNS = ("IoU", "Dice", "precision", "recall")


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
    """One row per class, then the means; n/a where a score has no denominator."""
    table = make_table(title)
    table.add_column("class", overflow="fold")
    table.add_column("pixels", justify="right", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in scores.classes:
        values = (row.iou, row.dice, row.precision, row.recall)
        table.add_row(Text(row.name), in_thousands(row.pixels), *map(score, values))
    table.add_section()
    table.add_row("mean", "", score(scores.mean_iou), score(scores.mean_dice), "", "", style="bold")
    table.add_row("pixel accuracy", "", score(scores.pixel_accuracy), "", "", "", style="bold")
    return table


def score(value: float | None) -> str:
    """A fraction with four decimals, or n/a."""
    return "n/a" if value is None else f"{value:.4f}"
