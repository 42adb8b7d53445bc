"""The RUN folder: what a training leaves behind, file by file, each written whole or not at all.

Knows names and formats, not how a training proceeds. Loading one takes its path and nothing else.

    config.json            network by name with its options, labels, what images look like
    model.safetensors      the weights that were best on the held-out images, of the last third of the steps
    plan.json              every number of the training with its reason
    split.json             the folders, the options, the names of training and held-out images
    metrics.jsonl          one line per report of the loss and per validation
    validation.json        the scores of these weights on the held-out images
    report.html            all of it as a page, with pictures; model-card.md: in short, for the Hugging Face Hub
    checkpoints/last.safetensors    weights, optimiser and, in its header, the position: where --resume goes on
    checkpoints/previous.safetensors    the one before, for when the last is damaged
    .lock                  while it is trained: the process that does so
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from keepmap.config import from_dict, not_written, read_json, to_dict, whole_file, write_json, write_text
from keepmap.data.labels import LabelSet
from keepmap.errors import DiskFull, OptionError, OutputError, RunError, first_few
from keepmap.networks.candidate import Segmenter, candidate
from keepmap.networks.catalogue import build_network
from keepmap.units import in_bytes

FORMAT = 1


@dataclass(frozen=True)
class RunConfig:
    """What config.json holds. channels and dtype: of the images that the network was trained on.

    network: its name in the catalogue; where it is `foreign`, a network of the user's own, that of its class, which is
    for messages alone: nothing is ever imported by it.
    temperature: what logits are divided by before they become probabilities; 1 of a RUN that has none.
    """

    network: str
    options: dict[str, Any]
    channels: int
    dtype: str
    labels: LabelSet
    version: str
    foreign: bool = False
    temperature: float = 1.0


@dataclass(frozen=True)
class RunFolder:
    """A RUN on disk."""

    path: Path

    @property
    def config_file(self) -> Path:
        """Network, labels, images."""
        return self.path / "config.json"

    @property
    def model_file(self) -> Path:
        """The best weights."""
        return self.path / "model.safetensors"

    @property
    def plan_file(self) -> Path:
        """The plan with its reasons."""
        return self.path / "plan.json"

    @property
    def fingerprint_file(self) -> Path:
        """fingerprint.json: the figures of the training images."""
        return self.path / "fingerprint.json"

    @property
    def split_file(self) -> Path:
        """Folders, options and names of both parts."""
        return self.path / "split.json"

    def trained_on(self) -> frozenset[str]:
        """Digests of the images that the RUN was trained on; none where it does not say. Raises RunError."""
        if not self.split_file.is_file():
            return frozenset()
        return frozenset(read_json(self.split_file, format=FORMAT).get("digests", ()))

    @property
    def metrics_file(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def validation_file(self) -> Path:
        """The scores of the best weights on the held-out images."""
        return self.path / "validation.json"

    @property
    def report_file(self) -> Path:
        """The training as a page."""
        return self.path / "report.html"

    @property
    def card_file(self) -> Path:
        """The model card."""
        return self.path / "model-card.md"

    @property
    def last_file(self) -> Path:
        """The state that --resume continues."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def previous_file(self) -> Path:
        """The state before the last one."""
        return self.path / "checkpoints" / "previous.safetensors"

    @property
    def lock_file(self) -> Path:
        """There while a process trains into the RUN, with its id."""
        return self.path / ".lock"

    def check_free(self) -> None:
        """Raise OutputError unless a new RUN can be made here: absent or empty, and writable. Creates nothing."""
        try:
            self.check_new()
            if self.path.exists() and (not self.path.is_dir() or {*self.path.iterdir()} - {self.lock_file}):
                raise OutputError(f"{self.path} exists and is no empty folder.", do="choose another -o")
            ground = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
            with tempfile.TemporaryFile(dir=ground):
                pass
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written.", found=str(error), do="choose another -o") from error

    def check_new(self) -> None:
        """Raise OutputError where the folder holds a RUN already."""
        if self.config_file.exists():
            raise OutputError(f"{self.path} holds a RUN already.", do="choose another -o, or continue it with --resume")

    def create(self) -> None:
        """Make the folder. Raises OutputError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be made.", found=str(error), do="choose another -o") from error

    def write_config(self, config: RunConfig) -> None:
        """Save config.json."""
        write_json(self.config_file, to_dict(config), format=FORMAT)

    def read_config(self) -> RunConfig:
        """Load config.json. Raises RunError where the folder is no RUN."""
        if not self.path.is_dir() or not self.config_file.is_file():
            raise RunError(
                f"{self.path} is no RUN.",
                found="no such folder" if not self.path.is_dir() else "no config.json in it",
                expected="a folder that keepmap train wrote",
            )
        return from_dict(RunConfig, read_json(self.config_file, format=FORMAT), str(self.config_file), RunError)

    def append_metrics(self, **figures: float | int | str | Sequence[str] | None) -> None:
        """Add one line to metrics.jsonl; what is no number becomes null. Raises OutputError."""
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        try:
            with self.metrics_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(plain) + "\n")
        except OSError as error:
            raise not_written(self.metrics_file, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, oldest first, without one that was cut short; none where there is no file."""
        if not self.metrics_file.is_file():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [json.loads(line) for line in lines if _known(line, sys.maxsize, sys.maxsize)]

    def trim_metrics(self, step: int, validated: int) -> None:
        """Leave in metrics.jsonl what was known at `step`, the last validation at `validated`; whole or not at all.

        What was written after the state that a training goes on from would otherwise stand there twice. A line that
        was cut short goes too. Raises OutputError.
        """
        if not self.metrics_file.exists():
            return
        lines = self.metrics_file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        kept = [line for line in lines if _known(line, step, validated)]
        if kept != lines:
            write_text(self.metrics_file, "".join(kept))

    def load_matching(self, network: nn.Module) -> list[str]:
        """Load into `network` every tensor of the model that matches in name and shape; return what did not match.

        The normalisation is left as it is: see `read_normalisation`. Raises RunError where the folder has no model.
        """
        self.read_config()
        tensors, _ = read_tensors(self.model_file)
        own = {name: t for name, t in network.state_dict().items() if name not in ("mean", "std")}
        fits = {name: t for name, t in tensors.items() if name in own and own[name].shape == t.shape}
        network.load_state_dict(fits, strict=False)
        return sorted({name for name in (*own, *tensors) if name not in ("mean", "std")} - set(fits))

    def read_normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, deviation) of each channel in raw values, by which the network of the model normalises its input.

        Both empty of a network that has none. Raises RunError where the folder has no model.
        """
        tensors, _ = read_tensors(self.model_file)
        mean, deviation = (tuple(tensors[name].tolist()) if name in tensors else () for name in ("mean", "std"))
        known = len(mean) == len(deviation) == self.read_config().channels
        return (mean, deviation) if known else ((), ())

    def make_network(self, config: RunConfig, given: Segmenter | None = None) -> Any:
        """The network of the RUN with other weights: built by its name, or a copy of the object `given`.

        Raises RunError where the RUN needs an object and gets none or one for other data, OptionError where it gets
        one that it does not need, ContractError where that is no network.
        """
        name, channels, classes = config.network, config.channels, config.labels.count
        if not config.foreign:
            if given is not None:
                raise OptionError(f"{self.path} knows its network, {name}, itself.", do="leave network= out")
            return build_network(name, channels=channels, classes=classes, options=config.options)
        if given is None:
            raise RunError(
                f"{self.path} holds the weights of a network of your own, not the network.",
                found=f"weights of the class {name}, and no object of it", expected=f"network={name}(...)",
                do="use the RUN from Python: load, predict, evaluate and train with resume=True take network=; "
                "the command line cannot",
            )  # fmt: skip
        own = candidate(given)
        if (own.channels, own.classes) != (channels, classes):
            raise RunError(
                f"network= is made for other data than {self.path}.",
                found=f"channels={own.channels}, classes={own.classes}",
                expected=f"{channels=}, {classes=}", do=f"hand over the {name} that was trained",
            )  # fmt: skip
        return own.module

    def load_network(self, given: Segmenter | None = None) -> tuple[Any, RunConfig]:
        """The network with its best weights, in eval mode on the CPU; `given` as in `make_network`. Raises as that."""
        config = self.read_config()
        network = self.make_network(config, given)
        if not self.model_file.exists():
            raise RunError(
                f"{self.path} has no model yet.",
                found="no model.safetensors",
                do=f"keepmap train -o {self.path} --resume",
            )
        tensors, _ = read_tensors(self.model_file)
        check_names(tensors, network.state_dict(), self.model_file)
        network.load_state_dict(tensors)
        return network.eval(), config


def _known(line: str, step: int, validated: int) -> bool:
    """Whether a line of metrics.jsonl is whole and not from after `step`, or after `validated` if of a validation."""
    try:
        figures = json.loads(line)
        last = validated if "validation_mean_iou" in figures else step
        return line.endswith("\n") and bool(figures["step"] <= last)
    except (ValueError, TypeError, KeyError):
        return False


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, keep: Path | None = None, **header: Any) -> None:
    """Write tensors and a JSON header so that `path` holds the old or the whole new file; keep: as in `whole_file`.

    A digest of all of it is in the file: damage is found when it is read. Raises DiskFull, also where it is known
    beforehand, and OutputError.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        held = tensor.detach().to("cpu").contiguous()
        place = held.untyped_storage().data_ptr()
        plain[name] = held.clone() if place in seen else held  # tied weights: the format has no shared memory
        seen.add(place)
    text = json.dumps(header)
    try:
        path.parent.mkdir(exist_ok=True)
        check_room(path, sum(tensor.nbytes for tensor in plain.values()))
        with whole_file(path, keep=keep) as partial:
            try:
                save_file(plain, partial, metadata={"format": "pt", "keepmap": text, "digest": _digest(plain, text)})
            except SafetensorError as error:
                raise _as_system_error(error) from error
    except OSError as error:
        raise not_written(path, error) from error


