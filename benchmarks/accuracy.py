"""IoU on the fixed splits of real images: keepmap and the plain recipe, arm after arm under the same wall-clock budget.

usage: python benchmarks/accuracy.py DATA {nuclei|camvid}... [--arms ARM...] [--seeds 0 1] [--baseline PATH] [--again]
DATA holds nuclei/ and camvid/ with their split.json. Both parts are copied into temporary folders, so that `train` sees
no test image, not as validation either. An arm whose result exists is skipped. The plain-* arms run the script given by
--baseline with the interpreter given by --baseline-python, which needs the packages that the script names.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import RESULTS, write_result
from keepmap.resources import Stopwatch, thread_count

KEEPMAP = {
    "keepmap": [],
    "keepmap-border": ["--set", "border=10"],
    "keepmap-scratch": ["--weights", "none"],
    "keepmap-unet": ["--model", "unet"],
    "keepmap-resnet18": ["--model", "encoder_unet", "--encoder", "resnet18"],
}
"""Arm -> options of `keepmap train`."""
PLAIN = {f"plain-{recipe}": recipe for recipe in ("lite0", "resnet18", "smp", "milesial")}
"""Arm -> recipe of the baseline script."""
DEFAULT_ARMS = ["keepmap", "plain-lite0", "keepmap-scratch", "plain-resnet18"]


@dataclass(frozen=True)
class Task:
    """A data set: where its files lie in DATA, its label values in class order, the budget in seconds."""

    base: str
    values: tuple[int, ...]
    names: tuple[str, ...]
    ignore: tuple[str, ...]
    seconds: int


ROADS = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
TASKS = {
    "nuclei": Task("nuclei", (0, 255), ("background", "nucleus"), (), 300),
    "camvid": Task("camvid/train", tuple(range(11)), ROADS, ("--ignore", "11"), 600),
}


def copy_parts(data: Path, name: str, folder: Path) -> list[str]:
    """Copy both parts to folder/{train,test}/{images,masks}; return the names of the test images."""
    split = json.loads((data / name / "split.json").read_text())
    for part in ("train", "test"):
        for kind in ("images", "masks"):
            target = folder / part / kind
            target.mkdir(parents=True)
            for file in split[part]:
                shutil.copy(data / TASKS[name].base / kind / file, target / file)
    return list(split["test"])


def run(command: list[str], folder: Path) -> tuple[str, float]:
    """Output and wall-clock seconds of a command that must succeed."""
    watch = Stopwatch()
    threads = {"OMP_NUM_THREADS": str(thread_count())}
    done = subprocess.run(command, cwd=folder, env=os.environ | threads, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr, watch.seconds


def matrices_of(folder: Path, task: Task, names: list[str]) -> np.ndarray[Any, Any]:
    """A confusion matrix (truth, prediction) of each test image, (images, K, K), from the predicted masks."""
    index = np.full(256, len(task.values))
    index[list(task.values)] = range(len(task.values))
    side, rows = len(task.values) + 1, []
    for name in names:
        truth = index[np.asarray(Image.open(folder / "test" / "masks" / name))]
        found = index[np.asarray(Image.open(folder / "predictions" / name))]
        counts = np.bincount((truth * side + found).ravel(), minlength=side * side).reshape(side, side)
        rows.append(counts[:-1, :-1])
    return np.stack(rows)


def keepmap_arm(data: Path, name: str, seconds: int, seed: int, options: list[str]) -> dict[str, Any]:
    """Train, evaluate and predict with the command line; IoU as `keepmap evaluate` reports it."""
    task, program = TASKS[name], [sys.executable, "-m", "keepmap"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = copy_parts(data, name, folder)
        words = ["train", "train/images", "train/masks", "-o", "run", "--time", f"{seconds}s", "--seed", str(seed)]
        said, training = run([*program, *words, *task.ignore, *options], folder)
        _, evaluating = run([*program, "evaluate", "run", "test/images", "test/masks", "--json", "scores.json"], folder)
        run([*program, "predict", "run", "test/images", "-o", "predictions"], folder)
        scores = json.loads((folder / "scores.json").read_text())
        matrices = matrices_of(folder, task, names)
        plan = [" ".join(line.split()) for line in said.splitlines() if line.startswith(("network", "plan", "augment"))]
    return {
        "train_seconds": training,
        "evaluate_seconds": evaluating,
        "commands": [" ".join(["keepmap", *words, *task.ignore, *options])],
        "said": plan,
        "iou": [row["iou"] for row in scores["classes"]],
        "matrices": matrices.tolist(),
    }


def parse_plain(line: str) -> tuple[int, list[float]]:
    """Steps and IoU per class of the line that the baseline prints."""
    match = re.search(r"(\d+) steps, .*per class \[([^\]]*)\]", line)
    if not match:
        raise ValueError(f"the baseline printed {line!r}")
    return int(match[1]), [float(word) for word in match[2].split(",")]


def plain_arm(script: Path, python: str, name: str, recipe: str, length: tuple[int, int]) -> dict[str, Any]:
    """Run the baseline script. length: (seconds, seed)."""
    seconds, seed = map(str, length)
    with tempfile.TemporaryDirectory() as temporary:
        words = [recipe, name, seconds, "--seed", seed, "--save", "matrices.npz"]
        said, wall = run([python, str(script), *words], Path(temporary))
        matrices = np.load(Path(temporary) / "matrices.npz")["matrices"]
    _, iou = parse_plain(said)
    return {
        "train_seconds": wall,
        "evaluate_seconds": None,
        "commands": [" ".join(["python", script.name, *words])],
        "said": said.strip().splitlines()[-1:],
        "iou": iou,
        "matrices": matrices.tolist(),
    }


def main() -> None:
    """Run the arms that have no result yet and write results/accuracy-DATA-ARM[-SECONDSs]-seedN.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--arms", nargs="+", choices=[*KEEPMAP, *PLAIN], default=DEFAULT_ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=int, help="budget; default: 300 for nuclei, 600 for camvid")
    parser.add_argument("--baseline", type=Path, help="plain_recipe.py")
    parser.add_argument("--baseline-python", default=sys.executable)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    for task in options.tasks:
        seconds = options.seconds or TASKS[task].seconds
        suffix = "" if seconds == TASKS[task].seconds else f"-{seconds}s"
        for seed in options.seeds:
            for arm in options.arms:
                name = f"accuracy-{task}-{arm}{suffix}-seed{seed}"
                if (RESULTS / f"{name}.json").exists() and not options.again:
                    print(f"{name} exists")
                    continue
                if arm in KEEPMAP:
                    figures = keepmap_arm(options.data.resolve(), task, seconds, seed, KEEPMAP[arm])
                elif options.baseline:
                    script = options.baseline.resolve()
                    figures = plain_arm(script, options.baseline_python, task, PLAIN[arm], (seconds, seed))
                else:
                    print(f"{name} needs --baseline")
                    continue
                about = {"task": task, "arm": arm, "seed": seed, "seconds": seconds, "classes": TASKS[task].names}
                write_result(name, {**about, **figures})


if __name__ == "__main__":
    main()
