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
from keepmap.evaluation.looking import Look
from keepmap.metrics.confusion import Scores
from keepmap.metrics.scoring import choose_resampling, score
from keepmap.metrics.tally import Extra, Judging, Tally
from keepmap.reporting import charts
from keepmap.reporting import run_page as run_page_module
from keepmap.reporting.cases import Gallery, make_gallery
from keepmap.reporting.run_page import Subject, run_page

MOST_BYTES = 10_000_000
NAMES = ("background", "<b>cell</b>", "dust")
LABELS = LabelSet((0, 1, 2), NAMES, None, default_colours(3))
CUT = """[...document.querySelectorAll("body *")].filter(each => each.getBoundingClientRect().right > 718.5
    && !each.closest("svg")).map(each => each.outerHTML.slice(0, 80))"""
"""What sticks out of a page of paper."""
PHOTOS = """Promise.all([...document.querySelectorAll(".views")].map(each => {
    const photo = new Image();
    photo.src = each.style.getPropertyValue("--base").trim().replace(/^url\\(["']?|["']?\\)$/g, "");
    return photo.decode();
})).then(all => all.length)"""
"""How many photos there are; fails where one cannot be shown."""
EMPTY = Gallery((), (), None, 0)


def scores_of(*pairs: tuple[Any, Any]) -> Scores:
    tally = Tally(NAMES, Judging(shapes=False))
    for number, (truth, prediction) in enumerate(pairs):
        tally.add(f"image<{number}>", np.array(truth), np.array(prediction))
    return score(tally, choose_resampling(tally.stems, {stem: stem for stem in tally.stems}, asked=False))


def page_of(scores: Scores, **others: Any) -> str:
    return run_page(Subject(**{
        "title": "a & b", "data": "c", "training": False, "scores": scores, "gallery": EMPTY, "labels": LABELS,
        "facts": None, "command": "keepmap evaluate a b", "model": [], **others,
    }))  # fmt: skip


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
@pytest.mark.parametrize("kind", ["training", "evaluation"])
def test_a_browser_shows_all_of_it(reported: Any, browser: Any, kind: str, width: int, dark: bool) -> None:
    file = reported.run.report_file if kind == "training" else reported.page
    visit = browser.open(file, width=width, dark=dark)
    page = visit.page
    assert visit.broken_pictures == []
    assert page.locator("img").count() >= 3 * 3
    assert page.locator("[role=img].photo").count() == page.locator(".views").count() == page.evaluate(PHOTOS)
    assert page.content().count("data:image/jpeg") == page.locator(".views").count()
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
    assert_printable(page)


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


def assert_printable(page: Any) -> None:
    """A sheet of A4 between margins of a centimetre is 718 px wide."""
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.pdf(format="A4")[:5] == b"%PDF-"


def test_thirty_classes_are_printed_whole(browser: Any, tmp_path: Path) -> None:
    names = tuple(f"a kind of thing {k}" for k in range(30))
    tally, random = Tally(names, Judging()), np.random.default_rng(0)
    for stem in ("a", "b"):
        truth, prediction = random.integers(0, 30, (2, 60, 60))
        extra = Extra(spacing=(0.5, 0.5), unit="micrometer")
        tally.add(stem, truth, np.where(random.random((60, 60)) < 0.7, truth, prediction), extra)
    scores = score(tally, choose_resampling(tally.stems, {stem: stem for stem in tally.stems}, asked=False))
    labels = LabelSet(tuple(range(30)), names, None, default_colours(30))
    (tmp_path / "page.html").write_text(page_of(scores, labels=labels), encoding="utf-8")
    visit = browser.open(tmp_path / "page.html", width=390)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert_printable(visit.page)


class Noise:
    """Images and predictions of 500 classes in which no pixel is like its neighbour."""

    labels = LabelSet(tuple(range(500)), tuple(f"class number {k}" for k in range(500)), None, default_colours(500))

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)

    def pixels(self, stem: str) -> int:
        return 448 * 448

    def look(self, stem: str) -> Look:
        truth, prediction = self.random.integers(0, 500, (2, 448, 448), np.int16)
        return Look(stem, self.random.integers(0, 256, (3, 448, 448), np.uint8), truth, prediction, 0.0)


def test_noise_of_many_classes_is_a_page_below_ten_megabytes() -> None:
    """Each of ten cases with layers that do not compress, a matrix of 500 x 500, and 5,000 images with a forecast."""
    sight, random = Noise(), np.random.default_rng(1)
    tally = Tally(sight.labels.names, Judging(shapes=False, regions=True))
    for stem in range(6):
        truth, prediction = random.integers(0, 500, (2, 64, 64))
        tally.add(str(stem), truth, np.where(random.random((64, 64)) < 0.5, truth, prediction))
    scores = score(tally, choose_resampling(tally.stems, {stem: stem for stem in tally.stems}, asked=False))
    gallery = make_gallery(scores, sight, 10**9, regions=4)  # type: ignore[arg-type]
    assert len(gallery.cases) + len(gallery.regions) == 10
    many = tuple(replace(scores.images[0], expected_dice=0.5) for _ in range(5000))
    scores = replace(scores, images=many, quality_correlation=0.5)
    text = page_of(scores, gallery=gallery, labels=sight.labels)
    assert MOST_BYTES / 10 < len(text.encode()) < MOST_BYTES
    assert "The 25 of 500 classes with most mistaken pixels." in text and "<th>others</th>" in text
    assert "The weakest 400 of 500 classes." in text and "and 460 more" in text
    assert text.count("<use ") < 5000


def test_the_matrix_of_many_classes_holds_the_most_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(([[0, 0, 1, 1, 1, 2, 2, 2]], [[0, 0, 2, 2, 1, 2, 2, 0]]))
    assert "<th>others</th>" not in page_of(scores)
    monkeypatch.setattr(run_page_module, "_MATRIX", 2)
    text = page_of(scores)
    table = text[text.index('<table class="matrix">') :]
    table = table[: table.index("</table>")]
    assert "<th>background</th>" not in table and "<th>dust</th>" in table
    assert [float(one) for one in re.findall(r">([\d.]+)</td>", table)] == [33.3, 66.7, 66.7, 33.3]


def test_distances_of_a_class_are_in_its_row() -> None:
    tally = Tally(NAMES, Judging())
    truth, prediction = np.zeros((2, 20, 20), np.int8)
    truth[5:9, 5:9] = prediction[5:9, 7:11] = 1
    tally.add("a", truth, prediction)
    text = page_of(score(tally, choose_resampling(["a"], {"a": "a"}, asked=False)))
    row = text[text.index("&lt;b&gt;cell&lt;/b&gt;</td>") :]
    cells = re.findall(r'<td class="number">([^<]*)</td>', row[: row.index("</tr>")])
    assert cells[-3:] == ["2.00", "1.00", "0.00"]


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
