"""The training loop: steps, validations, checkpoints, until the plan, the time or a signal ends it.

One function, no hooks. It knows the order of events; how each is done is decided elsewhere.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from keepmap.config import to_dict, write_json
from keepmap.errors import OutOfMemory, TrainingError, first_few
from keepmap.metrics.confusion import Scores
from keepmap.planning.plan import FORMAT, Plan
from keepmap.planning.planner import replan
from keepmap.planning.recipe import learning_rate
from keepmap.protocols import Progress, Tracker
from keepmap.resources import Stopwatch
from keepmap.runs import RunFolder, write_tensors
from keepmap.training.batches import Batches
from keepmap.training.board import Board
from keepmap.training.checkpoint import Position, check_disk, restore, save
from keepmap.training.determinism import agreed_threads
from keepmap.training.diagnosis import History
from keepmap.training.engine import Engine
from keepmap.training.interrupt import caught_signals
from keepmap.training.validation import clearly_better

_SAVE_SECONDS = 120.0
_REPORT_SECONDS = 10.0
_MOST_BAD_LOSSES = 10
_RESERVE = 0.01
"""Share of the time that is kept back for the last validation at least."""
_PACE_FROM, _PACE_STEPS = 0.2, 3
"""Share of the time or of the steps after which the pace is believed, and its fewest steps."""
_OFF = 0.05
"""Share by which the steps that fit the time must differ from the planned ones to be counted anew."""
_UNSTEADY = 0.25
"""Share by which the pace of the last steps may differ from that of the later half, which else is not believed yet."""
_LATE = 2 / 3
"""Share of the steps from which on the rate is low enough for weights to be near their best."""
_SLACK = 1.3
"""How much longer than expected, or than the one before, a validation or a save may take."""


@dataclass
class _Training:
    """What a step, a validation and a save need to know. spent: seconds before this process, whose are in `watch`.

    first: the step that this process began with; clock: the seconds after it and after each step since.
    history: what this process saw; told: the kinds of remarks that it gave rise to.
    """

    engine: Engine
    plan: Plan
    run: RunFolder
    at: Position
    progress: Progress
    spent: float
    watch: Stopwatch
    board: Board | None = None
    first: int = 0
    clock: list[float] = field(default_factory=list)
    history: History = field(default_factory=History)
    told: set[str] = field(default_factory=set)

    @property
    def seconds(self) -> float:
        """Spent on the training in all."""
        return self.spent + self.watch.seconds

    def agree(self, signal: int = 0) -> None:
        """Set what is decided by: the first process's clock and what its last validation and save took, any signal."""
        at = self.at
        ours = self.seconds, at.validation_seconds, at.save_seconds
        at.seconds, at.validation_seconds, at.save_seconds, number = self.engine.ranks.agreed(ours, [signal])
        at.signal = int(number)

    def write(self, **figures: float | int | str | Sequence[str] | None) -> None:
        """Add a line to metrics.jsonl and the board, in one process."""
        if self.engine.ranks.first:
            self.run.append_metrics(**figures)
            if self.board is not None:
                self.board.add(figures)


