"""Which runtime computes a RUN: the one that was named, or the fastest here of those that it was exported for.

Knows paths and seconds; what an export computes was compared with the RUN when it was made. Makes no export.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from keepmap.artefacts.graphs import FILES
from keepmap.artefacts.loading import is_artefact, load_predictor, model_digests
from keepmap.config import read_json, write_json
from keepmap.errors import ArtefactError, InputError, OptionError, OutputError, RunError
from keepmap.geometry.tiles import round_up
from keepmap.inference.predictor import Predictor
from keepmap.networks.candidate import Segmenter
from keepmap.options import PredictOptions
from keepmap.protocols import Progress
from keepmap.resources import Stopwatch, cpu_model, resolve_device, thread_count
from keepmap.runs import RunFolder
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.weights.download import cache_folder

TORCH = "torch"
FORMAT = 1
_SIDE = 512
_ROUNDS = 3


@dataclass(frozen=True)
class _Candidate:
    """target: "torch", or what was exported for. path: what to predict with. name: of the runtime, with its version."""

    target: str
    path: Path
    name: str
    predictor: Predictor


def path_for(
    path: Path, options: PredictOptions, progress: Progress, given: Segmenter | None = None,
    largest: Callable[[], tuple[int, int]] = lambda: (_SIDE, _SIDE),
) -> Path:  # fmt: skip
    """What to predict with in place of `path`: itself, or what `keepmap export` wrote into the RUN `path`.

    With `options.runtime` "auto" each of them that can do what is asked for computes one tile of 512 px a few times, in
    turn; what was found is kept in the cache for this machine, these files and versions. The fastest is that which so
    takes the least for all that it computes of an image of the size `largest` (H, W), which may be more than its pixels
    (see `Way.overhead`). int8 takes no part, as it computes other labels. given: as in `load_predictor`.
    Raises OptionError, MissingPackage, ArtefactError where there is no such export or it is of other weights.
    """
    wanted = options.runtime
    exported = is_artefact(path)
    if wanted is None or wanted == ("auto" if exported else TORCH):
        return path
    if exported:
        raise OptionError(
            f"{path} is computed by the runtime that it was exported for.", found=f"--runtime {wanted}",
            do="leave it out, or name the RUN",
        )  # fmt: skip
    if wanted != "auto":
        return _exported(path, wanted, options).path
    candidates = _candidates(path, options, progress, given)
    if len(candidates) == 1:
        why = _only_torch(options) or f"there is no export that can take part: keepmap export {path} --to openvino"
        progress.say(f"runtime {candidates[0].name}; {why}")
        return path
    return _fastest(candidates, largest(), progress)


def _exported(run: Path, target: str, options: PredictOptions) -> _Candidate:
    """What `run` was exported to. Raises ArtefactError where it was not, or with other weights; MissingPackage."""
    folder = run / target
    if not is_artefact(folder):
        raise ArtefactError(
            f"{run} was not exported for {target}.", expected=f"{folder / FILES[target]}",
            do=f"keepmap export {run} --to {target}",
        )  # fmt: skip
    predictor = load_predictor(folder, options)
    runtime = cast(ExportedRuntime, predictor.runtime)
    found, weights = runtime.manifest.weights, model_digests(run)[RunFolder(run).model_file.name]
    if found != weights:
        raise ArtefactError(
            f"{folder} was exported from other weights than {run} has now.", found=f"sha256 {found[:12]}",
            expected=f"sha256 {weights[:12]}", do=f"delete {folder}, then keepmap export {run} --to {target}",
        )  # fmt: skip
    return _Candidate(target, folder, f"{runtime.name}, {runtime.precision}", predictor)


def _only_torch(options: PredictOptions) -> str:
    """Why no export can compute what is asked for, "" where one can."""
    if resolve_device(options.device) != "cpu":
        return "exports are computed on the CPU"
    return "--coarse and --way bands are for PyTorch alone" if options.coarse or options.way == "bands" else ""


def _candidates(run: Path, options: PredictOptions, progress: Progress, given: Segmenter | None) -> list[_Candidate]:
    """PyTorch first. What was exported and cannot take part is said."""
    predictor = load_predictor(run, options, given)
    runtime = cast(TorchRuntime, predictor.runtime)
    candidates = [_Candidate(TORCH, run, f"{runtime.name}, {runtime.precision}", predictor)]
    for target in FILES:
        if not _only_torch(options) and is_artefact(run / target):
            try:
                found = _exported(run, target, options)
            except InputError as error:
                progress.say(f"runtime {target} takes no part: {str(error).splitlines()[0]}")
                continue
            if cast(ExportedRuntime, found.predictor.runtime).manifest.precision == "int8":
                progress.say(f"runtime {target} takes no part: it is int8, which computes other labels")
            else:
                candidates.append(found)
    return candidates


def _fastest(candidates: list[_Candidate], size: tuple[int, int], progress: Progress) -> Path:
    """For an image of `size`, by what was measured, now or at an earlier time."""
    place = cache_folder() / "runtimes" / f"{_key(candidates)}.json"
    kept = _kept(place, candidates)
    seconds = kept or _measured(candidates)
    ways = {each.target: each.predictor.plan_way(*size) for each in candidates}
    factors = {target: way.overhead(size) for target, way in ways.items()}
    order = sorted(candidates, key=lambda each: seconds[each.target] * factors[each.target])
    told = "; ".join(
        f"{each.name}: {seconds[each.target]:.3f} s x {factors[each.target]:.2f} for {ways[each.target].kind}"
        for each in order
    )
    when = f"kept in {place}" if kept else "measured now"
    progress.say(f"runtime {order[0].name} ({told}; {_SIDE} px, {when}, x pixels computed of {size[1]} x {size[0]} px)")
    if kept is None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {"seconds": seconds}, format=FORMAT)
        except (OSError, OutputError) as error:
            progress.say(f"runtime will be measured again: {str(error).splitlines()[0]}")
    return order[0].path


def _measured(candidates: list[_Candidate]) -> dict[str, float]:
    """Median seconds of a tile, by target."""
    first = candidates[0].predictor.runtime
    side = round_up(_SIDE, first.stride)
    image = np.random.default_rng(0).integers(0, 256, (first.channels, side, side), np.uint8)
    spent: dict[str, list[float]] = {each.target: [] for each in candidates}
    for turn, each in itertools.product(range(_ROUNDS + 1), candidates):
        watch = Stopwatch()
        each.predictor.runtime.run(image[np.newaxis], "labels")
        if turn:  # the first pass of a size costs more than the others
            spent[each.target].append(watch.seconds)
    return {target: statistics.median(seconds) for target, seconds in spent.items()}


def _kept(place: Path, candidates: list[_Candidate]) -> Mapping[str, float] | None:
    """What was measured before, None where nothing was or the file is broken: it is measured anew then."""
    if not place.exists():
        return None
    try:
        seconds = read_json(place, format=FORMAT).get("seconds")
    except RunError:
        return None
    whole = isinstance(seconds, dict) and all(isinstance(seconds.get(each.target), float) for each in candidates)
    return seconds if whole else None


def _key(candidates: list[_Candidate]) -> str:
    """Of the kind of machine (or its name where the processor has none), the files, the versions, how they compute."""
    facts: list[Any] = [cpu_model() or platform.node(), platform.machine(), thread_count()]
    facts += [[each.target, each.name, model_digests(each.path)] for each in candidates]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
