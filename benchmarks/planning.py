"""What a plan expects against what its training takes: five plans, one after the other.

usage: python benchmarks/planning.py DATA [--plans NAME...] [--seconds 90] [--again]
DATA is that of accuracy.py. Each plan is printed by `keepmap plan --time T` and trained by `keepmap train --time T`. A
training counts its steps anew at its own pace, so what is compared is the time of the steps that were done: as the plan
expected them, validations included, and as they were, from the plan to the last saved state. A plan whose result exists
is skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from accuracy import TASKS, copy_parts, run
from common import RESULTS, write_result
from keepmap.runs import RunFolder

PLANS: dict[str, tuple[str, list[str]]] = {
    "nuclei": ("nuclei", []),
    "nuclei-unet": ("nuclei", ["--model", "unet"]),
    "nuclei-fcn": ("nuclei", ["--model", "fcn", "--encoder", "resnet18", "--precision", "float32"]),
    "camvid": ("camvid", []),
    "camvid-short-of-memory": ("camvid", ["--model", "unet", "--memory", "700M"]),
}
"""Name -> data set, and options of `keepmap train` beside its time."""


def real_seconds(folder: RunFolder) -> float:
    """Seconds from the moment a training had its plan to its last saved state."""
    return folder.last_file.stat().st_mtime - folder.split_file.stat().st_mtime


def steps_done(folder: RunFolder) -> int:
    """Optimiser steps of a training that has ended."""
    lines = folder.metrics_file.read_text(encoding="utf-8").splitlines()
    return max(int(json.loads(line)["step"]) for line in lines)


def compared(planned: dict[str, Any], folder: RunFolder, wall: float, limit: int) -> dict[str, Any]:
    """One row: expected and real seconds of the steps that were done, their ratio, and seconds beyond --time."""
    entries, steps = planned["plan"], steps_done(folder)
    expected = planned["expected_seconds"] / entries["steps"]["value"] * steps
    real = real_seconds(folder)
    return {
        "planned_steps": entries["steps"]["value"],
        "steps": steps,
        "setting": {name: entries[name]["value"] for name in ("crop", "batch", "micro", "checkpointing")},
        "expected_seconds": expected,
        "real_seconds": real,
        "ratio": expected / real,
        "wall_seconds": wall,
        "limit": limit,
        "overrun": wall - limit,
    }


def measure(data: Path, name: str, seconds: int) -> dict[str, Any]:
    """Plan and train once, in a temporary folder."""
    task, words = PLANS[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_parts(data, task, folder)
        told = ["train/images", "train/masks", *TASKS[task].ignore, *words, "--time", f"{seconds}s", "--quiet"]
        program = [sys.executable, "-m", "keepmap"]
        run([*program, "plan", *told, "--json", "plan.json"], folder)
        planned = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        _, wall = run([*program, "train", *told, "-o", "run"], folder)
        row = compared(planned, RunFolder(folder / "run"), wall, seconds)
    return {"task": task, "options": " ".join(words), **row}


def main() -> None:
    """Measure what is missing and write one result per plan."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--seconds", type=int, default=90)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    for name in options.plans:
        if options.again or not (RESULTS / f"planning-{name}.json").exists():
            row = measure(options.data.resolve(), name, options.seconds)
            print(f"{name}: expected / real {row['ratio']:.2f}, overrun {row['overrun']:+.1f} s", flush=True)
            write_result(f"planning-{name}", row)


if __name__ == "__main__":
    main()
