"""From two folders and options to a trained RUN, and from an interrupted RUN to a finished one.

Puts scan, split, plan, network, engine and loop together; each of them is told only what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keepmap import __version__
from keepmap.config import from_dict, read_json, to_dict, write_json
from keepmap.data.augment import Augmentation
from keepmap.data.classes import ClassNames, named_classes
from keepmap.data.facts import FileFacts
from keepmap.data.groups import check_rule
from keepmap.data.labels import LabelSet
from keepmap.data.sampling import Sampler
from keepmap.data.scan import scan
from keepmap.data.split import Candidate, Division, divide
from keepmap.data.store import SampleStore
from keepmap.errors import DataError, OptionError, RunError, first_few, nearest
from keepmap.networks.candidate import Segmenter
from keepmap.networks.catalogue import NETWORKS, build_network, is_listed, network_config
from keepmap.networks.encoders import check_encoder
from keepmap.networks.network import Network
from keepmap.networks.timm_encoder import PREFIX
from keepmap.options import ImageOptions, TrainOptions, parse_time
from keepmap.planning.fingerprint import fingerprint
from keepmap.planning.plan import FORMAT as PLAN_FORMAT
from keepmap.planning.plan import Plan, plan_from_rows
from keepmap.planning.planner import START_WORDS, Choice, Offer, Situation, choose_network, make_plan
from keepmap.protocols import Progress
from keepmap.resources import Stopwatch, free_memory, resolve_device, resolve_precision, use_cpu
from keepmap.runs import FORMAT, RunConfig, RunFolder
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from keepmap.training.given import adopt, choose_given
from keepmap.training.lock import locked
from keepmap.training.loop import Position, fit
from keepmap.training.measure import measure_step
from keepmap.training.validation import validate
from keepmap.weights.imagenet import at_hand, begin_from_imagenet, how_to_get
from keepmap.weights.published import IMAGENET

_DEFAULT_TIME = "10m"
_MARGIN = 8.0
"""Seconds kept back for starting Python, which takes about 5, for the last save and the last lines."""
_LEAST_SECONDS = 10.0
_HELD_OUT = 0.1
_MEMORY = 0.7
"""Share of the free memory that a step may take."""
_RANGES = (("seed", 0, 2**32 - 1), ("steps", 1, 10**9), ("epochs", 1, 10**9), ("crop", 32, 8192), ("batch", 1, 4096))
_MEASURING = 0.03
"""Share of the time that measuring one setting may take."""


@dataclass(frozen=True)
class Split:
    """What split.json holds: the folders, the options of the training, the stems of both parts and their groups."""

    images: str
    masks: str
    options: TrainOptions
    train: tuple[str, ...]
    validation: tuple[str, ...]
    rule: str = "none"
    groups: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """The facts of the training images and of the held-out ones."""

    train: tuple[FileFacts, ...]
    validation: tuple[FileFacts, ...]
    labels: LabelSet


def begin(
    images: Path, masks: Path, run: RunFolder, options: TrainOptions, progress: Progress, given: Segmenter | None = None
) -> tuple[Plan, Position]:
    """Scan, plan and train into a new RUN. Everything that can be refused is refused before the RUN is made.

    given: the network to train a copy of, in place of one that the options or the plan choose.
    """
    watch, budget = Stopwatch(), _budget(options)
    device = _checked(options)
    own = None if given is None else adopt(given, options)
    run.check_free()
    names = named_classes(options.classes)
    facts, labels = _read(images, masks, names, options, progress)
    division = _divide(facts, labels, options, progress)
    parts = _parts(facts, labels, division)
    use_cpu()
    here = _situation(device, resolve_precision(options.precision, device), parts)
    if options.init is not None:
        before = RunFolder(Path(options.init)).read_config()
        here = replace(here, begun=(before.network, before.options))
    figures = fingerprint(parts.train, parts.labels)
    if own is None:
        choice = _as_set(choose_network(figures, options, here), options)
        network: Any = _build(choice, figures.channels, parts.labels, options, progress)
        choice = replace(choice, mean=tuple(network.mean.tolist()), deviation=tuple(network.std.tolist()))
    else:
        choice, network = choose_given(own, figures, parts.labels.count), own
    if options.init is not None:
        _begin_from(RunFolder(Path(options.init)), network, progress)
    _say_network(choice.network, choice.options, choice.because, progress)
    limit = _MEASURING * budget
    measure = partial(measure_step, network, device=here.device, precision=here.precision, limit=limit)
    plan = make_plan(
        choice, figures, options, here, seconds_left=lambda: budget - _MARGIN - watch.seconds, measure=measure
    )
    config = RunConfig(
        choice.network, choice.options, figures.channels, figures.dtype, parts.labels, __version__,
        foreign=not is_listed(network),
    )  # fmt: skip
    where = str(images.resolve()), str(masks.resolve())
    split = Split(*where, options, division.train, division.validation, division.rule, division.groups)
    run.create()
    with locked(run, progress):
        run.check_new()
        write_json(run.split_file, to_dict(split), format=FORMAT)
        write_json(run.plan_file, plan.rows(), format=PLAN_FORMAT)
        run.write_config(config)
        return plan, _train(network, plan, parts, run, split.options, progress)


def go_on(run: RunFolder, progress: Progress, given: Segmenter | None = None) -> tuple[Plan, Position]:
    """Continue an interrupted RUN with the plan and the data that it knows; the time spent counts.

    given: a network of the user's own that the RUN was begun with.
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
        return _go_on(run, config, network, progress)


