"""A model card in the format of the Hugging Face Hub: a header in YAML with the scores, and a page in Markdown.

Computes no score and names no licence: that is the decision of whoever publishes the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import jinja2

from keepmap.metrics.confusion import Figure, Scores
from keepmap.reporting.run_facts import data_rows, network_name
from keepmap.reporting.run_page import Subject, between, in_short, untold

_TEMPLATE = Path(__file__).with_name("model_card.md")
_TYPES = {
    "mean IoU": "mean_iou", "mean Dice": "mean_dice", "pixel accuracy": "pixel_accuracy", "boundary F": "boundary_f",
    "object F1": "object_f1", "calibration error": "calibration_error",
}  # fmt: skip
"""Score -> the Hub's name of a metric, or one in its manner."""


def model_card(subject: Subject) -> str:
    """The card as Markdown. Raises ValueError for a subject without a RUN."""
    facts = subject.facts
    if facts is None:
        raise ValueError("a model card is of a RUN")
    environment = jinja2.Environment(
        autoescape=False, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)
    environment.filters["score"] = lambda value: "n/a" if value is None else f"{value:.4f}"
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=facts.folder.path.absolute().name,
        part="validation" if subject.training else "test",
        data=subject.data,
        tags=["semantic-segmentation", "keepmap", facts.config.network],
        metrics=list(_headline(subject.scores)),
        classes=subject.scores.classes,
        resampled=subject.scores.resampled,
        network=network_name(facts.config),
        short=" ".join(in_short(subject)),
        model=subject.model,
        rows=data_rows(facts),
        values=list(zip(facts.labels.values, facts.labels.names, strict=True)),
        untold=list(untold(subject)),
        command=subject.command,
        version=facts.config.version,
    )


def _headline(scores: Scores) -> Iterator[tuple[str, Figure, str]]:
    """The Hub's type, the figure and its interval of each number of the data set that is known."""
    for figure in scores.figures:
        if figure.name in _TYPES and figure.of == "data set" and figure.value is not None:
            yield _TYPES[figure.name], figure, between(figure, 4)
