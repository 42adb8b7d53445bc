"""From a RUN to an exported file with the proof beside it, whole or not at all.

Puts graph, quantisation and parity together; what each of them does is in its own file.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from keepmap import __version__
from keepmap.artefacts.graphs import (
    in_target,
    last_factor,
    last_layers,
    quantised,
    require_packages,
    to_graph,
    write_graph,
)
from keepmap.artefacts.loading import open_artefact
from keepmap.artefacts.parity import SIZES, Parity, Sides, measure_parity
from keepmap.artefacts.pictures import Pictures, calibration, crops_of, pictures_of, samples
from keepmap.config import hidden_beside, not_written, to_dict, write_json, writing
from keepmap.errors import ContractError, DiskFull, OptionError, OutputError, nearest
from keepmap.networks.candidate import Segmenter
from keepmap.networks.footprint import memory_of
from keepmap.networks.network import Network
from keepmap.options import ExportOptions, Target
from keepmap.protocols import Progress
from keepmap.resources import use_cpu
from keepmap.runs import RunConfig, RunFolder
from keepmap.runtime.manifest import Manifest, file_sha256
from keepmap.runtime.torch_runtime import TorchRuntime

PARITY = "parity.json"
FORMAT = 1
TARGETS: tuple[Target, ...] = ("onnx", "openvino")
_ORDERS = {1: "grey", 3: "RGB"}
_KEPT = (0, 1, 4)
"""How many of the last convolutions int8 leaves in floats, tried in this order until the tolerance is kept."""
_PROBE = 4096


@dataclass(frozen=True)
class Artefact:
    """An exported network. path: the file to predict with; folder: where it lies, with parity.json."""

    path: Path
    folder: Path
    manifest: Manifest
    parity: Parity


def make_artefact(
    run: RunFolder, to: str, out: Path | None, options: ExportOptions, progress: Progress, given: Segmenter | None
) -> Artefact:
    """Export the best weights of `run`. Raises before anything is computed what can be told before.

    ContractError where the export computes something else than the original, beyond the tolerance; OutputError.
    """
    target = next((name for name in TARGETS if name == to), None)
    if target is None:
        raise OptionError(f"--to {to} does not exist.", found=to, expected=nearest(to, TARGETS))
    folder = out or run.path / f"{target}{'-int8' * options.int8}"
    _check_new(folder)
    use_cpu()
    network, config = run.load_network(given)
    pictures = pictures_of(run)
    if options.int8:
        pictures = calibration(run, pictures, Path(options.calibration) if options.calibration else None)
    elif options.calibration:
        raise OptionError("--calibration is for --int8.", do="leave it out, or pass --int8")
    require_packages(target, options.int8)
    manifest = _manifest(network, config, run)
    with _scratch(folder) as scratch:
        whole = to_graph(network, config.channels, config.temperature)
        graph = in_target(whole, target, scratch / "graph.onnx")
        proof = _Proof(network, config, pictures, scratch, progress)
        if options.int8:
            path, manifest, parity = _in_int8(graph, target, manifest, proof)
        else:
            path, manifest, parity = _proven(graph, target, manifest, proof)
        if not parity.within:
            raise _apart(run, target, parity)
        largest = {"difference": parity.difference, "agreement": parity.agreement}
        facts = {"versions": manifest.versions, "kept": manifest.kept}
        write_json(path.parent / PARITY, {"file": path.name, **largest, **to_dict(parity), **facts}, format=FORMAT)
        with writing(folder):
            for written in path.parent.iterdir():
                with written.open("rb+") as file:
                    os.fsync(file.fileno())
            if folder.exists():
                folder.rmdir()
            path.parent.replace(folder)
    return Artefact(folder / path.name, folder, manifest, parity)


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A new hidden folder beside `folder`, in place of one that was left there, which goes away at the end.

    Raises OutputError, DiskFull, with the name of `folder` where the disk refuses something in the block.
    """
    scratch = hidden_beside(folder.absolute(), ".partial")
    try:
        with writing(folder):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
        yield scratch
    except OutputError as error:  # of a hidden file, which the user does not know
        if isinstance(error.__cause__, OSError):
            raise not_written(folder, error.__cause__) from error
        raise
    except OSError as error:  # others are of libraries that do not load, and are told as they are
        told = not_written(folder, error)
        if isinstance(told, DiskFull):
            raise told from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class _Proof:
    """What comparing takes. scratch: a folder for what may be thrown away."""

    network: Any
    config: RunConfig
    pictures: Pictures
    scratch: Path
    progress: Progress