def _go_on(run: RunFolder, config: RunConfig, network: Any, progress: Progress) -> tuple[Plan, Position]:
    plan = plan_from_rows(read_json(run.plan_file, format=PLAN_FORMAT), str(run.plan_file))
    split = from_dict(Split, read_json(run.split_file, format=FORMAT), str(run.split_file), RunError)
    if not run.last_file.is_file():
        raise RunError(
            f"{run.path} was stopped before its first step.", found="no checkpoints/last.safetensors in it",
            do=f"delete {run.path} and train again",
        )  # fmt: skip
    resolve_device(plan.device)
    names = ClassNames(config.labels.names, config.labels.values) if split.options.classes else None
    facts, labels = _read(Path(split.images), Path(split.masks), names, split.options, progress)
    if {fact.stem for fact in facts} != {*split.train, *split.validation} or labels != config.labels:
        raise RunError(
            f"{run.path} was begun with other data.",
            found=f"{len(facts)} images in {split.images}",
            expected=f"the {len(split.train)} + {len(split.validation)} images and the labels of before",
            do="restore the folders, or begin a new RUN",
        )
    parts = _parts(facts, labels, split)
    _say_network(config.network, config.options, plan.because["network"], progress)
    return plan, _train(network, plan, parts, run, split.options, progress)


