"""From two folders and options to a network and its plan: what is read, held out, built and measured before a training.

Writes nothing and takes no step of the training itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from keepmap import __version__
from keepmap.data.classes import ClassNames, named_classes
from keepmap.data.facts import FileFacts
from keepmap.data.findings import group_findings
from keepmap.data.glance import glance
from keepmap.data.labels import LabelSet
from keepmap.data.pipeline import Pipeline
from keepmap.data.scan import scan
from keepmap.data.split import Candidate, Division, divide
from keepmap.data.store import SampleStore
from keepmap.data.survey import near_duplicates
from keepmap.errors import DataError, OptionError, first_few
from keepmap.networks.candidate import Segmenter
from keepmap.networks.catalogue import build_network, is_listed
from keepmap.networks.describe import sketch
from keepmap.networks.network import Network
from keepmap.networks.norms import has_batch_norm
from keepmap.networks.recompute import let_recompute
from keepmap.options import ImageOptions, TrainOptions, parse_size
from keepmap.planning.choice import START_WORDS, Begun, Choice, Offer, Situation, choose_network, normalised_as
from keepmap.planning.fingerprint import Fingerprint, fingerprint
from keepmap.planning.plan import Drawing, Plan
from keepmap.planning.planner import coverage, make_plan, recipe_of
from keepmap.planning.settings import Asked, asked, counted
from keepmap.protocols import Progress
from keepmap.resources import Stopwatch, free_memory, process_counts, resolve_precision, use_cpu
from keepmap.runs import RunConfig, RunFolder
from keepmap.training.batches import planned_batches
from keepmap.training.engine import Engine, fast_format
from keepmap.training.given import adopt, choose_given
from keepmap.training.measure import measure_drawing, measure_step, step_bytes
from keepmap.training.wanted import MARGIN, budget_of, checked
from keepmap.training.workers import most_workers
from keepmap.weights.imagenet import at_hand, begin_from_imagenet, how_to_get
from keepmap.weights.published import IMAGENET

_HELD_OUT = 0.1
_MEMORY = 0.7
"""Share of the memory that a step may take."""
_CACHE = 0.25
"""Share of the memory that decoded images may take."""
_FEW_STEPS = 40
"""Below which a training under --time is told that it is hopeless."""
_MEASURING = 0.03
"""Share of the time that measuring one setting may take."""


@dataclass(frozen=True)
class Split:
    """What split.json holds: the folders, the options of the training, the stems of both parts and their groups.

    augment: the name of the callable that was handed over as augment=, "" for none.
    marks: of each stem, `FileFacts.mark`: by them a resumed training sees what has changed.
    digests: of the images that are trained on, `FileFacts.digest`: by them they are known under any name.
    """

    images: str
    masks: str
    options: TrainOptions
    train: tuple[str, ...]
    validation: tuple[str, ...]
    rule: str = "none"
    groups: dict[str, str] = field(default_factory=dict)
    augment: str = ""
    marks: dict[str, str] = field(default_factory=dict)
    digests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """The facts of the training images and of the held-out ones. groups, rule: as in `Split`."""

    train: tuple[FileFacts, ...]
    validation: tuple[FileFacts, ...]
    labels: LabelSet
    groups: Mapping[str, str] = field(default_factory=dict)
    rule: str = "none"


@dataclass(frozen=True)
class Prepared:
    """All that a training begins with. network: a module with its first weights; figures: of the training images."""

    network: Any
    plan: Plan
    parts: Parts
    split: Split
    config: RunConfig
    figures: Fingerprint


def prepare(
    images: Path,
    masks: Path,
    options: TrainOptions,
    progress: Progress,
    given: Segmenter | None = None,
    augment: Pipeline | None = None,
) -> Prepared:
    """Scan, divide, build, measure and plan. Raises all that a training can be refused for.

    given: the network to train a copy of, in place of one that the options or the plan choose.
    augment: what changes the crops in place of keepmap's own augmentation.
    """
    watch, told = Stopwatch(), asked(options)
    wanted = told.options
    budget, device = budget_of(wanted), checked(wanted)
    own = None if given is None else adopt(given, wanted)
    facts, labels = read(images, masks, named_classes(wanted.classes), wanted, progress)
    division = _divide(facts, labels, wanted, progress)
    parts = parts_of(facts, labels, division)
    near, machines = process_counts(wanted.devices)
    use_cpu(near)
    here = _situation(device, wanted, parts, near, machines)
    figures = fingerprint(parts.train, parts.labels, glance(parts.train, parts.labels, wanted))
    counted(told.fixed, figures.channels, labels.count)
    loss, optimiser = recipe_of(told.fixed, figures)
    choice, network = _network(own, figures, told, here, progress)
    optimiser = replace(optimiser, frozen_statistics=optimiser.frozen_statistics or bool(choice.because_frozen))
    say_network(choice.network, choice.options, choice.because, progress)
    engine = partial(Engine, device=here.device, precision=here.precision, optimiser=optimiser, loss=loss)
    engine = partial(engine, memory_format=choice.memory_format)
    limit, share = _MEASURING * budget, (0, here.processes)
    plan = make_plan(
        choice, figures, told, here, seconds_left=lambda: budget - MARGIN - watch.seconds,
        needs=partial(step_bytes, network, precision=here.precision, optimiser=optimiser),
        measure=partial(measure_step, network, make=engine, limit=limit, processes=here.processes),
        draw=partial(_draw, parts=parts, reading=wanted, stride=network.stride, augment=augment, share=share),
    )  # fmt: skip
    _say_if_few(plan, progress)
    if plan.checkpointing:
        let_recompute(network)
    config = RunConfig(
        plan.network, plan.options, figures.channels, figures.dtype, parts.labels, __version__,
        foreign=not is_listed(network),
    )  # fmt: skip
    split = Split(
        str(images.resolve()), str(masks.resolve()), options, division.train, division.validation, division.rule,
        division.groups, "", {f.stem: f.mark for f in facts}, tuple(f.digest for f in parts.train if f.digest),
    )  # fmt: skip
    return Prepared(network, plan, parts, split, config, figures)


def _say_if_few(plan: Plan, progress: Progress) -> None:
    if plan.seconds is not None and plan.steps < _FEW_STEPS:
        progress.say(
            f"note    the time suffices for {plan.steps} steps or fewer, too few to learn much; pass more --time, or a "
            "smaller --model or --crop"
        )


def _draw(
    plan: Plan, parts: Parts, reading: ImageOptions, stride: int, augment: Pipeline | None, share: tuple[int, int]
) -> Drawing:
    """What drawing our share of the batches of `plan` costs, from a few that nothing keeps."""
    store = SampleStore(parts.train, parts.labels, 0, reading)
    return measure_drawing(planned_batches(plan, stride, store, augment, share))


def _network(
    own: Any, figures: Fingerprint, told: Asked, here: Situation, progress: Progress
) -> tuple[Choice, Any]:
    """The network with its first weights, and what the plan says of it."""
    options, classes = told.options, len(figures.class_shares)
    if own is None:
        choice = choose_network(figures, options, here)
        if told.fixed.get("checkpointing") is False:
            choice = replace(choice, options={**choice.options, "checkpointing": False})
        network: Any = _build(choice, figures.channels, classes, options, progress)
    else:
        choice, network = choose_given(own, figures, classes, options), own
    if isinstance(network, Network):
        choice = choice if here.begun is None else normalised_as(here.begun, choice, figures)
        mean, deviation = (told.fixed.get(n, getattr(choice, n)) for n in ("mean", "deviation"))
        network.set_normalisation(mean, deviation)
        choice = replace(choice, mean=tuple(network.mean.tolist()), deviation=tuple(network.std.tolist()))
    layout, why = fast_format(network, here.device, here.precision, told.fixed.get("memory_format"))
    choice = replace(choice, reach=network.reach, memory_format=layout, because_format=why)
    if here.apart and has_batch_norm(network):
        choice = replace(choice, because_frozen=_frozen(told, here.processes))
        if own is None and not choice.pretrained and options.init is None:
            progress.say(
                f"note    {choice.network} has batch norm, random weights and no statistics of the images: it learns "
                "badly in several processes on a CPU; --model unet has group norm"
            )
    if sum(network.reach) + 1 < figures.large_object:
        progress.say(f"note    {choice.network}: {coverage(network.reach, figures)}; a deeper one would see more")
    if options.init is not None:
        _begin_from(RunFolder(Path(options.init)), network, progress)
    return choice, network


def _frozen(told: Asked, processes: int) -> str:
    """Why batch norm has the statistics that it began with. Raises OptionError where it must not."""
    frozen = told.fixed.get("frozen_statistics")
    wanted = "frozen_statistics=false" if frozen is False else "norm=batch"
    if frozen is False or (frozen is None and (told.options.set or {}).get("norm") == "batch"):
        raise OptionError(
            "Batch norm of several processes is synchronised on GPUs only.",
            found=f"{processes} processes on the CPU, --set {wanted}",
            expected="--set frozen_statistics=true, or --model unet, which then has group norm",
        )  # fmt: skip
    return f"batch norm is synchronised on GPUs only, and there are {processes} processes on the CPU"


def read(
    images: Path, masks: Path, names: ClassNames | None, options: TrainOptions, progress: Progress
) -> tuple[tuple[FileFacts, ...], LabelSet]:
    """The facts of all pairs and what their label values mean, after every finding was said. Raises DataError."""
    report = scan(
        images, masks, class_names=names, ignore=options.ignore, instances=options.instances, reading=options,
        progress=progress,
    )  # fmt: skip
    report.raise_if_failed()
    labels = report.labels
    if labels is None:
        raise DataError(f"{masks} holds no label values.", expected="masks with at least two values")
    for _, findings in group_findings(report.findings):
        others = f" ({len(findings) - 1} more of this sort: keepmap check)" if len(findings) > 1 else ""
        progress.say(f"{findings[0].severity}: {findings[0].summary}{others}")
    progress.say(report.labels_sentence)
    return report.facts, labels


def _divide(facts: Sequence[FileFacts], labels: LabelSet, options: TrainOptions, progress: Progress) -> Division:
    alike = {fact.stem: group[0].stem for group in near_duplicates(facts) for fact in group}
    candidates = [
        Candidate(
            f.stem, str(f.image), tuple(v for v in labels.values if f.counts.get(v)), f.digest, alike.get(f.stem, "")
        )
        for f in facts
    ]
    fixed = Path(options.validation) if options.validation else None
    division = divide(candidates, rule=options.group_by, fixed=fixed, seed=options.seed, share=_HELD_OUT)
    for remark in division.remarks:
        progress.say(remark)
    return division


def parts_of(facts: Sequence[FileFacts], labels: LabelSet, split: Division | Split) -> Parts:
    """`facts` in the two parts of a split, in its order."""
    by_stem = {fact.stem: fact for fact in facts}
    train, validation = (tuple(by_stem[stem] for stem in stems) for stems in (split.train, split.validation))
    return Parts(train, validation, labels, split.groups, split.rule)


def _situation(device: str, wanted: TrainOptions, parts: Parts, near: int, machines: int) -> Situation:
    """The share of the machine that each of `near` processes has, and the weights at hand.

    Raises RunError where --init names none.
    """
    offers = (
        Offer(name, at_hand(name), how_to_get(name), published.mean, published.std)
        for name, published in IMAGENET.items()
    )
    free = free_memory()
    memory = int(parse_size(wanted.memory)) if wanted.memory else free
    for_steps = torch.cuda.mem_get_info()[0] if device == "cuda" and not wanted.memory else memory // near
    return Situation(
        device=device,
        precision=resolve_precision(wanted.precision, device),
        memory=int(_MEMORY * for_steps),
        validation_pixels=sum(f.height * f.width for f in parts.validation),
        validation_images=len(parts.validation),
        offers=tuple(offers),
        begun=None if wanted.init is None else _begun(RunFolder(Path(wanted.init))),
        processes=near * machines,
        instances=parts.labels.instances,
        workers=most_workers(near),
        cache=int(_CACHE * memory) // near,
        image_bytes=sum(f.height * f.width * _decoded(f) for f in (*parts.train, *parts.validation)),
        because_memory="of --memory" if wanted.memory else "of what is free",
        sight=lambda widths: sum(sketch("unet", options={**(wanted.set or {}), "widths": widths}).reach) + 1,
    )


def _begun(source: RunFolder) -> Begun:
    config = source.read_config()
    mean, deviation = source.read_normalisation()
    return Begun(config.network, config.options, config.channels, config.dtype, mean, deviation)


def _decoded(facts: FileFacts) -> int:
    """Bytes of a pixel of a decoded image with its classes."""
    return facts.channels * np.dtype(facts.dtype).itemsize + np.dtype(np.int16).itemsize


def _build(choice: Choice, channels: int, classes: int, options: TrainOptions, progress: Progress) -> Network:
    """The network as it begins. Raises WeightsError, DownloadError, MissingPackage."""
    torch.manual_seed(options.seed)
    network = build_network(choice.network, channels=channels, classes=classes, options=choice.options)
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


def say_network(network: str, options: Mapping[str, object], because: str, progress: Progress) -> None:
    """The first line of the plan."""
    over = f" over {options['encoder']}" if "encoder" in options else ""
    progress.say(f"network {network}{over}: {because}")
