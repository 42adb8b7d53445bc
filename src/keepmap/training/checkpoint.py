"""Where a training stands: saved whole or not at all, found again when the last save is damaged.

Knows the files of a state and what has to fit, not when one is saved.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from keepmap.config import from_dict, to_dict
from keepmap.errors import RunError, first_few
from keepmap.planning.plan import Plan
from keepmap.protocols import Progress
from keepmap.runs import RunFolder, check_names, check_room, read_tensors, write_tensors
from keepmap.training.engine import Engine

_COUNTED = ("steps", "step_seconds", "validation_seconds", "validate_every", "replanned_at", "processes", "workers",
            "because")  # fmt: skip
"""What is counted anew in the course of a training, where plan.json may be ahead of the state, or may change."""
_FILES = 14
"""Weights that a training keeps on the disk at most: three states (the last, the one before, one being written) with
two moments and an average, and two models."""


@dataclass
class Position:
    """Where a training stands; saved with the weights, so that it can go on from there.

    step: steps done; best: mean IoU on the held-out images of the weights that are kept, -1 before the first, best_step
    theirs, best_images: the same image by image; validated: step of the last validation; validation_seconds,
    save_seconds: what the last took; seconds: training time spent; bad: losses in a row that were no numbers, skipped:
    all of them; micro: crops of one pass, 0 for a whole batch; threads: of torch on the CPU; signal: what interrupted
    it, 0 for nothing; finished: whether steps or time were used up.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    best_images: tuple[float | None, ...] = ()
    validated: int = 0
    validation_seconds: float = 0.0
    save_seconds: float = 0.0
    seconds: float = 0.0
    bad: int = 0
    skipped: int = 0
    micro: int = 0
    threads: int = 0
    signal: int = 0
    finished: bool = False


def save(engine: Engine, run: RunFolder, at: Position, plan: Plan) -> None:
    """Write the state that `restore` goes on from, whole or not at all, and keep the one before.

    The random numbers of a step follow from the seed and its number, so that the step stands for all of them.
    Raises DiskFull and OutputError.
    """
    write_tensors(
        run.last_file, engine.state(), keep=run.previous_file, position=dataclasses.asdict(at), plan=_fixed(plan)
    )


def check_disk(engine: Engine, run: RunFolder) -> None:
    """Raise DiskFull where what a training saves will not fit on the disk."""
    weights = sum(tensor.nbytes for tensor in engine.network.state_dict().values())
    there = sum(file.stat().st_size for file in (run.last_file, run.previous_file, run.model_file) if file.exists())
    check_room(run.model_file, _FILES * weights - there)


def restore(engine: Engine, run: RunFolder, plan: Plan, progress: Progress) -> Position:
    """Put the RUN's last whole state into `engine`; without one, the start.

    A file that is damaged is said and deleted once the one before is found whole. Raises RunError where none is whole,
    or where the state does not fit the network or the plan.
    """
    found = [file for file in (run.last_file, run.previous_file) if file.exists()]
    damaged: list[RunError] = []
    for file in found:
        try:
            tensors, header = read_tensors(file)
        except RunError as error:
            damaged.append(error)
            continue
        position = _restored(engine, plan, tensors, header, str(file))
        for bad, reason in zip(found, damaged, strict=False):
            bad.unlink()
            progress.say(f"damaged {bad} ({reason.found}), deleted: back to step {position.step}, the save before")
        return position
    if damaged:
        raise RunError(
            f"No state of {run.path} is whole.", found="\n".join(error.summary for error in damaged),
            do=f"restore the files from a copy, or begin a new RUN with --init {run.path}",
        )  # fmt: skip
    return Position()


def _restored(engine: Engine, plan: Plan, tensors: dict[str, Tensor], header: Mapping[str, Any], file: str) -> Position:
    if "position" not in header:
        raise RunError(f"{file} is no state of a training.", expected="a file written by keepmap train")
    position = from_dict(Position, header["position"], file, RunError)
    weights = {name: t for name, t in tensors.items() if name.startswith("network/")}
    expected = {f"network/{name}": t for name, t in engine.network.state_dict().items()}
    check_names(weights, expected, file)
    before = header.get("plan", {})
    if changed := changes({name: value for name, value in before.items() if name not in _COUNTED}, _fixed(plan)):
        raise RunError(
            f"plan.json has changed since {file} was saved.", found=first_few(changed),
            expected="the plan that the training was begun with", do="put it back, or begin a new RUN with --init",
        )  # fmt: skip
    engine.restore(tensors)
    engine.micro = position.micro or engine.micro
    return dataclasses.replace(position, signal=0)


def _fixed(plan: Plan) -> dict[str, Any]:
    """What a training never changes in its plan, as JSON returns it."""
    values = {name: value for name, value in to_dict(plan).items() if name not in _COUNTED}
    return dict(json.loads(json.dumps(values)))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How the values of `now` differ from those that had the same name before, as "crop: 64, before 128"."""
    return [f"{name}: {now.get(name)}, before {value}" for name, value in before.items() if now.get(name) != value]
