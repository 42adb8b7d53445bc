"""Counts, sums and levels of a server, as the text that Prometheus reads.

Does not know what they count.
"""

from __future__ import annotations

import bisect
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: upper bounds of the bins of a duration."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]


class _Family(NamedTuple):
    kind: str
    text: str


FAMILIES = {
    "keepmap_requests_total": _Family("counter", "Requests that were answered."),
    "keepmap_received_bytes_total": _Family("counter", "Bytes of request bodies."),
    "keepmap_pixels_total": _Family("counter", "Pixels that were predicted."),
    "keepmap_cancelled_total": _Family("counter", "Predictions whose client went away."),
    "keepmap_decoders_killed_total": _Family("counter", "Decoders that had to be ended."),
    "keepmap_step_seconds": _Family("histogram", "Duration of a step of a prediction."),
    "keepmap_queue": _Family("gauge", "Predictions that are admitted and not answered."),
    "keepmap_jobs": _Family("gauge", "Jobs that wait or run."),
    "keepmap_ready": _Family("gauge", "1 while predictions are taken."),
    "keepmap_resident_bytes": _Family("gauge", "Memory of the process."),
}
"""Every metric there is."""


class Metrics:
    """Counters, durations and what is asked for when it is read. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._bins: dict[tuple[str, Labels], list[int]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add `by` to a counter."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += by

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add a duration."""
        key = name, tuple(sorted(labels.items()))
        with self._lock:
            self._counts[key] += seconds
            self._bins.setdefault(key, [0] * (len(BUCKETS) + 1))[bisect.bisect_left(BUCKETS, seconds)] += 1

    def level(self, name: str, read: Callable[[], float]) -> None:
        """Let `read` say what a gauge shows."""
        self._gauges[name] = read

    def text(self) -> str:
        """Everything, in the text format of Prometheus."""
        with self._lock:
            counts, bins = dict(self._counts), {key: list(counted) for key, counted in self._bins.items()}
        lines = []
        for name, family in FAMILIES.items():
            lines += [f"# HELP {name} {family.text}", f"# TYPE {name} {family.kind}"]
            if name in self._gauges:
                lines.append(f"{name} {self._gauges[name]():g}")
            for (of, labels), value in sorted(counts.items()):
                if of == name and family.kind == "histogram":
                    lines += _histogram(name, labels, bins[of, labels], value)
                elif of == name:
                    lines.append(f"{name}{_shown(labels)} {value:.12g}")
        return "\n".join(lines) + "\n"


def _histogram(name: str, labels: Labels, bins: list[int], total: float) -> list[str]:
    lines, seen = [], 0
    for bound, number in zip((*map(str, BUCKETS), "+Inf"), bins, strict=True):
        seen += number
        lines.append(f"{name}_bucket{_shown((*labels, ('le', bound)))} {seen}")
    return [*lines, f"{name}_sum{_shown(labels)} {total:.6g}", f"{name}_count{_shown(labels)} {seen}"]


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