def _in_int8(graph: Any, to: Target, manifest: Manifest, proof: _Proof) -> tuple[Path, Manifest, Parity]:
    """Quantised, with as few of the last layers in floats as the tolerance allows."""
    crops = crops_of(proof.pictures, _raw(proof.network)[0])
    for count in _KEPT:
        kept = last_layers(graph, to, count)
        floats = (*kept, *(last_factor(graph, to) if proof.config.temperature != 1.0 else ()))
        proof.progress.say(f"int8    calibrated on {len(crops)} crops{f', the last {count} layers kept' * bool(count)}")
        model = quantised(copy.deepcopy(graph) if to == "onnx" else graph, to, crops, floats)
        path, written, parity = _proven(model, to, replace(manifest, precision="int8", kept=kept), proof)
        if parity.within:
            break
    return path, written, parity


def _proven(graph: Any, to: Target, manifest: Manifest, proof: _Proof) -> tuple[Path, Manifest, Parity]:
    """The file, with what it says of itself, and how it compares with the network."""
    folder = proof.scratch / "export"
    folder.mkdir(exist_ok=True)
    path = write_graph(graph, to, manifest, folder)
    network, config = proof.network, proof.config
    used, export = TorchRuntime(network, device="cpu", temperature=config.temperature), open_artefact(path)
    exact = TorchRuntime(network, device="cpu", precision="float32", temperature=config.temperature)
    sides = Sides(exact, used, open_artefact(path, precision="float32"), export)
    images = samples(proof.pictures, SIZES, *_raw(network), config.dtype)
    int8 = manifest.precision == "int8"
    parity = measure_parity(
        sides, (used.precision, export.precision), images, proof.pictures, config.labels, int8=int8,
        progress=proof.progress,
    )  # fmt: skip
    return path, export.manifest, parity


def _manifest(network: Any, config: RunConfig, run: RunFolder) -> Manifest:
    side = _PROBE * network.stride
    padded = network.padded((side, side)) if isinstance(network, Network) else (side, side)
    return Manifest(
        network=config.network, options=config.options, weights=file_sha256(run.model_file), payload="",
        channels=config.channels, order=_ORDERS.get(config.channels, "as in the files"), dtype=config.dtype,
        labels=config.labels,
        mean=tuple(_raw(network)[0].tolist()), stride=network.stride, reach=tuple(network.reach), local=network.local,
        margin=padded[0] - side, pixel_bytes=memory_of(network, bytes_per_value=4)(side, side) / prod(padded),
        precision="float32", kept=(), opset=0, ir=0, versions={"keepmap": __version__},
    )  # fmt: skip


def _raw(network: Any) -> tuple[Any, Any]:
    """Mean and deviation (C,) of raw values; 0 and 1 of a network without a normalisation of its own."""
    if isinstance(network, Network):
        return network.mean.numpy(), network.std.numpy()
    return np.zeros(network.channels, np.float32), np.ones(network.channels, np.float32)


def _check_new(folder: Path) -> None:
    if folder.suffix.lower() in (".onnx", ".xml"):
        raise OutputError(
            f"{folder} is to be a folder.", expected="a folder, which gets the file and parity.json",
            do=f"-o {folder.with_suffix('')}",
        )  # fmt: skip
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is no empty folder.", do="choose another -o, or delete it")


def _apart(run: RunFolder, to: str, parity: Parity) -> ContractError:
    scores = "" if parity.mean_iou is None else f", mean IoU {parity.mean_iou[1]:.4f} for {parity.mean_iou[0]:.4f}"
    return ContractError(
        f"What {to} computes of {run.path} is not what the run computes; nothing was written.", clause="parity",
        found=f"logits differ by {parity.difference:.2g} of the largest in float32, "
        f"{parity.agreement:.2%} of the labels equal in {parity.precision}{scores}",
        expected=parity.tolerance, do="export without --int8, or another target",
    )  # fmt: skip