def check_room(path: Path, needed: int) -> None:
    """Raise DiskFull unless the disk that `path` will be on has `needed` bytes free."""
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise DiskFull(
            f"The disk is too full for {path}.", found=f"{in_bytes(free)} free", expected=f"{in_bytes(needed)}",
            do="free some room there; a training goes on with --resume",
        )  # fmt: skip


def _as_system_error(error: SafetensorError) -> OSError:
    """The error of the operating system that safetensors tells of in words."""
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    """128 bits over names, types, shapes and values of the tensors, and over the header."""
    total = hashlib.blake2b(header.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON header of a file that `write_tensors` wrote. Raises RunError, for a flipped bit too."""
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            text = words.get("keepmap", "{}")
            header = json.loads(text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(
            f"{path} cannot be read.", found=str(error), expected="a safetensors file written by keepmap",
            do="restore it from a copy, or train again",
        ) from error
    if "digest" in words and words["digest"] != _digest(tensors, text):
        raise RunError(
            f"{path} is damaged.", found="content that does not have the digest it was saved with",
            expected="the file as keepmap wrote it", do="restore it from a copy",
        )  # fmt: skip
    return tensors, header


def check_names(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path | str) -> None:
    """Raise RunError unless both hold the same names and shapes; names the first five that differ."""
    if gaps := differences(found, expected):
        raise RunError(
            f"{path} holds the weights of another network.",
            found=gaps,
            expected="the weights of the network in config.json",
            do="put the model.safetensors and the config.json of one training together",
        )


def differences(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """How the names and shapes of `found` differ from those of `expected`, the first five of each kind; "" if not."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    reshaped = [n for n in expected if n in found and found[n].shape != expected[n].shape]
    kinds = (("missing", missing), ("not of this network", unknown), ("of another shape", reshaped))
    return "; ".join(f"{len(names)} {kind}: {first_few(names)}" for kind, names in kinds if names)
