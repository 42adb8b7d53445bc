"""The page in a real browser: an image goes in, a mask is seen and comes out, and what is wrong is said."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from keepmap.serving.page import read_page


def test_one_file_under_a_policy_without_exceptions() -> None:
    content, policy = read_page()
    text = content.decode()
    assert "unsafe" not in policy and policy.count("sha256-") == 2
    assert not re.search(r"""(?:src|href)=["'](?!data:)|@import|url\((?!data:)|\son\w+=["']|\sstyle=""", text)
    assert re.findall(r"https?://[^'\s]+", text) == ["http://www.w3.org/2000/svg"]


def test_words_stand_out_in_light_and_dark() -> None:
    schemes = re.findall(r":root \{(.*?)\}", read_page()[0].decode(), flags=re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): #(\w{6})", scheme)) for scheme in schemes)
    for colours in (light, dark):
        bright = {name: luminance(colour) for name, colour in colours.items()}
        pairs = [(word, paper) for word in ("ink", "faint") for paper in ("paper", "card", "well", "error-paper")]
        for pair in [*pairs, ("error", "error-paper"), ("on-accent", "accent"), ("card", "error"), ("paper", "ink")]:
            low, high = sorted(bright[name] for name in pair)
            assert (high + 0.05) / (low + 0.05) >= 4.5, pair


def luminance(colour: str) -> float:
    """Of six hexadecimal digits, as WCAG 2.2 defines it."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


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


def until(page: Any, happened: Callable[[], bool]) -> None:
    """Wait for what no element shows, ten seconds at most."""
    for _ in range(200):
        if happened():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not happen")


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


def test_a_token_is_asked_for_and_a_large_file_is_a_job_that_leaves_nothing(
    browser: Any, strict: Any, tmp_path: Path
) -> None:
    visit = browser.open(f"http://127.0.0.1:{strict.port}/")
    visit.page.locator("#token").fill("secret")
    visit.page.locator("#token").press("Enter")
    visit.page.locator("#name", has_text="cells").wait_for()
    assert all("401" in error for error in visit.errors)
    visit.errors.clear()
    given = browser.open(f"http://127.0.0.1:{strict.port}/#token=secret")
    given.page.locator("#name", has_text="cells").wait_for()
    assert given.page.url == f"http://127.0.0.1:{strict.port}/"
    for name, side in (("large.tif", 50), ("larger.tif", 90)):
        values = np.zeros((side, side * 2 // 3, 3), np.uint8)
        tifffile.imwrite(tmp_path / name, values, photometric="rgb", description="x" * 13000)
    choose(given.page, tmp_path / "large.tif")
    given.page.locator("#take").wait_for()
    job = next(url for url in given.requests if "/v1/jobs/" in url).partition(f"{strict.port}")[2]
    until(given.page, lambda: strict("GET", job)[0] == 404)
    choose(given.page, tmp_path / "larger.tif")
    given.page.get_by_role("button", name="larger.tif, failed").click()
    assert "too large to be shown" in given.page.get_by_role("alert").inner_text()


def test_what_the_browser_cannot_draw_is_shown_as_the_server_sees_it(browser: Any, ask: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    picture = Image.fromarray(random.integers(0, 256, (4, 5, 3), np.uint8)).resize((50, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", quality=95, exif=exif)
    tifffile.imwrite(tmp_path / "section.tif", np.asarray(picture), photometric="rgb")
    page = browser.open(f"http://127.0.0.1:{ask.port}/").page
    for name, size in (("section.tif", (50, 40)), ("turned.jpg", (40, 50))):
        choose(page, tmp_path / name)
        page.get_by_role("button", name=f"{name}, done").click()
        page.get_by_text(f"{size[0]} x {size[1]} px").wait_for()
        page.locator("#opacity").fill("0")
        shown = np.asarray(Image.open(io.BytesIO(saved(page, "#overlay")[1])).convert("RGB")).astype(int)
        truth = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name)).convert("RGB")).astype(int)
        assert shown.shape == truth.shape and np.abs(shown - truth).mean() < 8, name


def test_many_images_are_told_apart_and_only_one_stays_decoded(browser: Any, ask: Any, images: Path) -> None:
    page = browser.open(f"http://127.0.0.1:{ask.port}/", width=360, height=740).page
    page.add_init_script(
        "window.held = []; const make = createImageBitmap;"
        " window.createImageBitmap = async given => { const made = await make(given); held.push(made); return made; }"
    )
    page.reload()
    names = ("a.png", "b.jpg", "c.webp", "d.bmp", "e.tif", "f.ome.tif")
    choose(page, *(images / name for name in names))
    page.get_by_text("6 of 6 done").wait_for()
    first = page.locator(".thumb").first
    canvas = first.locator("canvas").element_handle()
    first.focus()
    for _ in names:
        page.keyboard.press("ArrowRight")
    page.locator("#file", has_text="f.ome.tif").wait_for()
    assert page.evaluate("document.activeElement.title") == "f.ome.tif"
    page.get_by_text("45 x 33 px").wait_for()
    page.locator("#tools").wait_for()
    assert page.evaluate("held.filter(each => each.width).length") == 1 < page.evaluate("held.length")
    assert canvas.evaluate("each => each.isConnected")
    strip, thumb = (page.locator(name).bounding_box() for name in ("#strip", ".thumb[aria-current=true]"))
    assert strip["x"] <= thumb["x"] and thumb["x"] + thumb["width"] <= strip["x"] + strip["width"] + 1
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("5 of 5 done").wait_for()
    assert page.evaluate("document.activeElement.title") == "e.tif"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_wheel_drag_and_two_fingers(browser: Any, ask: Any, images: Path) -> None:
    page = browser.open(f"http://127.0.0.1:{ask.port}/").page
    content = page.evaluate_handle("each => new DataTransfer()")
    content.evaluate(
        "(given, bytes) => given.items.add(new File([Uint8Array.from(bytes)], 'dropped.png'))",
        list((images / "a.png").read_bytes()),
    )
    page.dispatch_event("#viewer", "drop", {"dataTransfer": content})
    page.locator("#take").wait_for()

    def scale() -> float:
        return float(page.locator("#scale").inner_text().removesuffix(" %"))

    whole, box = scale(), page.locator("#stage").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -400)
    until(page, lambda: scale() != whole)
    near = scale()
    assert near > 1.5 * whole
    pressed = stage(page)
    page.mouse.down()
    page.mouse.move(middle[0] + 90, middle[1] + 30)
    page.mouse.up()
    assert not np.array_equal(stage(page), pressed) and scale() == near
    page.locator("#scale").click()
    assert scale() == whole
    touch = page.context.new_cdp_session(page)
    for kind, spread in (("touchStart", 40), ("touchMove", 80), ("touchMove", 120), ("touchEnd", None)):
        sides = () if spread is None else (-spread, spread)
        fingers = [{"x": middle[0] + side, "y": middle[1], "id": number} for number, side in enumerate(sides)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    until(page, lambda: scale() != whole)
    assert scale() > 1.5 * whole


def test_a_busy_server_is_asked_again_and_a_gone_one_is_named(browser: Any, ask: Any, images: Path) -> None:
    visit = browser.open(f"http://127.0.0.1:{ask.port}/")
    page, answers = visit.page, ["busy", "gone", "gone"]

    def answer(route: Any) -> None:
        kind = answers.pop(0) if answers else ""
        if kind == "busy":
            route.fulfill(status=429, headers={"Retry-After": "1"}, body="{}")
        else:
            route.abort("connectionrefused") if kind else route.continue_()

    page.route("**/v1/predict*", answer)
    choose(page, images / "a.png")
    page.get_by_text("Waiting for its turn", exact=True).wait_for()
    page.get_by_text("The server cannot be reached.").wait_for()
    choose(page, images / "b.jpg", images / "c.webp")
    page.get_by_text("1 of 3 done, 2 failed").wait_for()
    page.locator("#all-again").click()
    page.get_by_text("3 of 3 done").wait_for()
    visit.errors.clear()  # the browser's own lines


def test_what_need_not_be_sent_is_refused_here(browser: Any, ask: Any, tmp_path: Path) -> None:
    (tmp_path / "nothing.png").touch()
    visit = browser.open(f"http://127.0.0.1:{ask.port}/")
    choose(visit.page, tmp_path / "nothing.png")
    visit.page.get_by_text("The file is empty.").wait_for()
    assert not any("predict" in url for url in visit.requests)
