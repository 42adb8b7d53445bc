"""From two folders and options to a trained RUN, and from an interrupted RUN to a finished one.

Puts plan, network, engine and loop together; each of them is told only what it needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from keepmap import __version__
from keepmap.config import from_dict, read_json, to_dict, write_json
from keepmap.data.augment import Augmentation
from keepmap.data.classes import ClassNames
from keepmap.data.facts import FileFacts
from keepmap.data.groups import WORDS
from keepmap.data.pipeline import Own, Pipeline, pipeline_name
from keepmap.data.sampling import Sampler, rare_first
from keepmap.data.store import SampleStore
from keepmap.errors import Interrupted, RunError, first_few
from keepmap.metrics.confusion import Scores
from keepmap.metrics.scoring import choose_resampling, score
from keepmap.networks.candidate import Segmenter
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import FORMAT as FINGERPRINT_FORMAT
from keepmap.planning.plan import FORMAT as PLAN_FORMAT
from keepmap.planning.plan import Plan, plan_from_rows
from keepmap.planning.recipe import OptimiserConfig
from keepmap.protocols import Progress
from keepmap.resources import free_memory, resolve_device, use_cpu
from keepmap.runs import FORMAT, RunConfig, RunFolder, read_tensors
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training.batches import Batches
from keepmap.training.calibrating import calibrate
from keepmap.training.checkpoint import Position, changes
from keepmap.training.determinism import deterministic
from keepmap.training.engine import Engine
from keepmap.training.lock import locked
from keepmap.training.loop import fit
from keepmap.training.preparing import Parts, Split, parts_of, prepare, read, say_network
from keepmap.training.preview import check_preview, write_preview
from keepmap.training.validation import validate
from keepmap.training.workers import worker_count
from keepmap.units import in_bytes

_RENEWING = 32
"""Crops from which the statistics of an averaged network are computed before it is validated."""


def begin(
    images: Path,
    masks: Path,
    run: RunFolder,
    options: TrainOptions,
    progress: Progress,
    given: Segmenter | None = None,
    augment: Pipeline | None = None,
) -> tuple[Plan, Position]:
    """Scan, plan and train into a new RUN. Everything that can be refused is refused before the RUN is made.

    given: the network to train a copy of, in place of one that the options or the plan choose.
    augment: what changes the crops in place of keepmap's own augmentation.
    """
    run.check_free()
    worker_count(options.workers, "cpu")
    ready = prepare(images, masks, options, progress, given)
    run.create()
    with locked(run, progress):
        run.check_new()
        split = replace(ready.split, augment="" if augment is None else pipeline_name(augment))
        write_json(run.split_file, to_dict(split), format=FORMAT)
        write_json(run.fingerprint_file, to_dict(ready.figures), format=FINGERPRINT_FORMAT)
        write_json(run.plan_file, ready.plan.rows(), format=PLAN_FORMAT)
        run.write_config(ready.config)
        return ready.plan, _train(ready.network, ready.plan, ready.parts, run, options, progress, augment)


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
    ready = prepare(images, masks, options, progress, given)
    batches = _batches(ready.network, ready.plan, ready.parts, options, augment)
    write_preview(batches, ready.parts.labels, ready.config.dtype, file)
    return ready.plan


def go_on(
    run: RunFolder,
    progress: Progress,
    given: Segmenter | None = None,
    augment: Pipeline | None = None,
    *,
    workers: int | None = None,
) -> tuple[Plan, Position]:
    """Continue an interrupted RUN with the plan and the data that it knows; the time spent counts.

    given: a network of the user's own that the RUN was begun with. augment: the callable that it was begun with.
    workers: in place of those of before. Raises RunError with what has changed in between.
    """
    config = run.read_config()
    if not run.plan_file.is_file():
        raise RunError(
            f"{run.path} was not trained here, so there is no training to go on with.", found="no plan.json in it",
            do=f"keepmap train IMAGES MASKS -o NEW --init {run.path}",
        )  # fmt: skip
    use_cpu()
    network = run.make_network(config, given)
    with locked(run, progress):
        return _go_on(run, config, network, augment, workers, progress)


def _go_on(
    run: RunFolder,
    config: RunConfig,
    network: Any,
    augment: Pipeline | None,
    workers: int | None,
    progress: Progress,
) -> tuple[Plan, Position]:
    plan = plan_from_rows(read_json(run.plan_file, format=PLAN_FORMAT), str(run.plan_file))
    split = from_dict(Split, read_json(run.split_file, format=FORMAT), str(run.split_file), RunError)
    if not run.last_file.is_file() and not run.previous_file.is_file():
        raise RunError(
            f"{run.path} was stopped before its first step.", found="no checkpoints/last.safetensors in it",
            do=f"delete {run.path} and train again",
        )  # fmt: skip
    _check_same_augment(run, split.augment, augment)
    resolve_device(plan.device)
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
    options = split.options if workers is None else replace(split.options, workers=workers)
    say_network(config.network, config.options, plan.because["network"], progress)
    return plan, _train(network, plan, parts_of(facts, labels, split), run, options, progress, augment)


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
    limit = "" if plan.seconds is None else f", at most {max(plan.seconds, 0):.0f} s"
    progress.say(
        f"plan    {plan.steps} steps of {plan.batch} crops of {plan.crop} px, {plan.step_seconds:.2f} s each{limit}; "
        f"{plan.device} {plan.precision}"
    )
    ways = "left-right flips (top and bottom differ)" if plan.upright else "flips and transposition"
    turned = f", {plan.invert:.0%} inverted" if plan.invert else ""
    said = f"{ways}, scale {plan.scale[0]}-{plan.scale[1]}, light{turned}"
    progress.say(f"augment {said if own is None else f'by {pipeline_name(own.pipeline)}, the callable, alone'}")
    if engine.heads:
        weights = ", ".join(f"{weight:.3g}" for _, weight in engine.heads)
        progress.say(f"loss    of {len(engine.heads)} heads, weighted {weights}; the first is the one that predicts")


def _batches(
    network: Any, plan: Plan, parts: Parts, options: TrainOptions, augment: Pipeline | None, scratch: Path | None = None
) -> Batches:
    """What the plan says the crops are drawn by; several workers share the memory for decoded images.

    scratch: see `SampleStore`.
    """
    workers = worker_count(options.workers, plan.device)
    store = SampleStore(parts.train, parts.labels, _cache(plan) // max(workers, 1), options, scratch)
    how = plan.part(Augmentation, fill=plan.mean, padding=min(network.stride, plan.crop // 2) - 1)
    focus = rare_first(parts.train, parts.labels, rate=plan.class_rate)
    sampler = Sampler(len(parts.train), plan.batch, plan.seed, focus)
    own = None if augment is None else Own(augment, parts.labels.count)
    return Batches(store, sampler, plan.crop, how, own, workers)


def _cache(plan: Plan) -> int:
    return min(plan.cache, free_memory() // 2)


def _train(
    network: Any,
    plan: Plan,
    parts: Parts,
    run: RunFolder,
    options: TrainOptions,
    progress: Progress,
    augment: Pipeline | None = None,
) -> Position:
    batches = _batches(network, plan, parts, options, augment, run.path)
    held_out = SampleStore(parts.validation, parts.labels, _cache(plan) // 4, options, run.path)
    if stored := batches.store.file_bytes + held_out.file_bytes:
        progress.say(f"data    decoded images beyond the memory go to a file in {run.path}, {in_bytes(stored)}")
    optimiser = plan.part(OptimiserConfig)
    engine = Engine(network, device=plan.device, precision=plan.precision, optimiser=optimiser, loss=plan.loss)
    engine.micro = plan.micro
    _say_plan(plan, engine, batches.own, progress)

    def judge() -> Scores:
        drawn = (torch.from_numpy(batches.draw(step)[0]) for step in range(math.ceil(_RENEWING / plan.batch)))
        engine.renew_statistics(drawn)
        counts = validate(engine.judged, held_out, parts.labels, device=plan.device, precision=plan.precision)
        groups = {stem: parts.groups.get(stem, stem) for stem in counts.stems}
        return score(counts, choose_resampling(counts.stems, groups, asked=parts.rule not in WORDS))

    with deterministic(options.deterministic):
        at = fit(engine, plan, batches, judge, run, progress)
        if not at.signal:
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