def fit(
    engine: Engine,
    plan: Plan,
    batches: Batches,
    validate: Callable[[], Scores],
    run: RunFolder,
    progress: Progress,
    board: Board | None = None,
) -> Position:
    """Train from the RUN's last state, or from the start, and leave best and last in the RUN.

    The order of samples and the schedule depend on the plan alone; --time only decides where it stops. Of several
    processes all take the same steps and the same decisions, and the first one reads and writes. board: gets the lines
    of metrics.jsonl, too.
    """
    at = _begun(engine, run, plan, progress)
    here = _Training(engine, plan, run, at, progress, at.seconds, Stopwatch(), board, at.step, [at.seconds])
    at.threads = agreed_threads(at.threads, progress)
    if at.validated < at.step and (at.step == plan.steps or at.step % plan.validate_every == 0):
        _keep_if_better(here, validate)
    _save(here)
    saved, reported = Stopwatch(), Stopwatch()
    here.agree()
    over = at.finished or at.step >= plan.steps or _out_of_time(here)
    with caught_signals() as interrupt, progress.track("train", plan.steps * plan.batch, "images") as bar:
        bar.advance(at.step * plan.batch)
        for step, *batch in () if over else batches.stream(at.step, progress):
            loss = _step(here, step, batch)
            bar.advance(plan.batch, loss=loss)
            at.step = step + 1
            here.agree(interrupt.signal)
            _count_bad(here, loss, batches)
            _at_real_pace(here, bar)
            ending = at.step >= here.plan.steps or _out_of_time(here) or bool(at.signal)
            at.finished = ending and not at.signal
            if reported.seconds > _REPORT_SECONDS or ending:
                here.write(step=at.step, loss=loss, seconds=round(at.seconds, 2))
                reported = Stopwatch()
            if not at.signal and (ending or at.step % here.plan.validate_every == 0):
                bar.advance(0, mean_iou=_keep_if_better(here, validate))
            if ending or at.validated == at.step or saved.seconds > _SAVE_SECONDS:
                _save(here)
                saved = Stopwatch()
            if ending:
                break
    _say_end(here)
    if engine.ranks.first and not run.model_file.exists():
        write_tensors(run.model_file, engine.judged.state_dict())
    return at


def _begun(engine: Engine, run: RunFolder, plan: Plan, progress: Progress) -> Position:
    """The state that the training goes on from, in the engines of all processes, and the RUN as it was then."""

    def read() -> Position:
        at = restore(engine, run, plan, progress)
        check_disk(engine, run)
        run.trim_metrics(at.step, at.validated)
        return at

    at = engine.ranks.from_first(read)
    engine.share_state()
    engine.micro = at.micro or engine.micro
    return at


def _step(here: _Training, step: int, batch: Sequence[Tensor]) -> float:
    """One step on x, y and weights; in parts of half as many crops each time that memory fails; returns its loss."""
    engine, at = here.engine, here.at
    x, y, *weights = batch
    while True:
        torch.manual_seed(here.plan.seed * 1_000_003 + step + (engine.ranks.rank << 48))
        try:
            return engine.step(x, y, learning_rate(step, here.plan.steps, engine.config), *weights)
        except OutOfMemory as error:
            size = engine.micro or len(x)
            if size == 1 or engine.ranks.size > 1:
                raise  # the other processes are waiting for this one somewhere within the step
            engine.micro = at.micro = (size + 1) // 2
            here.write(step=step + 1, crops_at_once=at.micro)
            here.progress.say(f"memory  {error.summary} From now on {at.micro} at once, {len(x)} a step as before")


def _count_bad(here: _Training, loss: float, batches: Batches) -> None:
    """Count a loss that is no number, whose step changed nothing, and write its images down; raise after too many."""
    at = here.at
    if math.isfinite(loss):
        at.bad = 0
        here.history.losses.append(loss)
        return
    at.bad, at.skipped = at.bad + 1, at.skipped + 1
    files = batches.files(at.step - 1)
    here.write(step=at.step, skipped=files)
    if at.skipped == 1:
        here.progress.say(f"note    the loss of step {at.step} was no number, the step is skipped: {first_few(files)}")
    if at.bad >= _MOST_BAD_LOSSES:
        good = dataclasses.replace(at, step=at.step - at.bad, bad=0, skipped=at.skipped - at.bad)
        if here.engine.ranks.first:
            save(here.engine, here.run, good, here.plan)
        raise TrainingError(
            f"{here.run.path}: the loss was no number {at.bad} times in a row, at step {at.step}; the state of step "
            f"{good.step} is saved.",
            found=f"the last time with the images {first_few(files)}; all are in {here.run.metrics_file}",
            do="train in --precision float32, or look for extreme values with keepmap check",
        )


def _out_of_time(here: _Training) -> bool:
    """Whether after another step the time would not suffice for the last validation and the last saves."""
    plan, at = here.plan, here.at
    if plan.seconds is None:
        return False
    last = max(plan.validation_seconds, at.validation_seconds) + 2 * at.save_seconds
    return at.seconds + plan.step_seconds + max(_RESERVE * plan.seconds, _SLACK * last) > plan.seconds


