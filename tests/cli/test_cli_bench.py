"""`keepmap bench` shows a row for each way, the yardstick, and writes both as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.artefacts.benching import Bench, SpeedRow, Yardstick
from keepmap.cli.main import main

FOUND = Bench(
    64,
    (
        SpeedRow("PyTorch", "float32", "one pass", 2, 1.2345, 2**30),
        SpeedRow("x", "auto", "tiles", 1, None, None, "why"),
    ),
    (Yardstick("float32", 2, 170.4),),
)


def test_table_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        keepmap, "bench", lambda path, *, progress, **options: calls.append((path, options)) or FOUND, raising=False
    )
    file = tmp_path / "speed.json"
    assert main(["bench", "run", "--side", "64", "--rounds", "2", "--json", str(file)]) == 0
    assert calls == [(Path("run"), {"side": 64, "rounds": 2})]
    said = capsys.readouterr().out
    for part in ("one pass", "1.234", "GiB", "n/a", "why", "matrix product, float32, threads 2: 170 GFLOP/s"):
        assert part in said
    record = json.loads(file.read_text())
    assert [row["rate"] for row in record["rows"]] == [1.2345, None]
    assert record["yardsticks"][0]["gflops"] == 170.4