def _as_typed(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


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
    seconds = parse_time(options.time or _DEFAULT_TIME)
    if seconds < _LEAST_SECONDS:
        raise OptionError(
            f"--time {options.time} is too short to train in.",
            expected=f"at least {_LEAST_SECONDS:.0f} s: starting alone takes {_MARGIN:.0f} s",
        )
    return seconds


def _checked(options: TrainOptions) -> str:
    """The device, after every name and number was found to be possible, which needs no look at the data."""
    for name, least, most in _RANGES:
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            raise OptionError(f"--{name} {value} cannot be.", found=str(value), expected=f"{least} to {most}")
    if options.model not in ("auto", *NETWORKS):
        expected = nearest(options.model, ("auto", *NETWORKS))
        raise OptionError(f"There is no model {options.model}.", found=options.model, expected=expected)
    if options.encoder != "auto":
        check_encoder(options.encoder)
    if options.encoder.startswith(PREFIX) and options.weights == "imagenet":
        raise OptionError(
            "ImageNet weights of timm's networks are not fetched.", found=f"--encoder {options.encoder}",
            do="pass --weights FILE, the state dict of timm's classifier, or --weights none",
        )  # fmt: skip
    if options.weights not in START_WORDS and not Path(options.weights).is_file():
        raise OptionError(
            f"--weights {options.weights} is no file.", found=options.weights,
            expected=nearest(options.weights, (*START_WORDS, "FILE")),
        )  # fmt: skip
    if options.set:
        _check_set(options.model, options.set)
    check_rule(options.group_by)
    return resolve_device(options.device)


def _check_set(model: str, wanted: Mapping[str, Any]) -> None:
    """Raise OptionError where --set names no option of the network, with the nearest that there is."""
    said = ", ".join(f"--set {name}" for name in wanted)
    if model == "auto":
        raise OptionError(
            "--set is for a network that --model names.", found=f"{said} with --model auto",
            expected="--model NAME: which options there are depends on the network", do="keepmap models lists them",
        )  # fmt: skip
    if "encoder" in wanted:
        raise OptionError("The encoder has an option of its own.", found=said, do=f"--encoder {wanted['encoder']}")
    network_config(model, channels=1, classes=2, options=wanted)


def _as_set(choice: Choice, options: TrainOptions) -> Choice:
    """The choice with what --set says of the network."""
    if not options.set:
        return choice
    said = ", ".join(f"--set {name}={_as_typed(value)}" for name, value in options.set.items())
    return replace(choice, options={**choice.options, **options.set}, because=f"{choice.because}, {said}")


def _read(
    images: Path, masks: Path, names: ClassNames | None, options: TrainOptions, progress: Progress
) -> tuple[tuple[FileFacts, ...], LabelSet]:
    report = scan(
        images, masks, class_names=names, ignore=options.ignore, instances=options.instances, reading=options,
        progress=progress,
    )  # fmt: skip
    report.raise_if_failed()
    labels = report.labels
    if labels is None:
        raise DataError(f"{masks} holds no label values.", expected="masks with at least two values")
    for finding in report.findings:
        progress.say(f"{finding.severity}: {finding.summary}")
    progress.say(report.labels_sentence)
    return report.facts, labels


def _divide(facts: Sequence[FileFacts], labels: LabelSet, options: TrainOptions, progress: Progress) -> Division:
    candidates = [
        Candidate(f.stem, str(f.image), tuple(v for v in labels.values if f.counts.get(v)), f.digest) for f in facts
    ]
    fixed = Path(options.validation) if options.validation else None
    division = divide(candidates, rule=options.group_by, fixed=fixed, seed=options.seed, share=_HELD_OUT)
    for remark in division.remarks:
        progress.say(remark)
    return division


def _parts(facts: Sequence[FileFacts], labels: LabelSet, split: Division | Split) -> Parts:
    by_stem = {fact.stem: fact for fact in facts}
    return Parts(tuple(by_stem[s] for s in split.train), tuple(by_stem[s] for s in split.validation), labels)


def _situation(device: str, precision: str, parts: Parts) -> Situation:
    offers = (
        Offer(name, at_hand(name), how_to_get(name), published.mean, published.std)
        for name, published in IMAGENET.items()
    )
    return Situation(
        device=device,
        precision=precision,
        memory=int(_MEMORY * (torch.cuda.mem_get_info()[0] if device == "cuda" else free_memory())),
        validation_pixels=sum(f.height * f.width for f in parts.validation),
        offers=tuple(offers),
    )


def _build(choice: Choice, channels: int, labels: LabelSet, options: TrainOptions, progress: Progress) -> Network:
    """The network as it begins. Raises WeightsError, DownloadError, MissingPackage."""
    torch.manual_seed(options.seed)
    network = build_network(choice.network, channels=channels, classes=labels.count, options=choice.options)
    network.set_normalisation(choice.mean, choice.deviation)
    if choice.pretrained:
        file = None if options.weights in START_WORDS else Path(options.weights)
        begin_from_imagenet(network, choice.encoder, progress, file=file, offline=options.offline)
    return network


def _begin_from(source: RunFolder, network: nn.Module, progress: Progress) -> None:
    """Load what matches of another RUN, and say what did not. Raises OptionError where nothing matches."""
    rest = source.load_matching(network)
    own = len(network.state_dict().keys() - {"mean", "std"})
    missing = len([name for name in rest if name in network.state_dict()])
    if missing == own:
        raise OptionError(
            f"--init {source.path} has nothing that this network could start from.", found=first_few(rest),
            expected="a RUN of the same family",
        )  # fmt: skip
    others = f"; not: {first_few(rest)}" if rest else ""
    progress.say(f"init    {own - missing} of {own} tensors from {source.path}{others}")


def _say_network(network: str, options: Mapping[str, object], because: str, progress: Progress) -> None:
    """The first line of the plan."""
    over = f" over {options['encoder']}" if "encoder" in options else ""
    progress.say(f"network {network}{over}: {because}")


def _say_plan(plan: Plan, engine: Engine, progress: Progress) -> None:
    """The rest of the plan in two lines, three with several heads; the whole of it is in plan.json."""
    limit = "" if plan.seconds is None else f", at most {max(plan.seconds, 0):.0f} s"
    progress.say(
        f"plan    {plan.steps} steps of {plan.batch} crops of {plan.crop} px, {plan.step_seconds:.2f} s each{limit}; "
        f"{plan.device} {plan.precision}"
    )
    ways = "left-right flips (top and bottom differ)" if plan.upright else "flips and transposition"
    turned = f", {plan.invert:.0%} inverted" if plan.invert else ""
    progress.say(f"augment {ways}, scale {plan.scale[0]}-{plan.scale[1]}, light{turned}")
    if engine.heads:
        weights = ", ".join(f"{weight:.3g}" for _, weight in engine.heads)
        progress.say(f"loss    of {len(engine.heads)} heads, weighted {weights}; the first is the one that predicts")


def _train(
    network: Any, plan: Plan, parts: Parts, run: RunFolder, reading: ImageOptions, progress: Progress
) -> Position:
    limit = free_memory() // 4
    store = SampleStore(parts.train, parts.labels, limit, reading)
    held_out = SampleStore(parts.validation, parts.labels, limit // 4, reading)
    how = Augmentation(
        scale=plan.scale, upright=plan.upright, invert=plan.invert, gain=plan.gain, shift=plan.shift,
        value_range=plan.value_range, fill=plan.mean, padding=min(network.stride, plan.crop // 2) - 1,
    )  # fmt: skip
    batches = Batches(store, Sampler(len(parts.train), plan.batch, plan.seed), plan.crop, how)
    engine = Engine(network, device=plan.device, precision=plan.precision, weight_decay=plan.weight_decay)
    _say_plan(plan, engine, progress)
    score = partial(validate, network, held_out, parts.labels, device=plan.device, precision=plan.precision)
    return fit(engine, plan, batches, score, run, progress)
