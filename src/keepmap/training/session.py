"""From two folders and options to a trained RUN, and from an interrupted RUN to a finished one.

Puts plan, network, engine and loop together; each of them is told only what it needs.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from keepmap import __version__
from keepmap.config import from_dict, read_json, to_dict, write_json
from keepmap.data.classes import ClassNames
from keepmap.data.facts import FileFacts
from keepmap.data.groups import was_asked
from keepmap.data.pipeline import Own, Pipeline, pipeline_name
from keepmap.data.store import SampleStore
from keepmap.errors import Interrupted, RunError, first_few
from keepmap.metrics.confusion import Scores
from keepmap.metrics.scoring import choose_resampling, score
from keepmap.networks.candidate import Segmenter
from keepmap.networks.norms import has_batch_norm
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import FORMAT as FINGERPRINT_FORMAT
from keepmap.planning.plan import FORMAT as PLAN_FORMAT
from keepmap.planning.plan import Plan, plan_from_rows
from keepmap.planning.planner import without_objects
from keepmap.planning.recipe import OptimiserConfig
from keepmap.planning.settings import CHANCES, asked
from keepmap.protocols import Progress, Silent
from keepmap.resources import free_memory, resolve_device, use_cpu
from keepmap.runs import FORMAT, RunConfig, RunFolder, read_tensors
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training.batches import Batches, planned_batches
from keepmap.training.board import board_in, require_tensorboard
from keepmap.training.calibrating import calibrate
from keepmap.training.checkpoint import Position, changes
from keepmap.training.determinism import deterministic
from keepmap.training.engine import Engine
from keepmap.training.lock import locked
from keepmap.training.loop import fit
from keepmap.training.preparing import Parts, Split, parts_of, prepare, read, say_network
from keepmap.training.preview import check_preview, write_preview
from keepmap.training.ranks import Ranks, together
from keepmap.training.validation import draw_held_out, spread, validate
from keepmap.training.wanted import checked
from keepmap.training.workers import check_workers
from keepmap.units import in_bytes

_STORES = 2
"""Of decoded images that a process keeps in files beside the RUN: for training and for validation."""
_RENEWING = 32
"""Crops from which the statistics of an averaged network are computed before it is validated."""


@dataclass(frozen=True)
class Job:
    """What every process of a training has to know beside the network and the RUN."""

    plan: Plan
    parts: Parts
    config: RunConfig
    options: TrainOptions


class Outcome(NamedTuple):
    """How a training ended. first: whether this process is the one that speaks and writes."""

    plan: Plan
    position: Position
    first: bool


def begin(
    images: Path,
    masks: Path,
    run: RunFolder,
    options: TrainOptions,
    progress: Progress,
    given: Segmenter | None = None,
    augment: Pipeline | None = None,
) -> Outcome:
    """Scan, plan and train into a new RUN. Everything that can be refused is refused before the RUN is made.

    given: the network to train a copy of, in place of one that the options or the plan choose.
    augment: what changes the crops in place of keepmap's own augmentation.
    """
    if options.tensorboard:
        require_tensorboard()
    with together(options.devices, checked(asked(options).options)) as ranks, contextlib.ExitStack() as held:
        show = progress if ranks.first else Silent()
        made: list[Any] = []

        def begun() -> Job:
            run.check_free()
            ready = prepare(images, masks, options, show, given, augment)
            run.create()
            held.enter_context(locked(run, show))
            run.check_new()
            split = replace(ready.split, augment="" if augment is None else pipeline_name(augment))
            plan = ready.plan if augment is None else without_objects(ready.plan)
            write_json(run.split_file, to_dict(split), format=FORMAT)
            write_json(run.fingerprint_file, to_dict(ready.figures), format=FINGERPRINT_FORMAT)
            write_json(run.plan_file, plan.rows(), format=PLAN_FORMAT)
            run.write_config(ready.config)
            made.append(ready.network)
            return Job(plan, ready.parts, ready.config, options)

        job = ranks.from_first(begun)
        network = made[0] if made else run.make_network(job.config, given if job.config.foreign else None)
        return Outcome(job.plan, _train(network, job, run, show, augment, ranks), ranks.first)


def draw_preview(
    images: Path,
    masks: Path,
    file: Path,
    options: TrainOptions,
    progress: Progress,
    given: Segmenter | None = None,
    augment: Pipeline | None = None,
) -> Plan:
    """Scan and plan as `begin` does, then draw the crops that it would begin with into `file`, and train nothing."""
    check_preview(file)
    ready = prepare(images, masks, options, progress, given, augment)
    batches = _batches(ready.network, Job(ready.plan, ready.parts, ready.config, options), augment)
    write_preview(batches, ready.parts.labels, ready.config.dtype, file)
    return ready.plan


def go_on(
    run: RunFolder,
    progress: Progress,
    given: Segmenter | None = None,
    augment: Pipeline | None = None,
    *,
    workers: int | None = None,
    devices: int | None = None,
) -> Outcome:
    """Continue an interrupted RUN with the plan and the data that it knows; the time spent counts.

    given: a network of the user's own that the RUN was begun with. augment: the callable that it was begun with.
    workers: in place of those of before. devices: as many as divide the batch, whatever there were before; the same
    number and the same launcher give the same bits. Raises RunError with what has changed in between.
    """
    check_workers(workers)
    config = run.read_config()
    if not run.plan_file.is_file():
        raise RunError(
            f"{run.path} was not trained here, so there is no training to go on with.", found="no plan.json in it",
            do=f"keepmap train IMAGES MASKS -o NEW --init {run.path}",
        )  # fmt: skip
    plan = plan_from_rows(read_json(run.plan_file, format=PLAN_FORMAT), str(run.plan_file))
    with together(devices, resolve_device(plan.device)) as ranks, contextlib.ExitStack() as held:
        show = progress if ranks.first else Silent()
        use_cpu(ranks.here)
        network = run.make_network(config, given)

        def continued() -> Job:
            held.enter_context(locked(run, show))
            return _continued(run, config, plan, augment, workers, show)

        job = ranks.from_first(continued)
        check_processes(run, job.plan, network, ranks, show)
        return Outcome(job.plan, _train(network, job, run, show, augment, ranks), ranks.first)


def check_processes(run: RunFolder, plan: Plan, network: Any, ranks: Ranks, progress: Progress) -> None:
    """Raise RunError where the steps of the plan cannot be taken by as many processes; say where they are others."""
    unlike = plan.device == "cpu" and ranks.size > 1 and not plan.frozen_statistics and has_batch_norm(network)
    if plan.batch % ranks.size or unlike:
        raise RunError(
            f"{run.path} cannot go on with {ranks.size} processes.",
            found="batch norm, which CPUs do not share" if unlike else f"{plan.batch} crops a step",
            expected="one process" if unlike else f"a number of processes that divides {plan.batch}",
        )  # fmt: skip
    if ranks.size != plan.processes:
        before = f"{ranks.size} processes, {plan.processes} when it began"
        progress.say(f"note    {before}: sums differ in their last bits, and so will the weights")


def _continued(
    run: RunFolder,
    config: RunConfig,
    plan: Plan,
    augment: Pipeline | None,
    workers: int | None,
    progress: Progress,
) -> Job:
    split = from_dict(Split, read_json(run.split_file, format=FORMAT), str(run.split_file), RunError)
    if not run.last_file.is_file() and not run.previous_file.is_file():
        raise RunError(
            f"{run.path} was stopped before its first step.", found="no checkpoints/last.safetensors in it",
            do=f"delete {run.path} and train again",
        )  # fmt: skip
    _check_same_augment(run, split.augment, augment)
    names = ClassNames(config.labels.names, config.labels.values) if split.options.classes else None
    facts, labels = read(Path(split.images), Path(split.masks), names, split.options, progress)
    if found := [*_of_config(plan, config), *_of_data(facts, split), *changes(to_dict(config.labels), to_dict(labels))]:
        raise RunError(
            f"{run.path} was begun with other data or another configuration.", found=first_few(found, "\n"),
            expected=f"the {len(split.train)} + {len(split.validation)} images, labels and settings of before",
            do=f"restore them, or begin a new RUN with --init {run.path}",
        )  # fmt: skip
    if config.version != __version__:
        progress.say(f"note    begun with keepmap {config.version}, this is {__version__}")
    wanted = split.options.workers if workers is None else workers
    if wanted is not None:
        plan = replace(plan, workers=wanted, because={**plan.because, "workers": "--workers"})
    check_workers(plan.workers)
    say_network(config.network, config.options, plan.because["network"], progress)
    return Job(plan, parts_of(facts, labels, split), config, split.options)


def _of_config(plan: Plan, config: RunConfig) -> list[str]:
    """What config.json says otherwise than plan.json."""
    here = to_dict(config)
    return changes({name: value for name, value in to_dict(plan).items() if name in ("network", "options")}, here)


def _of_data(facts: Sequence[FileFacts], split: Split) -> list[str]:
    """Which images are no longer what they were."""
    before, now = {*split.train, *split.validation}, {fact.stem: fact for fact in facts}
    other = [stem for stem, mark in split.marks.items() if stem in now and now[stem].mark != mark]
    kinds = (("gone", sorted(before - now.keys())), ("new", sorted(now.keys() - before)), ("of other content", other))
    return [f"{len(stems)} {kind}: {first_few(stems)}" for kind, stems in kinds if stems]


def raise_if_interrupted(
    run: RunFolder, plan: Plan, at: Position, given: Segmenter | None, augment: Pipeline | None
) -> None:
    """Raise Interrupted, with how to go on, where a signal ended the training."""
    if not at.signal:
        return
    objects = ", network=..." * (given is not None and run.read_config().foreign)
    objects += ", augment=..." * (augment is not None)
    again = f'keepmap.train(out="{run.path}", resume=True{objects})' if objects else ""
    raise Interrupted(
        f"Interrupted after step {at.step} of {plan.steps}; the state is saved.",
        signal=at.signal, do=again or f"keepmap train -o {run.path} --resume",
    )  # fmt: skip


def _check_same_augment(run: RunFolder, before: str, now: Pipeline | None) -> None:
    """Raise RunError where a RUN that was begun with a callable goes on without, or the other way round."""
    if before and now is None:
        raise RunError(
            f"{run.path} was begun with augment=, the callable {before}, which no file holds.",
            do=f'keepmap.train(out="{run.path}", resume=True, augment=...); the command line cannot',
        )
    if now is not None and not before:
        raise RunError(f"{run.path} was begun without augment=.", do="leave it out, or begin a new RUN")


def _say_plan(plan: Plan, engine: Engine, own: Own | None, progress: Progress) -> None:
    """The rest of the plan in two lines, three with several heads; the whole of it is in plan.json."""
    shared = engine.ranks.size
    limit = "" if plan.seconds is None else f", at most {max(plan.seconds, 0):.0f} s"
    progress.say(
        f"plan    {plan.steps} steps of {plan.batch} crops of {plan.crop} px, {plan.step_seconds:.2f} s each{limit}; "
        f"{plan.device} {plan.precision}{f', {shared} processes' if shared > 1 else ''}"
    )
    said = _augmentation(plan) if own is None else f"by {pipeline_name(own.pipeline)}, the callable, alone"
    progress.say(f"augment {said}")
    if engine.heads:
        weights = ", ".join(f"{weight:.3g}" for _, weight in engine.heads)
        progress.say(f"loss    of {len(engine.heads)} heads, weighted {weights}; the first is the one that predicts")
    if plan.border:
        progress.say(f"loss    weighs pixels by border {plan.border:g}, {plan.because['border'].split('; ')[-1]}")


def _augmentation(plan: Plan) -> str:
    """What is on of the entries of the plan, in their order."""
    ways = "left-right flips (top and bottom differ)" if plan.upright else "flips and transposition"
    said = [ways, f"scale {plan.scale[0]:g}-{plan.scale[1]:g}"]
    said += ["light"] if plan.gain or plan.shift else []
    said += [f"{plan.invert:.0%} inverted"] if plan.invert else []
    said += [f"{getattr(plan, name)[0]:.0%} {name}" for name in CHANCES if getattr(plan, name)[0]]
    said += [f"{plan.class_rate:.0%} around rare classes"] if plan.class_rate else []
    return ", ".join(said)


def _batches(
    network: Any, job: Job, augment: Pipeline | None, scratch: Path | None = None, ranks: Ranks = Ranks()  # noqa: B008
) -> Batches:
    """What the plan says the crops are drawn by; several workers share the memory for decoded images.

    scratch: see `SampleStore`.
    """
    plan, parts = job.plan, job.parts
    cache = _cache(plan, ranks) // max(plan.workers, 1)
    store = SampleStore(parts.train, parts.labels, cache, job.options, scratch, _STORES * ranks.here)
    return planned_batches(plan, network.stride, store, augment, (ranks.rank, ranks.size))


def _cache(plan: Plan, ranks: Ranks) -> int:
    return min(plan.cache, free_memory() // 2 // ranks.here)


def _train(
    network: Any, job: Job, run: RunFolder, progress: Progress, augment: Pipeline | None, ranks: Ranks
) -> Position:
    plan, parts = job.plan, job.parts
    batches = _batches(network, job, augment, run.path, ranks)
    cache, stores = _cache(plan, ranks) // 4, _STORES * ranks.here
    scored = spread(parts.validation, plan.validation_images)
    held_out = SampleStore(scored, parts.labels, cache, job.options, run.path, stores)
    if stored := batches.store.file_bytes + held_out.file_bytes:
        progress.say(f"data    decoded images beyond the memory go to a file in {run.path}, {in_bytes(stored)}")
    optimiser = plan.part(OptimiserConfig)
    engine = Engine(
        network, device=plan.device, precision=plan.precision, memory_format=plan.memory_format, optimiser=optimiser,
        loss=plan.loss, ranks=ranks,
    )  # fmt: skip
    engine.micro = math.ceil(plan.micro * plan.processes / ranks.size)
    _say_plan(plan, engine, batches.own, progress)
    whole = replace(batches, share=(0, 1))

    def judge() -> Scores:
        drawn = (torch.from_numpy(whole.draw(step)[0]) for step in range(math.ceil(_RENEWING / plan.batch)))
        engine.renew_statistics(drawn)
        how = {"device": plan.device, "precision": plan.precision}
        counts = validate(engine.judged, held_out, parts.labels, ranks=ranks, **how)
        groups = {stem: parts.groups.get(stem, stem) for stem in counts.stems}
        return score(counts, choose_resampling(counts.stems, groups, asked=was_asked(parts.rule)))

    shown = partial(
        draw_held_out, engine.judged, held_out, parts.labels, device=plan.device, precision=plan.precision
    )
    wanted = job.options.tensorboard and ranks.first
    with deterministic(job.options.deterministic), board_in(run.path, wanted, shown) as board:
        at = fit(engine, plan, batches, judge, run, progress, board)
        if ranks.first and not at.signal:
            _calibrate(engine.judged, plan, held_out, run)
        return at


def _calibrate(network: Any, plan: Plan, held_out: SampleStore, run: RunFolder) -> None:
    """Fit the temperature of the best weights, and save it with what it does to the probabilities."""
    network.load_state_dict(read_tensors(run.model_file)[0])
    runtime = TorchRuntime(network, device=plan.device, precision=plan.precision)
    temperature, bins = calibrate(runtime, held_out, plan.crop)
    run.write_config(replace(run.read_config(), temperature=temperature))
    if run.validation_file.is_file():
        scores = read_json(run.validation_file, format=FORMAT)
        rows = [to_dict(one) for one in bins]
        write_json(run.validation_file, {**scores, "reliability": rows}, format=FORMAT)
