"""The model card: what is served, what it was trained on and how it scored, as JSON.

Reads the files of a RUN or the manifest of an export; gives no path away.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keepmap import __version__
from keepmap.artefacts.loading import is_artefact
from keepmap.config import read_json
from keepmap.errors import RunError
from keepmap.inference.predictor import Predictor
from keepmap.planning.plan import FORMAT as PLAN
from keepmap.protocols import Runtime
from keepmap.runs import FORMAT, RunFolder
from keepmap.runtime.exported import ExportedRuntime
from keepmap.serving.answers import class_fields


def model_card(path: Path, predictor: Predictor, runtime: Runtime) -> dict[str, Any]:
    """What there is to know of the model in `path`; what its files do not tell is left out.

    predictor, runtime: as loaded from there; the runtime that computes.
    """
    labels = predictor.labels
    card: dict[str, Any] = {
        "name": path.resolve().name, "version": __version__, "channels": runtime.channels, "dtype": predictor.dtype,
        "classes": [class_fields(labels, index) for index in range(labels.count)],
        "ignored": labels.ignore, "objects": labels.instances, "stride": runtime.stride, "reach": runtime.reach,
        "exact_in_parts": runtime.local, "precision": getattr(runtime, "precision", ""),
        "device": getattr(runtime, "device", "cpu"),
    }  # fmt: skip
    if isinstance(runtime, ExportedRuntime):
        facts = runtime.manifest
        return {**card, "network": facts.network, "options": facts.options, "runtime": runtime.name}
    card["runtime"] = "PyTorch"
    return card if is_artefact(path) else {**card, **_of_run(RunFolder(path))}


def _of_run(run: RunFolder) -> dict[str, Any]:
    config = run.read_config()
    told: dict[str, Any] = {"network": config.network, "options": config.options}
    trained: dict[str, Any] = {}
    try:
        split = read_json(run.split_file, format=FORMAT)
        trained |= {"images": len(split["train"]), "held_out": len(split["validation"])}
    except (RunError, KeyError):
        pass
    try:
        plan = read_json(run.plan_file, format=PLAN)
        trained |= {name: plan[name]["value"] for name in ("crop", "batch", "pretrained") if name in plan}
    except (RunError, KeyError, TypeError):
        pass
    metrics = _metrics(run.metrics_file)
    if steps := [value["step"] for value in metrics if isinstance(value.get("step"), int)]:
        trained["steps"] = max(steps)
    scores = [score for value in metrics if isinstance(score := value.get("validation_mean_iou"), int | float)]
    if scores:
        trained["mean_iou_held_out"] = round(max(scores), 4)
    return {**told, "trained": trained}


def _metrics(path: Path) -> list[dict[str, Any]]:
    """What the training wrote, line by line; a line that was cut short is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found
