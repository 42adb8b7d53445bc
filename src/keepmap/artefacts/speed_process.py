"""One speed, measured in this process: python -m keepmap.artefacts.speed_process TASK RESULT.

Does not know what else is measured. A process of its own, so that its peak memory is that of one way alone.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from keepmap.artefacts.loading import is_artefact, open_artefact
from keepmap.data.labels import LabelSet
from keepmap.inference.predictor import MEGAPIXEL, Predictor
from keepmap.options import WantedWay
from keepmap.resources import Stopwatch, peak_memory, use_cpu
from keepmap.runs import RunFolder
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.torch_runtime import TorchRuntime

_PART = 4
"""Bands and tiles may take a pass's memory divided by this."""


@dataclass(frozen=True)
class Task:
    """What to measure: the RUN or exported file `path` on an image of side x side pixels."""

    path: str
    precision: str
    way: str
    threads: int
    side: int
    rounds: int


def measure(task: Task) -> dict[str, Any]:
    """The fields of a SpeedRow: the median of `rounds` passes over an image of noise, after one more to warm up."""
    runtime, labels, name = _opened(task)
    torch.set_num_threads(task.threads)
    whole = runtime.peak_bytes(task.side, task.side)
    limit = whole if task.way == "pass" else whole // _PART
    predictor = Predictor(runtime, labels, memory_bytes=limit, way=cast(WantedWay, task.way))
    image = np.random.default_rng(0).integers(0, 256, (runtime.channels, task.side, task.side), np.uint8)
    predictor.indices(image)
    seconds = []
    for _ in range(task.rounds):
        watch = Stopwatch()
        predictor.indices(image)
        seconds.append(watch.seconds)
    return {
        "runtime": name, "precision": runtime.precision, "way": str(predictor.plan_way(task.side, task.side)),
        "threads": task.threads, "rate": task.side**2 / MEGAPIXEL / max(statistics.median(seconds), 1e-9),
        "peak_bytes": peak_memory(),
    }  # fmt: skip


def _opened(task: Task) -> tuple[ExportedRuntime | TorchRuntime, LabelSet, str]:
    path = Path(task.path)
    if is_artefact(path):
        exported = open_artefact(path, precision=task.precision, threads=task.threads)
        return exported, exported.manifest.labels, exported.name
    use_cpu()
    network, config = RunFolder(path).load_network()
    runtime = TorchRuntime(network, device="cpu", precision=task.precision)
    return runtime, config.labels, f"PyTorch {torch.__version__}"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(measure(Task(**json.loads(sys.argv[1])))), encoding="utf-8")