def _at_real_pace(here: _Training, bar: Tracker) -> None:
    """Count the steps anew, once, when a fifth of the time has shown that they are not what fits into it.

    The median of the later half of the steps: the first read their images, and a machine that was busy for a while, be
    it when the plan was made, gets its pace back. As long as the plan holds, the one time is kept for later.
    """
    plan, at = here.plan, here.at
    here.clock.append(at.seconds)
    taken, begun = at.step - here.first, here.clock[0]
    if plan.seconds is None or plan.replanned_at or at.bad or taken < _PACE_STEPS:
        return
    if max((at.seconds - begun) / plan.seconds, taken / plan.steps) < _PACE_FROM:
        return
    pace, now = (_pace(here.clock[first:]) for first in (taken // 2, taken - max(_PACE_STEPS, taken // 10)))
    if abs(now - pace) > _UNSTEADY * pace:
        return
    anew = replan(plan, step=at.step, seconds=at.seconds, pace=pace, validation=at.validation_seconds or None)
    if abs(anew.steps - plan.steps) <= _OFF * plan.steps:
        return
    here.plan = anew
    if here.engine.ranks.first:
        write_json(here.run.plan_file, here.plan.rows(), format=FORMAT)
    _save(here)
    here.agree(at.signal)
    bar.resize(here.plan.steps * plan.batch)


def _pace(clock: Sequence[float]) -> float:
    """Seconds of a step, the median, from those after each."""
    return statistics.median(after - before for before, after in pairwise(clock))


def _keep_if_better(here: _Training, validate: Callable[[], Scores]) -> float | str:
    """Validate, and save the weights if they are to be kept; returns the mean IoU to be shown.

    Few held-out images praise by chance what has hardly learnt. So the first weights of the last third take the place
    of all before, unless those are clearly better; in either part the best are kept.
    """
    watch, at = Stopwatch(), here.at
    scores = validate()
    mean, images = scores.mean_iou, tuple(image.mean_iou for image in scores.images)
    reached = -1.0 if mean is None else mean
    first_late = at.best_step < _LATE * here.plan.steps <= at.step
    kept = reached >= at.best or (first_late and not clearly_better(at.best_images, images))
    here.write(step=at.step, validation_mean_iou=mean, kept=kept, seconds=round(at.seconds, 2))
    at.validated = at.step
    if kept:
        at.best, at.best_step, at.best_images = reached, at.step, images
        if here.engine.ranks.first:
            write_tensors(here.run.model_file, here.engine.judged.state_dict(), step=at.step, mean_iou=reached)
            write_json(here.run.validation_file, to_dict(scores), format=FORMAT)
    at.validation_seconds = watch.seconds
    _remark(here, scores)
    return "n/a" if mean is None else mean


def _remark(here: _Training, scores: Scores) -> None:
    """Say what the training so far gives reason to, each kind of it once, and write it down."""
    here.history.scores.append((here.at.step, scores))
    for remark in here.history.remarks(here.plan.steps, here.plan.warm_up):
        if remark.kind not in here.told:
            here.told.add(remark.kind)
            here.write(step=here.at.step, remark=remark.kind, found=remark.found, do=remark.do)
            here.progress.say(f"note    {remark.found}. {remark.do[0].upper()}{remark.do[1:]}.")


def _save(here: _Training) -> None:
    """Save the state, in one process, and remember how long that takes."""
    if not here.engine.ranks.first:
        return
    watch = Stopwatch()
    here.at.seconds = here.seconds
    save(here.engine, here.run, here.at, here.plan)
    here.at.save_seconds = watch.seconds


def _say_end(here: _Training) -> None:
    """What a training that is over leaves to be said."""
    at, plan = here.at, here.plan
    if at.finished and at.step < plan.steps:
        config = here.engine.config
        rate = learning_rate(at.step, plan.steps, config) / config.learning_rate
        here.progress.say(f"time    is up at step {at.step} of {plan.steps}, with {rate:.0%} of the learning rate left")
    if at.skipped:
        here.progress.say(f"note    {at.skipped} steps were skipped, their loss was no number: {here.run.metrics_file}")
