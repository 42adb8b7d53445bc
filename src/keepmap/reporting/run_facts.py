"""What the files of a RUN say, in the words and figures of a report; what a RUN does not have is left out.

Computes no score and opens no image.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from keepmap.artefacts.loading import computed_by, model_files
from keepmap.config import from_dict, read_json
from keepmap.data.labels import LabelSet
from keepmap.errors import RunError
from keepmap.inference.predictor import Predictor
from keepmap.networks.catalogue import NETWORKS
from keepmap.networks.describe import multiply_adds, parameters, sketch
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import FORMAT as FINGERPRINT_FORMAT
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import FORMAT as PLAN_FORMAT
from keepmap.planning.plan import GROUPS, Plan, plan_from_rows
from keepmap.runs import FORMAT, RunConfig, RunFolder
from keepmap.runtime.exported import ExportedRuntime
from keepmap.training.given import GIVEN
from keepmap.training.preparing import Split
from keepmap.units import in_bytes, in_thousands, in_time

_SIDE = 512
"""Pixels of the side of the image for which the arithmetic of a network is told."""
_EXACT_TILES = "in tiles with a halo, exact"
_EXACT = f"in bands of rows, exact, or {_EXACT_TILES}"
_BLENDED = "in tiles that overlap by a quarter, blended with Gaussian weights; not what the whole image would give"

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class RunFacts:
    """A RUN as its files tell. plan, figures, split: None of one that was not trained here. lines: of metrics.jsonl."""

    folder: RunFolder
    config: RunConfig
    plan: Plan | None
    figures: Fingerprint | None
    split: Split | None
    lines: list[dict[str, Any]]

    @property
    def labels(self) -> LabelSet:
        """The classes."""
        return self.config.labels


def read_facts(run: RunFolder) -> RunFacts:
    """What the files of `run` say. Raises RunError for a broken one."""
    plan = figures = split = None
    if run.plan_file.is_file():
        plan = plan_from_rows(read_json(run.plan_file, format=PLAN_FORMAT), str(run.plan_file))
    if run.fingerprint_file.is_file():
        values = read_json(run.fingerprint_file, format=FINGERPRINT_FORMAT)
        figures = from_dict(Fingerprint, values, str(run.fingerprint_file), RunError)
    if run.split_file.is_file():
        split = from_dict(Split, read_json(run.split_file, format=FORMAT), str(run.split_file), RunError)
    return RunFacts(run, run.read_config(), plan, figures, split, run.read_metrics())


def train_command(facts: RunFacts) -> str:
    """The shell line that trains the RUN again, with what no shell can say as a comment; "" if not trained here."""
    split, plan = facts.split, facts.plan
    if split is None or plan is None:
        return ""
    folders = [split.images, split.masks, "-o", str(facts.folder.path)]
    line = command_line("train", folders, split.options, TrainOptions())
    given = {"network": plan.because["network"] == GIVEN, "augment": bool(split.augment)}
    objects = [name for name in given if given[name]]
    return line + f"    # from Python, with {' and '.join(f'{name}=...' for name in objects)}" * bool(objects)


def command_line(verb: str, arguments: list[str], options: Any, defaults: Any) -> str:
    """`keepmap VERB ARGUMENTS --option ...` with the options that are not the default."""
    words = ["keepmap", verb, *arguments]
    for field in fields(defaults):
        value = getattr(options, field.name)
        flag = f"--{field.name.replace('_', '-')}"
        if value == getattr(defaults, field.name):
            continue
        if isinstance(value, Mapping):
            for name, setting in value.items():
                words += [flag, f"{name}={_setting(setting)}"]
        elif isinstance(value, tuple):
            words += [word for each in value for word in (flag, each)]
        else:
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_setting, value)) + "," * (len(value) == 1)
    return str(value).lower() if isinstance(value, bool) else str(value)


def network_name(config: RunConfig) -> str:
    """The network in a few words: "encoder_unet over efficientnet_lite0"."""
    encoder = config.options.get("encoder")
    return f"{config.network} over {encoder}" if encoder else config.network


def model_rows(facts: RunFacts, speed: float | None, device: str) -> Rows:
    """Size, arithmetic, reach and speed of the model. speed: megapixels a second on `device`, None where unknown."""
    config = facts.config
    rows = [("network", network_name(config))]
    if not config.foreign and config.network in NETWORKS:
        network = sketch(
            config.network, channels=config.channels, classes=config.labels.count, options=config.options
        )
        work = 2 * multiply_adds(network, (_SIDE, _SIDE))
        rows.append(("parameters", in_thousands(parameters(network))))
        rows.append(("arithmetic", f"{in_thousands(work)}FLOP for {_SIDE} × {_SIDE} px"))
        rows.append(("sees", f"{sum(network.reach) + 1} px around each pixel"))
        rows.append(("large images", _EXACT if network.local else _BLENDED))
    else:
        rows.append(("values", in_thousands(_values(facts.folder.model_file))))
    rows.append(("file", in_bytes(facts.folder.model_file.stat().st_size)))
    rows.append(("takes", f"{config.channels} channel{'s' * (config.channels > 1)} of {config.dtype}, any size"))
    rows += speed_rows(speed, device)
    rows.append(("temperature", f"{config.temperature:.3g}, by which logits are divided before they are probabilities"))
    return rows


def file_rows(path: Path, predictor: Predictor, speed: float | None) -> Rows:
    """What is known of an exported file, or of a folder that holds one: of the file and the graph in it."""
    files, rows = model_files(path), []
    if isinstance(predictor.runtime, ExportedRuntime):
        facts = predictor.runtime.manifest
        rows = [("network", facts.network), ("large images", _EXACT_TILES if facts.local else _BLENDED)]
    size = in_bytes(sum(file.stat().st_size for file in files))
    channels = predictor.runtime.channels
    rows += [
        ("file", f"{' + '.join(file.name for file in files)}, {size}"),
        ("takes", f"{channels} channel{'s' * (channels > 1)} of {predictor.dtype or 'any type'}, any size"),
    ]
    return rows + speed_rows(speed, "; ".join(computed_by(predictor)))


def speed_rows(speed: float | None, device: str) -> Rows:
    """How fast a model is. speed: megapixels a second on `device`; no row where it is None."""
    if speed is None:
        return []
    return [("speed", f"about {speed:.2g} megapixels a second on the machine that wrote this page, {device}")]


def _values(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def data_rows(facts: RunFacts) -> Rows:
    """What the images of the training are like, and how they were divided."""
    figures, split = facts.figures, facts.split
    rows: Rows = []
    if split is not None:
        rows += [("images", split.images), ("masks", split.masks)]
        rows.append(("trained on", f"{len(split.train)} images"))
        rows.append(("held out", f"{len(split.validation)} images, {_rule(split)}"))
    if figures is not None:
        rows.append(("channels", f"{figures.channels}, {figures.dtype}"))
        (low, middle, high), (left, centre, right) = figures.widths, figures.heights
        extremes = "" if (low, left) == (high, right) else f"{low} × {left} to {high} × {right}, median "
        rows.append(("size", f"{extremes}{middle} × {centre} px"))
        means, spreads = (", ".join(f"{v:.3g}" for v in values) for values in (figures.mean, figures.deviation))
        rows.append(("intensity", f"mean {means}; deviation {spreads}"))
        if figures.large_object:
            rows.append(("objects", f"one in ten is larger than {figures.large_object:.0f} px"))
    if facts.labels.ignore is not None:
        rows.append(("left out", f"pixels of the value {facts.labels.ignore}"))
    return rows


def _rule(split: Split) -> str:
    if split.options.validation:
        return f"those of {split.options.validation}"
    groups = len({split.groups.get(stem, stem) for stem in split.validation})
    whole = f" ({groups} whole groups by {split.rule})" if split.rule != "none" else ""
    return f"drawn by name with seed {split.options.seed}{whole}; equal images stay together"


def plan_groups(plan: Plan) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Title and entries of the plan: name, value, reason."""
    for title, names in GROUPS.items():
        yield title, [(name, _shown(name, getattr(plan, name)), plan.because[name]) for name in names]


def _shown(name: str, value: Any) -> str:
    if value is None or value == ():
        return "none"
    if name in ("memory", "cache", "step_bytes"):
        return in_bytes(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown('', item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_shown("", item) for item in value)
    return str(value)


def remarks(facts: RunFacts) -> list[tuple[int, str, str]]:
    """What the training said of itself: step, what was found, what to do."""
    return [(line["step"], line["found"], line["do"]) for line in facts.lines if "remark" in line]


def course(facts: RunFacts) -> str:
    """How far the training went, in a sentence."""
    if facts.plan is None or not facts.lines:
        return ""
    last = facts.lines[-1]
    skipped = sum("skipped" in line for line in facts.lines)
    said = f"{last['step']} of {facts.plan.steps} steps in {in_time(last.get('seconds') or 0)}"
    return said + (f"; {skipped} steps were skipped, their loss was no number" if skipped else "")


def curve(facts: RunFacts, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a figure of metrics.jsonl, as far as it is a number."""
    points = [(line["step"], line[name]) for line in facts.lines if isinstance(line.get(name), int | float)]
    return [step for step, _ in points], [float(value) for _, value in points]
