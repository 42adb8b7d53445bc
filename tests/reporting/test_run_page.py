"""The report of a training and of an evaluation: what it says, and what a real browser makes of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepmap.config import from_dict, read_json
from keepmap.data.labels import LabelSet, default_colours
from keepmap.metrics.confusion import Scores
from keepmap.metrics.scoring import choose_resampling, score
from keepmap.metrics.tally import Judging, Tally
from keepmap.reporting import charts
from keepmap.reporting.cases import Gallery
from keepmap.reporting.run_page import Subject, run_page

MOST_BYTES = 10_000_000
NAMES = ("background", "<b>cell</b>", "dust")
LABELS = LabelSet((0, 1, 2), NAMES, None, default_colours(3))
EMPTY = Gallery((), (), None, 0)


def scores_of(*pairs: tuple[Any, Any]) -> Scores:
    tally = Tally(NAMES, Judging(shapes=False))
    for number, (truth, prediction) in enumerate(pairs):
        tally.add(f"image<{number}>", np.array(truth), np.array(prediction))
    return score(tally, choose_resampling(tally.stems, {stem: stem for stem in tally.stems}, asked=False))


def page_of(scores: Scores, **others: Any) -> str:
    return run_page(Subject(**{
        "title": "a & b", "data": "c", "training": False, "scores": scores, "gallery": EMPTY, "labels": LABELS,
        "facts": None, "command": "keepmap evaluate a b", **others,
    }))  # fmt: skip


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_a_browser_shows_all_of_it(reported: Any, browser: Any, kind: str, width: int, dark: bool) -> None:
    file = reported.run.report_file if kind == "training" else reported.page
    visit = browser.open(file, width=width, dark=dark)
    page = visit.page
    assert visit.broken_pictures == []
    assert page.locator("img").count() >= 4 * 3
    assert page.locator(".chart svg").count() == (4 if kind == "training" else 3)
    assert {url.split(":")[0] for url in visit.requests} <= {"file", "data"}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        cut = "[...document.querySelectorAll('.scroll')].some(each => each.scrollWidth > each.clientWidth)"
        assert not page.evaluate(cut)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 200) == dark
    opacity = "getComputedStyle(document.querySelector('.stack.prediction img')).opacity"
    assert page.evaluate(opacity) == "0.8"
    page.locator("#overlay").fill("25")
    assert page.evaluate(opacity) == "0.25"
    assert page.locator("#shown").inner_text() == "25 %"
    page.locator("#overlay").press("ArrowLeft")
    assert page.evaluate(opacity) == "0.24"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0


@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_the_page_is_one_file_that_needs_no_other(reported: Any, kind: str) -> None:
    file: Path = reported.run.report_file if kind == "training" else reported.page
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_size < MOST_BYTES
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    assert not re.search(r"https?://(?!www\.w3\.org/)|<link|@import", text)
    assert "<i>data" not in text
    for word in ("What it does", "Scores", "Classes", "What is taken for what", "Curves", "Plan, and why", "Model",
                 "Data of the training", "What this does not tell", "Again"):  # fmt: skip
        assert f"<h2>{word}</h2>" in text, word


def test_numbers_are_those_of_the_scores(reported: Any) -> None:
    scores = from_dict(Scores, read_json(reported.run.validation_file, format=1), "validation")
    text = reported.run.report_file.read_text(encoding="utf-8")
    assert scores.pixel_accuracy is not None
    assert f"{100 * scores.pixel_accuracy:.1f} % of the pixels" in text
    for figure in scores.figures:
        if figure.of == "data set":
            assert figure.interval is not None
            assert f"{figure.value:.3f}" in text
            assert f"{figure.interval[0]:.3f} to {figure.interval[1]:.3f}" in text
    assert scores.images[0].stem in text
    assert "The weights were chosen by these very images" in text
    assert "The weights were chosen" not in reported.page.read_text(encoding="utf-8")


def test_one_image_says_that_there_is_no_interval() -> None:
    text = page_of(scores_of(([[0, 1, 1]], [[0, 1, 0]])))
    assert "no interval" in text
    assert "There is one image only: no intervals: nobody knows" in text
    assert "On one image" in text


def test_all_ignored_is_not_available() -> None:
    text = page_of(scores_of(([[-1, -1]], [[0, 1]]), ([[-1, -1]], [[0, 1]])))
    assert "n/a" in text
    assert "2 of 2 images have no pixel that is not ignored" in text


def test_a_mean_over_some_images_says_how_many() -> None:
    text = page_of(scores_of(([[-1, -1]], [[0, 1]]), ([[0, 1]], [[0, 1]])))
    assert "mean of 1 of 2 images" in text and "mean of the images" not in text


def test_names_are_no_markup_and_what_is_never_predicted_is_said() -> None:
    scores = scores_of(([[0, 2]], [[0, 1]]), ([[0, 0]], [[0, 0]]))
    text = page_of(scores)
    assert "<b>cell" not in text and "image<0>" not in text
    assert "Never predicted: dust." in text


def test_without_matplotlib_there_are_no_charts_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(([[0, 1]], [[0, 1]]), ([[0, 1]], [[0, 0]]))
    assert "<svg" in page_of(scores)
    monkeypatch.setattr(charts, "can_draw", lambda: False)
    text = page_of(replace(scores, remarks=("odd",)))
    assert "<svg" not in text
    assert "pip install matplotlib" in text
    assert "odd." in text
