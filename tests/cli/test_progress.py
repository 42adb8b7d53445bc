"""Rates and times left are right for a known clock; each display shows them where it belongs."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from keepmap.cli import progress
from keepmap.cli.progress import Meter, PlainProgress, TerminalProgress, make_progress
from keepmap.protocols import Silent


class FakeClock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, 1000), st.floats(0.001, 20), st.integers(2, 200))
def test_an_even_pace_gives_its_rate_and_time_left(units: float, seconds: float, times: int) -> None:
    clock = FakeClock()
    meter = Meter("train", 1000 * units, "images", clock)
    for _ in range(times):
        clock.wait(seconds)
        meter.advance(units, {})
    assert meter.rate == pytest.approx(units / seconds, rel=1e-6)
    assert meter.left == pytest.approx((1000 - times) * seconds, rel=1e-6)


def test_nothing_is_claimed_before_it_is_known(clock: FakeClock) -> None:
    meter = Meter("train", 10, "steps", clock)
    assert (meter.rate, meter.left, meter.rate_text, meter.left_text) == (None, None, "", "")
    clock.wait(5)
    meter.advance(1, {})
    assert meter.rate is None


def test_what_was_done_before_a_resume_is_no_speed(clock: FakeClock) -> None:
    meter = Meter("train", 1000, "steps", clock)
    meter.advance(900, {})
    clock.wait(1)
    meter.advance(2, {})
    assert meter.rate == pytest.approx(2)
    assert meter.left == pytest.approx(49)


def test_the_rate_forgets_what_is_long_ago(clock: FakeClock) -> None:
    meter = Meter("train", 10**6, "steps", clock)
    for pace in (1, 10):
        for _ in range(60):
            clock.wait(1)
            meter.advance(pace, {})
    assert meter.rate == pytest.approx(10)


def test_time_left_runs_down_between_two_units(clock: FakeClock) -> None:
    meter = Meter("train", 10, "steps", clock)
    for _ in range(3):
        clock.wait(2)
        meter.advance(1, {})
    assert meter.left == pytest.approx(14)
    clock.wait(1)
    assert meter.left == pytest.approx(13)
    clock.wait(100)
    assert meter.left == 0


def test_many_small_steps_are_not_all_remembered(clock: FakeClock) -> None:
    meter = Meter("read", 10**6, "tiles", clock)
    for _ in range(20_000):
        clock.wait(0.001)
        meter.advance(1, {})
    assert len(meter._points) < 200
    assert meter.rate == pytest.approx(1000)


def test_threads_may_share_a_meter() -> None:
    meter = Meter("read", 4000, "tiles")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: meter.advance(1, {}), range(4000)))
    assert meter.done == 4000


def test_texts(clock: FakeClock) -> None:
    meter = Meter("train", 1200, "images", clock)
    for done in (400, 12):
        clock.wait(4)
        meter.advance(done, {"loss": 0.31234, "mean_iou": 0.5, "images_per_s": 1234.5, "step": 7, "phase": "warm-up"})
    assert meter.count_text == "412/1200"
    assert meter.rate_text == "3 images/s"
    assert meter.left_text == "4:23 left"
    assert meter.figures_text == ["loss 0.312", "mean IoU 0.500", "images/s 1.23 k", "step 7", "phase warm-up"]
    meter.finish()
    clock.wait(99)
    assert meter.left_text == "in 0:08"


def test_fractions_of_a_unit_are_shown(clock: FakeClock) -> None:
    meter = Meter("predict", 24.3, "megapixels", clock)
    meter.advance(0.25, {})
    assert meter.count_text == "0.25/24.3"
    meter = Meter("predict", 2_500_000, "px", clock)
    meter.advance(1000, {})
    assert meter.count_text == "1 k/2.50 M"


def test_plain_lines_come_every_five_seconds_and_at_the_end(
    clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = PlainProgress(clock)
    clock.wait(100)
    shown.say("plan")
    with shown.track("train", 100, "images") as tracker:
        for _ in range(12):
            clock.wait(1)
            tracker.advance(1, loss=0.5)
    assert capsys.readouterr().out.splitlines() == [
        "plan",
        "train: 5/100 images, 1 images/s, 1:35 left, loss 0.500",
        "train: 10/100 images, 1 images/s, 1:30 left, loss 0.500",
        "train: 12/100 images in 0:12, loss 0.500",
    ]


def test_a_plain_step_inside_another_has_no_closing_line(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainProgress(clock)
    with shown.track("train", 2, "steps") as outer:
        with shown.track("validate", 3, "images") as inner:
            for _ in range(3):
                clock.wait(4)
                inner.advance()
        outer.advance(2)
    assert capsys.readouterr().out.splitlines() == [
        "validate: 2/3 images, 0.25 images/s, 0:04 left",
        "train: 2/2 steps in 0:12",
    ]


def test_a_plain_step_that_fails_says_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainProgress()
    with pytest.raises(ZeroDivisionError), shown.track("train", 2, "steps"):
        _ = 1 / 0
    with shown.track("check", 1, "images") as tracker:
        tracker.advance()
    assert capsys.readouterr().out == "check: 1/1 images in 0:00\n"


def _terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=20, color_system=None, _environ={})


def _frames(console: Console) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_fits_its_terminal(width: int, clock: FakeClock) -> None:
    console = _terminal(width)
    shown = TerminalProgress(console, clock)
    with shown.track("train", 1200, "images") as tracker:
        for _ in range(4):
            clock.wait(2)
            tracker.advance(100, loss=0.31234, mean_iou=0.712)
        shown.say("[x] is no markup")
    frames = _frames(console)
    assert all(len(line) <= width for line in frames)
    assert "[x] is no markup" in frames
    last = frames[-1]
    assert last.startswith("train ")
    assert "400/1200" in last
    if width >= 80:
        assert all(text in last for text in ("50 images/s", "in 0:08", "loss 0.312", "mean IoU 0.712"))


def test_a_bar_inside_another_goes_when_it_is_done(clock: FakeClock) -> None:
    console = _terminal()
    shown = TerminalProgress(console, clock)
    with shown.track("train", 10, "steps") as outer:
        with shown.track("validate", 2, "images") as inner:
            inner.advance()
            assert shown._bars is not None
            assert len(shown._bars.tasks) == 2
        assert len(shown._bars.tasks) == 1
        outer.advance()
    assert shown._bars is None
    assert _frames(console)[-1].startswith("train")


def test_bars_end_with_an_error_too(clock: FakeClock) -> None:
    console = _terminal()
    shown = TerminalProgress(console, clock)
    with pytest.raises(KeyboardInterrupt), shown.track("train", 10, "steps"), shown.track("validate", 1, "images"):
        raise KeyboardInterrupt
    assert shown._bars is None
    assert console._live_stack == []
    with shown.track("train", 1, "steps") as tracker:
        tracker.advance()


def test_the_display_follows_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_progress(quiet=True), Silent)
    assert isinstance(make_progress(quiet=False), PlainProgress)
    monkeypatch.setattr(progress, "make_console", _terminal)
    assert isinstance(make_progress(quiet=False), TerminalProgress)
    assert isinstance(make_progress(quiet=True), Silent)


def test_a_step_of_another_length_goes_on_towards_it(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PlainProgress()
    with progress.track("train", 10, "images") as bar:
        bar.advance(2)
        bar.resize(30)
        bar.advance(28)
    assert "30/30 images" in capsys.readouterr().out
