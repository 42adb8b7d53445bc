"""Progress on a terminal as live bars, elsewhere as plain lines; each with its rate, the time left and figures.

Does not know what is being counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from keepmap.cli.terminal import make_console
from keepmap.protocols import Progress, Silent
from keepmap.units import in_thousands, in_time

Clock = Callable[[], float]
_WINDOW = 30.0
_GRAIN = 0.25
_LINE_EVERY = 5.0


def make_progress(quiet: bool) -> Progress:
    """Nothing if `quiet`, bars on a terminal, plain lines everywhere else."""
    if quiet:
        return Silent()
    console = make_console()
    return TerminalProgress(console) if console.is_interactive else PlainProgress()


class Meter:
    """How far one step is: `done` of `total` units, the rate of its last half minute, the time left.

    clock: seconds, never going back.
    """

    def __init__(self, name: str, total: float, unit: str, clock: Clock = time.monotonic) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0.0
        self.figures: dict[str, float | str] = {}
        self._clock = clock
        self._start = self._latest = clock()
        self._points: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()
        self._end: float | None = None

    def finish(self) -> None:
        """Stop the clock: from now on the time taken stands in place of the time left."""
        self._end = self._clock()

    def advance(self, done: float, figures: dict[str, float | str]) -> None:
        """Count `done` more units; new figures replace those of the same name."""
        with self._lock:
            self.done += done
            self.figures.update(figures)
            self._latest = self._clock()
            if not self._points or self._latest - self._points[-1][0] >= _GRAIN:
                self._points.append((self._latest, self.done))
            while len(self._points) > 2 and self._points[1][0] < self._latest - _WINDOW:
                self._points.popleft()

    @property
    def seconds(self) -> float:
        """Seconds since the step began, or that it took."""
        return (self._clock() if self._end is None else self._end) - self._start

    @property
    def rate(self) -> float | None:
        """Units per second after the first call of `advance`, which may warm up or resume; None while unknown."""
        if not self._points:
            return None
        since, before = self._points[0]
        passed = self._latest - since
        return (self.done - before) / passed if self.done > before and passed > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds to the end at this rate; None while the rate is unknown."""
        if not self.rate:
            return None
        return max(0.0, (self.total - self.done) / self.rate - (self._clock() - self._latest))

    @property
    def count_text(self) -> str:
        """For example "412/1200" or "3.50/24.3"."""
        if self.total < 1e5 and self.total == round(self.total):
            return f"{self.done:.0f}/{self.total:.0f}"
        return f"{in_thousands(self.done)}/{in_thousands(self.total)}"

    @property
    def rate_text(self) -> str:
        """For example "3.41 images/s", empty while unknown."""
        return f"{in_thousands(self.rate)} {self.unit}/s" if self.rate else ""

    @property
    def left_text(self) -> str:
        """For example "4:07 left", empty while unknown; "in 4:07" once finished."""
        if self._end is not None:
            return f"in {in_time(self.seconds)}"
        return "" if self.left is None else f"{in_time(self.left)} left"

    @property
    def figures_text(self) -> list[str]:
        """For example ["loss 0.312", "mean IoU 0.713"]."""
        return [f"{_figure_name(name)} {_figure(value)}" for name, value in self.figures.items()]


def _figure_name(name: str) -> str:
    return name.replace("_per_", "/").replace("_", " ").replace("iou", "IoU")


def _figure(value: float | str) -> str:
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.3f}" if abs(value) < 10 else in_thousands(value)


class _MeterTracker:
    """A Tracker that feeds a meter and then tells the display."""

    def __init__(self, meter: Meter, changed: Callable[[Meter], None]) -> None:
        self._meter = meter
        self._changed = changed

    def advance(self, done: float = 1, **figures: float | str) -> None:
        """Count `done` more units and show the figures."""
        self._meter.advance(done, figures)
        self._changed(self._meter)

    def resize(self, total: float) -> None:
        """Go on towards another total."""
        self._meter.total = total
        self._changed(self._meter)


class PlainProgress:
    """Progress as plain lines on stdout: one every five seconds at most, and one when a step is finished."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._next_line = 0.0
        self._depth = 0
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print the line."""
        print(text, flush=True)

    @contextmanager
    def track(self, name: str, total: float, unit: str) -> Iterator[_MeterTracker]:
        """Print how a step goes on; a step inside another prints no closing line."""
        meter = Meter(name, total, unit, self._clock)
        if self._depth == 0:
            self._next_line = self._clock() + _LINE_EVERY
        self._depth += 1
        try:
            yield _MeterTracker(meter, self._print_if_due)
        finally:
            self._depth -= 1
        meter.finish()
        if self._depth == 0:
            summary = f"{name}: {meter.count_text} {unit} {meter.left_text}"
            self.say(", ".join([summary, *meter.figures_text]))

    def _print_if_due(self, meter: Meter) -> None:
        with self._lock:
            now = self._clock()
            if now < self._next_line or meter.done >= meter.total:
                return
            self._next_line = now + _LINE_EVERY
        parts = [meter.rate_text, meter.left_text, *meter.figures_text]
        self.say(", ".join([f"{meter.name}: {meter.count_text} {meter.unit}", *filter(None, parts)]))


class TerminalProgress:
    """Progress as live bars: one row per step under way, lines of text above them."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._bars: Bars | None = None

    def say(self, text: str) -> None:
        """Print the line above the bars."""
        self._console.print(Text(text))

    @contextmanager
    def track(self, name: str, total: float, unit: str) -> Iterator[_MeterTracker]:
        """Show a bar; a step inside another disappears when it is finished."""
        meter = Meter(name, total, unit, self._clock)
        if self._bars is not None:
            row = self._bars.add_task(name, total=total, meter=meter)
            try:
                yield _MeterTracker(meter, lambda meter: self._update(row, meter))
            finally:
                self._bars.remove_task(row)
            return
        with _make_bars(self._console) as self._bars:
            row = self._bars.add_task(name, total=total, meter=meter)
            try:
                yield _MeterTracker(meter, lambda meter: self._update(row, meter))
                meter.finish()
            finally:
                self._bars.refresh()
                self._bars = None

    def _update(self, row: TaskID, meter: Meter) -> None:
        if self._bars is not None:
            self._bars.update(row, completed=meter.done, total=meter.total)


class _MeterColumn(ProgressColumn):
    """One text of a row's meter; never wrapped."""

    def __init__(self, text: Callable[[Meter], str], style: str = "", justify: JustifyMethod = "right") -> None:
        super().__init__(Column(no_wrap=True, justify=justify, overflow="ellipsis"))
        self._text = text
        self._style = style

    def render(self, task: Task) -> Text:
        """The text of the meter that belongs to the row."""
        return Text(self._text(task.fields["meter"]), self._style)


def _make_bars(console: Console) -> Bars:
    return Bars(
        _MeterColumn(lambda meter: meter.name, "bold", "left"),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=6, max_width=40)),
        _MeterColumn(lambda meter: meter.count_text),
        _MeterColumn(lambda meter: meter.rate_text, "cyan"),
        _MeterColumn(lambda meter: meter.left_text),
        _MeterColumn(lambda meter: "  ".join(meter.figures_text), "green", "left"),
        console=console,
        expand=True,
    )
