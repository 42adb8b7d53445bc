"""When reports are written, and that nothing fails by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.errors import DataError, OptionError
from keepmap.reporting import writing
from keepmap.reporting.writing import report_training
from keepmap.runs import RunFolder


def test_a_training_never_fails_by_its_report(
    reported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    monkeypatch.setattr(writing.charts, "can_draw", lambda: False)
    report_training(reported.run, keepmap.load, lines)
    assert lines.said[0].startswith("report ") and "pip install matplotlib" in lines.said[1]
    monkeypatch.undo()
    report_training(reported.run, keepmap.load, lines)

    def broken(*_: object) -> None:
        raise DataError("images/a.png has changed.")

    monkeypatch.setattr(writing, "make_gallery", broken)
    report_training(reported.run, keepmap.load, lines)
    assert lines.said[-1] == "note    the report could not be written: images/a.png has changed."
    report_training(RunFolder(tmp_path), keepmap.load, lines)
    assert "never scored" in lines.said[-1]


def test_masks_alone_have_a_page_without_images_and_no_card(reported: Any, tmp_path: Path) -> None:
    masks, page = reported.data / "masks", tmp_path / "page.html"
    keepmap.evaluate(masks, masks, html=str(page), classes=str(reported.data / "classes.txt"))
    text = page.read_text(encoding="utf-8")
    assert "Truth of" in text and 'class="photo"' not in text
    assert "Plan, and why" not in text
    with pytest.raises(OptionError, match="--card is of a RUN"):
        keepmap.evaluate(masks, masks, card=str(tmp_path / "card.md"))
    images = reported.data / "images"
    with pytest.raises(OptionError, match="--card is of one RUN as it is"):
        keepmap.evaluate(reported.run.path, images, masks, card=str(tmp_path / "card.md"), tta="flips")
    assert not (tmp_path / "card.md").exists()
