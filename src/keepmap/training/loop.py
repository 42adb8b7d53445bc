"""The training loop: steps, validations, checkpoints, until the plan, the time or a signal ends it.

One function, no hooks. It knows the order of events; how each is done is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from keepmap.config import from_dict
from keepmap.errors import RunError, TrainingError
from keepmap.metrics.confusion import Scores
from keepmap.planning.plan import Plan
from keepmap.protocols import Progress
from keepmap.resources import Stopwatch
from keepmap.runs import RunFolder, read_tensors, write_tensors
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine, learning_rate
from keepmap.training.interrupt import caught_signals

_SAVE_SECONDS = 120.0
_REPORT_SECONDS = 10.0
_MOST_BAD_LOSSES = 10


@dataclass
class Position:
    """Where a training stands; saved with the weights, so that it can go on from there.

    step: steps done; best: best mean IoU on the held-out images, -1 before the first; seconds: training time spent;
    bad: losses in a row that were no number; signal: what interrupted it, 0 for nothing.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    seconds: float = 0.0
    bad: int = 0
    signal: int = 0


def fit(
    engine: Engine, plan: Plan, batches: Batches, validate: Callable[[], Scores], run: RunFolder, progress: Progress
) -> Position:
    """Train from the RUN's last state, or from the start, and leave best and last in the RUN.

    The order of samples and the schedule depend on the plan alone; --time only decides where it stops.
    """
    at = restore(engine, run)
    spent, watch, saved, reported = at.seconds, Stopwatch(), Stopwatch(), Stopwatch()
    reserve = _reserve(plan)
    with caught_signals() as interrupt, progress.track("train", plan.steps * plan.batch, "images") as bar:
        bar.advance(at.step * plan.batch)
        for step, x, y in batches.stream(at.step, plan.steps):
            torch.manual_seed(plan.seed * 1_000_003 + step)
            loss = engine.step(x, y, learning_rate(step, plan))
            at.step, at.seconds = step + 1, spent + watch.seconds
            at.bad = 0 if math.isfinite(loss) else at.bad + 1
            if at.bad >= _MOST_BAD_LOSSES:
                raise TrainingError(
                    f"{run.path}: the loss was no number {at.bad} times in a row, at step {at.step}.",
                    do="train in --precision float32, or look for extreme values with keepmap check",
                )
            out_of_time = plan.seconds is not None and at.seconds + reserve > plan.seconds
            at.signal = interrupt.signal
            ending = at.step == plan.steps or out_of_time or bool(at.signal)
            bar.advance(plan.batch, loss=loss)
            if reported.seconds > _REPORT_SECONDS or ending:
                run.append_metrics(step=at.step, loss=loss, seconds=round(at.seconds, 2))
                reported = Stopwatch()
            if (at.step % plan.validate_every == 0 or ending) and not at.signal:
                reserve = max(1.0, 1.3 * _keep_if_best(engine, at, validate, run))
                bar.advance(0, mean_iou=at.best)
            if saved.seconds > _SAVE_SECONDS or ending:
                save(engine, run, at)
                saved = Stopwatch()
            if ending:
                break
    if not run.model_file.exists():
        write_tensors(run.model_file, engine.network.state_dict())
    return at


def _reserve(plan: Plan) -> float:
    """Seconds kept back for the last validation before any was timed."""
    return 0.05 * plan.seconds if plan.seconds is not None else 0.0


def _keep_if_best(engine: Engine, at: Position, validate: Callable[[], Scores], run: RunFolder) -> float:
    """Validate, save the weights if they are the best so far, and return the seconds it took."""
    watch = Stopwatch()
    scores = validate()
    mean = scores.mean_iou if scores.mean_iou is not None else 0.0
    run.append_metrics(step=at.step, validation_mean_iou=mean, seconds=round(at.seconds, 2))
    if mean > at.best:
        at.best, at.best_step = mean, at.step
        write_tensors(run.model_file, engine.network.state_dict(), step=at.step, mean_iou=mean)
    return watch.seconds


def save(engine: Engine, run: RunFolder, at: Position) -> None:
    """Write the state that `restore` goes on from, whole or not at all."""
    write_tensors(run.last_file, engine.state(), position=dataclasses.asdict(at))


def restore(engine: Engine, run: RunFolder) -> Position:
    """Put the RUN's last state into `engine`; without one, the start. Raises RunError where it does not fit."""
    if not run.last_file.exists():
        return Position()
    tensors, header = read_tensors(run.last_file)
    position = from_dict(Position, header.get("position", {}), str(run.last_file), RunError)
    engine.restore(tensors)
    return dataclasses.replace(position, signal=0)
