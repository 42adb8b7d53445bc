"""The training loop: steps, validations, checkpoints, until the plan, the time or a signal ends it.

One function, no hooks. It knows the order of events; how each is done is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from keepmap.config import from_dict, write_json
from keepmap.errors import RunError, TrainingError
from keepmap.metrics.confusion import Scores
from keepmap.planning.plan import FORMAT, Plan
from keepmap.planning.planner import replan
from keepmap.planning.recipe import learning_rate
from keepmap.protocols import Progress, Silent, Tracker
from keepmap.resources import Stopwatch
from keepmap.runs import RunFolder, check_names, read_tensors, write_tensors
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from keepmap.training.interrupt import caught_signals

_SAVE_SECONDS = 120.0
_REPORT_SECONDS = 10.0
_MOST_BAD_LOSSES = 10
_RESERVE = 0.01
"""Share of the time that is kept back for the last validation at least."""
_PACE_SHARE, _PACE_STEPS = 0.1, 3
"""Share of the time, and steps, after which the pace is known."""
_SLACK = 1.3
"""How much longer than expected, or than the one before, a validation may take."""


@dataclass
class Position:
    """Where a training stands; saved with the weights, so that it can go on from there.

    step: steps done; best: best mean IoU on the held-out images, -1 before the first; validated: step of the last
    validation; validation_seconds: what it took; seconds: training time spent; bad: losses in a row that were none;
    signal: what interrupted it, 0 for nothing; finished: whether steps or time were used up.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    validated: int = 0
    validation_seconds: float = 0.0
    seconds: float = 0.0
    bad: int = 0
    signal: int = 0
    finished: bool = False


def fit(
    engine: Engine, plan: Plan, batches: Batches, validate: Callable[[], Scores], run: RunFolder, progress: Progress
) -> Position:
    """Train from the RUN's last state, or from the start, and leave best and last in the RUN.

    The order of samples and the schedule depend on the plan alone; --time only decides where it stops.
    """
    at = restore(engine, run)
    run.trim_metrics(at.step, at.validated)
    if at.validated < at.step and (at.step == plan.steps or at.step % plan.validate_every == 0):
        _keep_if_best(engine, at, validate, run, Silent())
    save(engine, run, at)
    spent, watch, saved, reported = at.seconds, Stopwatch(), Stopwatch(), Stopwatch()
    over = at.finished or at.step >= plan.steps or _out_of_time(at, plan)
    with caught_signals() as interrupt, progress.track("train", plan.steps * plan.batch, "images") as bar:
        bar.advance(at.step * plan.batch)
        for step, x, y in () if over else batches.stream(at.step):
            torch.manual_seed(plan.seed * 1_000_003 + step)
            loss = engine.step(x, y, learning_rate(step, plan.steps, engine.config))
            bar.advance(plan.batch, loss=loss)
            at.step, at.seconds, at.signal = step + 1, spent + watch.seconds, interrupt.signal
            at.bad = 0 if math.isfinite(loss) else at.bad + 1
            if at.bad >= _MOST_BAD_LOSSES:
                raise _no_number(run, at)
            plan = _at_real_pace(engine, at, run, plan, bar)
            ending = at.step >= plan.steps or _out_of_time(at, plan) or bool(at.signal)
            at.finished = ending and not at.signal
            if reported.seconds > _REPORT_SECONDS or ending:
                run.append_metrics(step=at.step, loss=loss, seconds=round(at.seconds, 2))
                reported = Stopwatch()
            if not at.bad and not at.signal and (ending or at.step % plan.validate_every == 0):
                _keep_if_best(engine, at, validate, run, bar)
                saved = Stopwatch()
            elif not at.bad and (ending or saved.seconds > _SAVE_SECONDS):
                save(engine, run, at)
                saved = Stopwatch()
            if ending:
                break
    if not run.model_file.exists():
        write_tensors(run.model_file, engine.judged.state_dict())
    return at


def _no_number(run: RunFolder, at: Position) -> TrainingError:
    return TrainingError(
        f"{run.path}: the loss was no number {at.bad} times in a row, at step {at.step}; the last good state is saved.",
        do="train in --precision float32, or look for extreme values with keepmap check",
    )


def _out_of_time(at: Position, plan: Plan) -> bool:
    """Whether after another step the time would not suffice for the last validation."""
    if plan.seconds is None:
        return False
    reserve = max(_RESERVE * plan.seconds, _SLACK * max(plan.validation_seconds, at.validation_seconds))
    return at.seconds + plan.step_seconds + reserve > plan.seconds


def _at_real_pace(engine: Engine, at: Position, run: RunFolder, plan: Plan, bar: Tracker) -> Plan:
    """The plan with its steps counted anew, once, when a tenth of the time has shown how long a step takes here."""
    if plan.seconds is None or plan.replanned_at or at.step < _PACE_STEPS or at.bad:
        return plan
    if at.seconds < _PACE_SHARE * plan.seconds and at.step < plan.steps:
        return plan
    paced = replan(plan, step=at.step, seconds=at.seconds)
    write_json(run.plan_file, paced.rows(), format=FORMAT)
    save(engine, run, at)
    bar.resize(paced.steps * paced.batch)
    return paced


def _keep_if_best(engine: Engine, at: Position, validate: Callable[[], Scores], run: RunFolder, bar: Tracker) -> None:
    """Validate, save the weights if they are the best so far, and save the state."""
    watch = Stopwatch()
    scores = validate()
    run.append_metrics(step=at.step, validation_mean_iou=scores.mean_iou, seconds=round(at.seconds, 2))
    mean = -1.0 if scores.mean_iou is None else scores.mean_iou
    bar.advance(0, mean_iou="n/a" if scores.mean_iou is None else mean)
    at.validated = at.step
    if mean >= at.best:
        at.best, at.best_step = mean, at.step
        write_tensors(run.model_file, engine.judged.state_dict(), step=at.step, mean_iou=mean)
    at.validation_seconds = watch.seconds
    save(engine, run, at)


def save(engine: Engine, run: RunFolder, at: Position) -> None:
    """Write the state that `restore` goes on from, whole or not at all."""
    write_tensors(run.last_file, engine.state(), position=dataclasses.asdict(at))


def restore(engine: Engine, run: RunFolder) -> Position:
    """Put the RUN's last state into `engine`; without one, the start. Raises RunError where it does not fit."""
    if not run.last_file.exists():
        return Position()
    tensors, header = read_tensors(run.last_file)
    if "position" not in header:
        raise RunError(f"{run.last_file} is no state of a training.", expected="a file written by keepmap train")
    position = from_dict(Position, header["position"], str(run.last_file), RunError)
    weights = {name: t for name, t in tensors.items() if name.startswith("network/")}
    expected = {f"network/{name}": t for name, t in engine.network.state_dict().items()}
    check_names(weights, expected, run.last_file)
    engine.restore(tensors)
    return dataclasses.replace(position, signal=0)
