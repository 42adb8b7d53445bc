"""When reports are written, and that nothing fails by them."""

from __future__ import annotations

import html
import shlex
from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.errors import DataError, OptionError
from keepmap.options import EvaluateOptions
from keepmap.reporting import writing
from keepmap.reporting.writing import report_evaluation, report_training
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


def test_an_exported_file_has_its_size_and_speed_and_the_command_holds_anywhere(
    reported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    (tmp_path / "model.xml").write_bytes(bytes(2048))
    (tmp_path / "model.bin").write_bytes(bytes(4096))
    monkeypatch.chdir(reported.data)
    options = EvaluateOptions(html=str(tmp_path / "page.html"), classes="classes.txt", group_by="folder")
    folders = (tmp_path / "model.xml", Path("images"), Path("masks"))
    report_evaluation(folders, reported.scores, options, lambda _: keepmap.load(reported.run.path), lines, True)
    text = html.unescape((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "<dd>model.xml + model.bin, 6 KiB</dd>" in text
    assert "megapixels a second on the machine that wrote this page, PyTorch" in text
    command = text[text.index("<pre>") + 5 : text.index("</pre>")]
    words = shlex.split(command, comments=True)
    assert words[2:5] == [str(tmp_path / "model.xml"), *(str(reported.data / name) for name in ("images", "masks"))]
    assert words[words.index("--classes") + 1] == str(reported.data / "classes.txt")
    assert words[words.index("--group-by") + 1] == "folder"
    assert command.endswith("# from Python, with network=...")


def test_masks_alone_have_a_page_without_images_and_no_card(reported: Any, tmp_path: Path) -> None:
    masks, page = reported.data / "masks", tmp_path / "page.html"
    keepmap.evaluate(masks, masks, html=str(page), classes=str(reported.data / "classes.txt"))
    text = page.read_text(encoding="utf-8")
    assert "Truth of" in text and 'class="stack photo"' not in text
    assert "Plan, and why" not in text
    with pytest.raises(OptionError, match="--card is of a RUN"):
        keepmap.evaluate(masks, masks, card=str(tmp_path / "card.md"))
    images = reported.data / "images"
    with pytest.raises(OptionError, match="--card is of one RUN as it is"):
        keepmap.evaluate(reported.run.path, images, masks, card=str(tmp_path / "card.md"), tta="flips")
    assert not (tmp_path / "card.md").exists()
