"""The page in a real browser: an image goes in, a mask is seen and comes out, and what is wrong is said."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepmap.serving.page import read_page


def test_one_file_under_a_policy_without_exceptions() -> None:
    content, policy = read_page()
    text = content.decode()
    assert "unsafe" not in policy and policy.count("sha256-") == 2
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\((?!data:)|\son\w+=["']|\sstyle=""", text)
    assert re.findall(r"https?://[^'\s]+", text) == ["http://www.w3.org/2000/svg"]


def stage(page: Any) -> Any:
    """The pixels of the viewer."""
    return np.asarray(Image.open(io.BytesIO(page.locator("#stage").screenshot())).convert("RGB")).astype(int)


def saved(page: Any, button: str) -> tuple[str, bytes]:
    with page.expect_download() as caught:
        page.locator(button).click()
    return caught.value.suggested_filename, Path(caught.value.path()).read_bytes()


def choose(page: Any, *files: Path) -> None:
    page.set_input_files("#files", [str(file) for file in files])
    page.locator(".thumb").nth(len(files) - 1).wait_for()


def test_from_image_to_downloads(browser: Any, ask: Any, images: Path, masks: Path) -> None:
    page = browser.open(f"http://127.0.0.1:{ask.port}/").page
    choose(page, images / "a.png", images / "e.tif")
    page.locator("#take").wait_for()
    assert "40 x 31 px, PNG" in page.locator("#facts").inner_text()
    rows = page.locator("#legend li").all_inner_texts()
    truth = np.asarray(Image.open(masks / "a.png")) > 0
    share = 100 * truth.mean()
    assert len(rows) == 2 and "cell" in rows[1] and f"{share:.1f} %" in rows[1]
    half = stage(page)
    page.locator("#opacity").fill("100")
    full = stage(page)
    page.locator("#opacity").fill("0")
    none = stage(page)
    changed = np.abs(full - none).sum(axis=2) > 30
    assert changed.any() and not np.array_equal(half, full)
    page.locator("#opacity").fill("100")
    page.get_by_role("switch", name="cell").uncheck()
    assert np.abs(stage(page) - none).max() <= 2
    page.get_by_role("switch", name="cell").check()
    name, content = saved(page, "#mask")
    assert (name, content) == ("a_mask.png", (masks / "a.png").read_bytes())
    name, content = saved(page, "#overlay")
    picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert name == "a_overlay.png" and picture.shape == (31, 40, 3)
    original = np.asarray(Image.open(images / "a.png"))
    np.testing.assert_array_equal(picture[~truth], original[~truth])
    page.get_by_role("button", name="e.tif").first.click()
    page.get_by_text("45 x 33 px, TIFF").wait_for()
    assert "m\u00b2" in page.locator("#legend li").last.inner_text()
    lines = saved(page, "#table")[1].decode().split("\r\n")
    assert lines[0].startswith("image,class,value,pixels") and len(lines) == 6
    assert lines[2].startswith(f"a.png,cell,255,{truth.sum()},")


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
def test_by_keyboard_and_side_by_side(browser: Any, ask: Any, images: Path, width: int, dark: bool) -> None:
    page = browser.open(f"http://127.0.0.1:{ask.port}/", width=width, dark=dark).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    choose(page, images / "b.jpg")
    page.locator("#take").wait_for()
    whole = page.locator("#scale").inner_text()
    page.locator("#stage").focus()
    for key in ("+", "+", "ArrowLeft"):
        page.keyboard.press(key)
    assert page.locator("#scale").inner_text() != whole
    page.keyboard.press("0")
    assert page.locator("#scale").inner_text() == whole
    before = stage(page)
    page.locator("#beside").press("Enter")
    assert page.locator("#beside").get_attribute("aria-pressed") == "true"
    assert not np.array_equal(stage(page), before)
    page.locator("#about").press("Enter")
    assert "unet" in page.locator("#card").inner_text()
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    names = page.evaluate(
        "[...document.querySelectorAll('button, input, canvas[tabindex]')].filter(e => e.offsetParent).map(e =>"
        " e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length && 'label') || '')"
    )
    assert all(names)


def test_an_error_is_said_in_words_and_can_be_tried_again(browser: Any, ask: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("these are words")
    visit = browser.open(f"http://127.0.0.1:{ask.port}/")
    choose(visit.page, tmp_path / "notes.png")
    visit.page.locator("#again").wait_for()
    alert = visit.page.get_by_role("alert").inner_text()
    assert "format that is not taken" in alert and "What to do" in alert
    assert "notes.png" in visit.page.locator("#status").inner_text()
    visit.page.locator("#drop-it").click()
    visit.page.get_by_text("Drop images here").wait_for()
    assert len(visit.errors) == 1 and "415" in visit.errors.pop()  # the browser's own line for the answer


def test_a_token_is_asked_for(browser: Any, strict: Any, images: Path) -> None:
    visit = browser.open(f"http://127.0.0.1:{strict.port}/")
    visit.page.locator("#token").fill("secret")
    visit.page.locator("#token").press("Enter")
    visit.page.locator("#name", has_text="cells").wait_for()
    assert all("401" in error for error in visit.errors)
    visit.errors.clear()
    given = browser.open(f"http://127.0.0.1:{strict.port}/#token=secret")
    given.page.locator("#name", has_text="cells").wait_for()
    assert given.page.url == f"http://127.0.0.1:{strict.port}/"
