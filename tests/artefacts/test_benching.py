"""What is measured: every runtime, precision, way and number of threads, and what went wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import keepmap
from keepmap.artefacts import benching
from keepmap.artefacts.benching import SpeedRow
from keepmap.artefacts.speed_process import Task
from keepmap.errors import OptionError


def test_every_combination_is_measured_once(exportables: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[Task] = []

    def run(task: Task) -> SpeedRow:
        tasks.append(task)
        return SpeedRow("PyTorch", task.precision, task.way, task.threads, 1.0, 1)

    monkeypatch.setattr(benching, "_in_own_process", run)
    monkeypatch.setattr(benching, "_SIDE", 16)
    monkeypatch.setattr(benching, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(benching, "thread_count", lambda: 2)
    found = keepmap.bench(exportables["unet"].run.path, side=64, rounds=1)
    assert {(t.precision, t.way, t.threads) for t in tasks} == {
        (precision, way, threads)
        for precision in ("float32", "bfloat16")
        for way in ("pass", "bands", "tiles")
        for threads in (1, 2)
    }
    assert len(found.rows) == len(tasks) == 12
    assert [(y.precision, y.threads) for y in found.yardsticks] == [
        ("float32", 1), ("bfloat16", 1), ("float32", 2), ("bfloat16", 2),
    ]  # fmt: skip
    assert all(y.gflops > 0 for y in found.yardsticks)


def test_a_process_that_fails_is_a_row_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = SimpleNamespace(returncode=-9, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: dead)
    row = benching._in_own_process(Task("run", "float32", "pass", 1, 64, 1))
    assert (row.rate, row.peak_bytes, row.note) == (None, None, "it ended with -9")


def test_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--side 0"):
        keepmap.bench(tmp_path, side=0)
