"""The page says what the report says, escapes what files are called, and needs nothing from outside."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keepmap
from keepmap.reporting.data_page import data_page

NAME = "<b>x</b> & 'y'.png"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for side in ("images", "masks"):
        (tmp_path / side).mkdir()
    for index in range(5):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(np.eye(20, 30, dtype=np.uint8) * 255).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


class Tags(html.parser.HTMLParser):
    """Counts tags and checks that they close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_shows_the_findings_and_no_markup_of_others(data: Path) -> None:
    bad = data / "images" / NAME.replace("/", "_")
    bad.write_text("no image")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(data / "masks" / bad.name)
    page = data_page(keepmap.check(data / "images", data / "masks"))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "b" not in tags.seen[tags.seen.index("details") :]
    assert "Training would fail" in page
    assert "is not the PNG file that its name promises" in page
    assert "cannot be shown" in page
    assert "prefers-color-scheme: dark" in page


def test_page_needs_nothing_from_outside(data: Path) -> None:
    (data / "images" / "0.png").write_bytes((data / "images" / "1.png").read_bytes())
    page = data_page(keepmap.check(data / "images", data / "masks"))
    assert "data:image/jpeg;base64," in page
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


def test_page_of_good_data_and_of_a_repair(data: Path) -> None:
    page = data_page(keepmap.check(data / "images", data / "masks"))
    assert "Ready to train" in page
    assert "Nothing wrong." in page
    (data / "images" / "0.png").write_bytes(b"")
    keepmap.check(data / "images", data / "masks", fix=data / "out", html=data / "page.html")
    page = (data / "page.html").read_text(encoding="utf-8")
    assert "The repaired copy" in page
    assert "copied to the quarantine" in page


def test_many_findings_are_named_but_not_all_shown(data: Path) -> None:
    for index in range(60):
        (data / "images" / f"empty{index:02}.png").write_bytes(b"")
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(data / "masks" / f"empty{index:02}.png")
    page = data_page(keepmap.check(data / "images", data / "masks"))
    assert "and 30 more:" in page
    assert "images/empty59.png" in page
