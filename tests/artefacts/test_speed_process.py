"""One speed: which way was taken, and that the figures are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from keepmap.artefacts.speed_process import Task, measure
from keepmap.config import to_dict


def test_each_way_is_the_one_that_is_asked_for(exportables: Any) -> None:
    ways = {}
    for way in ("pass", "bands", "tiles"):
        row = measure(Task(str(exportables["unet"].run.path), "float32", way, 1, 160, 1))
        assert row["rate"] > 0
        assert row["threads"] == 1
        ways[way] = row["way"]
    assert ways["pass"] == "one pass"
    assert ways["bands"].startswith("bands of")
    assert "tiles of" in ways["tiles"]


def test_in_a_process_of_its_own(exportables: Any, tmp_path: Path) -> None:
    task = Task(str(exportables["unet"].run.path), "float32", "pass", 1, 32, 1)
    command = [sys.executable, "-m", "keepmap.artefacts.speed_process", json.dumps(to_dict(task))]
    subprocess.run([*command, str(tmp_path / "row.json")], check=True)
    assert json.loads((tmp_path / "row.json").read_text())["runtime"].startswith("PyTorch")
