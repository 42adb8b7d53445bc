"""What one change of the plan is worth: arms of equal wall-clock time on the fixed splits of real images.

usage: python benchmarks/ablation.py DATA {nuclei|camvid}... --runs FOLDER [--arms ARM...] [--seeds 0 1]
Every arm trains the same network for the time that the base takes for its steps on a quiet machine: 3 minutes for
nuclei, 6 for camvid. Steps are fixed, not the seconds, so that other work on the machine changes nothing: an arm whose
step takes r times that of the base gets 1 / r as many, with r from `keepmap plan`, the arms in turn, three times. RUNs
are kept in FOLDER; what is there is not trained again. `train` sees the training part only, as in accuracy.py.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accuracy import TASKS, copy_parts, run
from common import RESULTS, revision, write_result

STEPS = {"nuclei": 240, "camvid": 480}
"""Steps of the base, 0.67 to 0.75 s each on the machine of the results."""
NETWORK = ["--model", "encoder_unet", "--encoder", "efficientnet_lite0"]
BASE = {"crop": "256", "batch": "8", "weighting": "equal"}
ROOTS = {"weighting": "root_median_frequency"}
ARMS: dict[str, tuple[float, dict[str, str]]] = {
    "base": (1.0, {}),
    "stride2": (0.75, {"widths": "128,64,48,32"}),
    "stride4": (0.645, {"widths": "128,64,48"}),
    "no-stem-skip": (0.94, {"stem_skip": "false"}),
    "encoder-fifth": (1.0, {"encoder_rate": "0.2"}),
    "half-rate": (1.0, {"learning_rate": "0.001"}),
    "double-rate": (1.0, {"learning_rate": "0.004"}),
    "batch-4": (0.5505, {"batch": "4"}),
    "batch-2": (0.293, {"batch": "2"}),
    "stride4-batch-4": (1 / 3, {"widths": "128,64,48", "batch": "4"}),
    "batch-4-half-rate": (0.5505, {"batch": "4", "learning_rate": "0.001"}),
    "area-half": (1.0, {"area_power": "0.5"}),
    "area": (1.0, {"area_power": "1"}),
    "class-rate": (1.0, {"class_rate": "0.5"}),
    "median-frequency": (1.0, {"weighting": "median_frequency"}),
    "root-frequency": (1.0, ROOTS),
    "border": (1.0, {"border": "10"}),
    "cross-entropy": (1.0, {"dice": "0"}),
    "light": (1.0, {"contrast": "0.5,0.4", "gamma": "0.3,1.5", "colour": "0.3,0.2", "noise": "0.2,8", "blur": "0.2,1"}),
    "gamma": (1.0, {"gamma": "0.5,2.2"}),
    "gain": (1.0, {"gain": "0.7"}),
    "steady": (1.0, {"gain": "0.1", "shift": "8"}),
    "narrow": (1.0, {"scale": "0.8,1.25"}),
    "turned": (1.0, {"rotation": "0.5,180", "elastic": "0.3,6"}),
    "averaging": (1.0, {"averaging": "0.98"}),
    "root-averaging": (1.0, {**ROOTS, "averaging": "0.98"}),
    "root-batch-4": (0.5505, {**ROOTS, "batch": "4"}),
    "root-stride2-batch-4": (480 / 1240, {**ROOTS, "widths": "128,64,48,32", "batch": "4"}),
    "root-stride4-batch-4": (1 / 3, {**ROOTS, "widths": "128,64,48", "batch": "4"}),
    "root-double-rate": (1.0, {**ROOTS, "learning_rate": "0.004"}),
}
"""Arm -> seconds of its step as a share of the base's, and the entries of the plan that it fixes otherwise."""


def options_of(task: str, arm: str) -> tuple[int, list[str]]:
    """Steps and options of `keepmap train`."""
    share, entries = ARMS[arm]
    steps = round(STEPS[task] / share)
    fixed = [word for name, value in (BASE | entries).items() for word in ("--set", f"{name}={value}")]
    return steps, [*NETWORK, *fixed, "--steps", str(steps)]


def measured(data: Path, task: str, arm: str, seed: int, runs: Path) -> dict[str, Any]:
    """Train where there is no RUN, evaluate on the test part, and return the scores."""
    place, program = (runs / f"{task}-{arm}-seed{seed}").resolve(), [sys.executable, "-m", "keepmap"]
    steps, options = options_of(task, arm)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_parts(data, task, folder)
        words = ["train", "train/images", "train/masks", *TASKS[task].ignore, *options, "--seed", str(seed)]
        if not (place / "model.safetensors").exists():
            run([*program, *words, "-o", str(place)], folder)
        run([*program, "evaluate", str(place), "test/images", "test/masks", "--json", "scores.json"], folder)
        scores = json.loads((folder / "scores.json").read_text())
    command = " ".join(["keepmap", *words, "-o", "run"])
    return {
        "steps": steps,
        "command_of_arm": command,
        "iou": [row["iou"] for row in scores["classes"]],
        "boundary_f_of_classes": [row["boundary_f"] for row in scores["classes"]],
    }


def of_classes(values: Sequence[float | None], task: str) -> float:
    """The value of the foreground of nuclei; for CamVid the mean over its classes, 0 where nothing was found."""
    return values[1] or 0.0 if task == "nuclei" else math.fsum(value or 0.0 for value in values) / len(values)


def main() -> None:
    """Run the arms that have no result yet and write results/ablation-TASK-ARM-seedN.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trained-at", default=revision(), help="revision that the RUNs in FOLDER were trained with")
    words = parser.parse_args()
    for task in words.tasks:
        for arm in words.arms:
            for seed in words.seeds:
                name = f"ablation-{task}-{arm}-seed{seed}"
                if (RESULTS / f"{name}.json").exists():
                    print(f"{name} exists")
                    continue
                figures = measured(words.data.resolve(), task, arm, seed, words.runs)
                figures["score"] = of_classes(figures["iou"], task)
                figures["boundary_f"] = of_classes(figures["boundary_f_of_classes"], task)
                entries = ["=".join(entry) for entry in ARMS[arm][1].items()]
                about = {"task": task, "arm": arm, "seed": seed, "classes": TASKS[task].names, "entries": entries}
                write_result(name, {**about, **figures, "revision": words.trained_at})


if __name__ == "__main__":
    main()
