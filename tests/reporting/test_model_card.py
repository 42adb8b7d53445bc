"""The card is read by the Hub's own package, with the numbers of the scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keepmap.config import from_dict, read_json
from keepmap.metrics.confusion import Scores
from keepmap.reporting.cases import Gallery
from keepmap.reporting.model_card import model_card
from keepmap.reporting.run_facts import read_facts
from keepmap.reporting.run_page import Subject


def test_a_card_without_a_number_is_read_too(reported: Any) -> None:
    yaml = pytest.importorskip("yaml")
    facts = read_facts(reported.run)
    figures = tuple(replace(figure, value=None, interval=None) for figure in reported.scores.figures)
    scores = replace(reported.scores, figures=figures)
    subject = Subject("a", "b", False, scores, Gallery((), (), None, 0), facts.labels, facts, "", [])
    text = model_card(subject)
    assert "metrics:" not in text.split("---")[1]
    header = yaml.safe_load(text.split("---")[1])
    assert header["library_name"] == "keepmap" and set(header) == {"library_name", "pipeline_tag", "tags"}


@pytest.mark.parametrize("kind", ["validation", "test"])
def test_the_hub_reads_the_numbers(reported: Any, kind: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    file = reported.run.card_file if kind == "validation" else reported.card
    scores = reported.scores
    if kind == "validation":
        scores = from_dict(Scores, read_json(reported.run.validation_file, format=1), "validation")
    data = hub.ModelCard.load(file).data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("keepmap", "image-segmentation", "run")
    found = {result.metric_type: result for result in data.eval_results}
    assert found["mean_iou"].metric_value == scores.figure("mean IoU").value
    assert found["pixel_accuracy"].metric_value == scores.figure("pixel accuracy").value
    assert {result.dataset_split for result in data.eval_results} == {kind}
    name = f"{reported.data.parent.name}/{reported.data.name}"
    assert {result.dataset_name for result in data.eval_results} == {name}
    assert ("object_f1" in found) == (kind == "test")
    text = file.read_text(encoding="utf-8")
    for row in scores.classes:
        assert f"| {row.name} | {row.iou:.4f} |" in text
    assert f"trained with keepmap {reported.run.read_config().version}." in text
    assert "What these numbers do not tell" in text
