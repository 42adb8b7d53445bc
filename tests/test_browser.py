"""The browser of the tests sees what a page does wrong, and lets nothing off this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

GOOD = "<!doctype html><meta name=viewport content='width=device-width'><title>a</title><p>b</p>"
PICTURE = "<img src='data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22 width=%229%22 height=%229%22/>'>"


@pytest.mark.parametrize(
    ("page", "width", "left", "errors"),
    [
        (GOOD, 1280, 0, ""),
        (GOOD, 390, 0, ""),
        (GOOD + "<script>console.error('odd')</script>", 1280, 0, "odd"),
        (GOOD + "<script>absent()</script>", 1280, 0, "absent is not defined"),
        (GOOD + "<img src='http://example.com/a.png'>", 1280, 1, "example.com"),
        (GOOD + "<img src='beside.png'>", 1280, 0, "beside.png"),
    ],
    ids=["good", "phone", "console", "exception", "leaves", "no file"],
)
def test_what_goes_wrong_is_seen(
    browser: Any, tmp_path: Path, page: str, width: int, left: int, errors: str
) -> None:
    file = tmp_path / "page.html"
    file.write_text(page)
    visit = browser.open(file, width=width, dark=width < 600)
    assert visit.page.evaluate("innerWidth") == width
    assert visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (width < 600)
    assert len(visit.left) == left
    if errors:
        assert any(errors in error for error in visit.errors)
        with pytest.raises(AssertionError):
            browser.close()


def test_broken_pictures_are_seen(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(GOOD + PICTURE + "<img src='data:image/png;base64,AAAA'>")
    assert browser.open(file).broken_pictures == ["data:image/png;base64,AAAA"]
