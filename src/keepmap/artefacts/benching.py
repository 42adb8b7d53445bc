"""Speed and peak memory of a trained network by runtime, precision, way and threads, on this machine.

Decides what is measured; each figure is measured in a process of its own (see `speed_process`).
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from keepmap.artefacts.loading import is_artefact, load_predictor, open_artefact
from keepmap.artefacts.speed_process import Task
from keepmap.config import to_dict
from keepmap.errors import OptionError
from keepmap.options import BenchOptions, ComputeOptions
from keepmap.protocols import Progress
from keepmap.resources import Stopwatch, has_bfloat16, thread_count, use_cpu

_SIDE = 2048
"""Of the matrices whose product is the yardstick."""
_TIMES = 4
_LARGEST = 16384


@dataclass(frozen=True)
class SpeedRow:
    """One way to compute. rate: megapixels per second, the median; peak_bytes: what its process held at most.

    way: what was taken, in words; note: why there is no figure, or "".
    """

    runtime: str
    precision: str
    way: str
    threads: int
    rate: float | None
    peak_bytes: int | None
    note: str = ""


@dataclass(frozen=True)
class Yardstick:
    """What a product of two square matrices of 2048 reaches here, in GFLOP/s."""

    precision: str
    threads: int
    gflops: float


@dataclass(frozen=True)
class Bench:
    """side: of the image, pixels. rows and yardsticks were measured one after the other in the same run."""

    side: int
    rows: tuple[SpeedRow, ...]
    yardsticks: tuple[Yardstick, ...]


def measure_speeds(path: Path, options: BenchOptions, progress: Progress) -> Bench:
    """Measure the RUN `path` and the exports in it, or the exported file `path`. Raises as `load_predictor`."""
    for name, value, most in (("--side", options.side, _LARGEST), ("--rounds", options.rounds, 1000)):
        if not 1 <= value <= most:
            raise OptionError(f"{name} {value} cannot be.", found=str(value), expected=f"1 to {most}")
    tasks = list(_tasks(path, options))
    with progress.track("bench", len(tasks), "ways") as tracker:
        rows = []
        for task in tasks:
            rows.append(_in_own_process(task))
            tracker.advance()
    return Bench(options.side, tuple(rows), tuple(_yardsticks()))


def _tasks(path: Path, options: BenchOptions) -> Iterator[Task]:
    """Every combination, in the order of the rows."""
    precisions = ["float32", *(["bfloat16"] if has_bfloat16("cpu") else [])]
    counts = sorted({1, thread_count()})
    within = [] if is_artefact(path) else [child for child in sorted(path.glob("*/")) if is_artefact(child)]
    places = [path, *within]
    for place in places:
        if not is_artefact(place):
            unstreamable = load_predictor(place, ComputeOptions(device="cpu")).runtime.unstreamable
            ways, allowed = ["pass", *([] if unstreamable else ["bands"]), "tiles"], precisions
        else:
            ways, allowed = ["pass", "tiles"], precisions if "OpenVINO" in open_artefact(place).name else ["auto"]
        for precision, way, threads in itertools.product(allowed, ways, counts):
            yield Task(str(place), precision, way, threads, options.side, options.rounds)


def _in_own_process(task: Task) -> SpeedRow:
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "row.json"
        command = [sys.executable, "-m", "keepmap.artefacts.speed_process", json.dumps(to_dict(task)), str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not result.exists():
            reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            return SpeedRow(task.path, task.precision, task.way, task.threads, None, None, reason)
        figures = json.loads(result.read_text())
    return SpeedRow(**figures)


def _yardsticks() -> Iterator[Yardstick]:
    types = {"float32": torch.float32, **({"bfloat16": torch.bfloat16} if has_bfloat16("cpu") else {})}
    for threads in sorted({1, thread_count()}):
        torch.set_num_threads(threads)
        for name, dtype in types.items():
            a, b = (torch.ones(_SIDE, _SIDE, dtype=dtype) for _ in range(2))
            seconds = []
            for _ in range(_TIMES):
                watch = Stopwatch()
                torch.mm(a, b)
                seconds.append(watch.seconds)
            yield Yardstick(name, threads, 2 * _SIDE**3 / min(seconds) / 1e9)
    use_cpu()
