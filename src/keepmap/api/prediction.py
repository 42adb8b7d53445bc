"""The verbs that use a RUN or what it predicted: load, predict, evaluate, compare.

Computes nothing itself: `inference` and `evaluation` do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from keepmap import __version__
from keepmap.artefacts.choosing import path_for
from keepmap.artefacts.loading import computed_by, is_artefact, load_averaged, load_predictor, model_digests
from keepmap.config import from_arguments
from keepmap.evaluation.sources import Comparison, Opener, compare_sources, evaluate_source
from keepmap.inference.files import predict_files
from keepmap.inference.jobs import largest_size
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import Scores
from keepmap.networks.candidate import Segmenter
from keepmap.options import (
    AveragingOptions,
    CompareOptions,
    ComputeOptions,
    EvaluateOptions,
    Instances,
    Metrics,
    Precision,
    PredictOptions,
    ProbabilityType,
    RuntimeName,
    WantedWay,
)
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.reporting.writing import report_evaluation, require_card
from keepmap.runs import RunFolder


def load(
    path: StrPath,
    *,
    network: Segmenter | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    memory: str | None = None,
    way: WantedWay = "auto",
    tta: str | None = None,
    ensemble: Sequence[StrPath] | None = None,
) -> Predictor:
    """The model of a RUN or of an exported file: predictor(image (H, W) or (H, W, C)) gives label values (H, W).

    network: for a RUN of a network of your own, an object like the one that was trained; it is left as it is.
    tta, ensemble: what is averaged, as in `predict`. Raises RunError, ArtefactError, OptionError.
    """
    others = tuple(os.fspath(other) for other in ensemble or ()) or None
    return load_averaged(Path(path), AveragingOptions(memory, way, device, precision, tta, others), network)


def predict(
    run: StrPath,
    inputs: StrPath | Sequence[StrPath],
    out: StrPath,
    *,
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    follow_links: bool = False,
    overlay: bool = False,
    polygons: bool = False,
    probabilities: bool = False,
    probability_type: ProbabilityType = "float32",
    coarse: bool = False,
    review: bool = False,
    table: str | None = None,
    smallest_object: int = 0,
    fill_holes: int = 0,
    tta: str | None = None,
    ensemble: tuple[str, ...] | None = None,
    resume: bool = False,
    runtime: RuntimeName | None = None,
    network: Segmenter | None = None,
    memory: str | None = None,
    way: WantedWay = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> list[Path]:
    """Masks of image files and folders, of each image's own size with the label values of the training masks.

    Writes OUT/<relative stem>.png (.tif for TIFF and .npy, .zarr for Zarr) and returns these paths. Pixel size and
    place on the Earth are kept. OUT/prediction.jsonl says what they were made with; from it `resume` goes on. Raises
    before the first image is predicted where an input is missing, two share one output, or `out` cannot be written.
    network: as in `load`. review: OUT/review_first.csv names the images of which the least Dice is to be expected
    first, see docs/metrics.md. runtime: of a RUN; "auto" times PyTorch and what was exported into the RUN once.
    """
    ensemble = tuple(os.fspath(other) for other in ensemble or ()) or None
    options, show = from_arguments(PredictOptions, locals()), progress or Silent()
    several = [Path(i) for i in ([inputs] if isinstance(inputs, str | PathLike) else inputs)]
    place = path_for(Path(run), options, show, network, lambda: largest_size(several, Path(out), options))
    network = network if place == Path(run) else None
    runs = [place, *map(Path, options.ensemble or ())]
    predictor = load_averaged(place, options, network)
    if is_artefact(place) and (place == Path(run) or options.runtime != "auto"):
        show.say(f"computed by {computed_by(predictor)[0]}")
    about = _about(runs, network, predictor)
    return predict_files(predictor, several, Path(out), options, about=about, progress=show)


def _about(runs: Sequence[Path], network: Segmenter | None, predictor: Predictor) -> dict[str, Any]:
    """What decides the bytes of a prediction, beside its options."""
    given = {} if network is None else {"network": type(network).__name__}
    versions = {"keepmap": __version__, "torch": version("torch")}
    digests = {str(run): model_digests(run) for run in runs}
    return {"runs": digests, **given, "versions": versions, "computed": computed_by(predictor)}


def evaluate(
    source: StrPath,
    *folders: StrPath,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    follow_links: bool = False,
    network: Segmenter | None = None,
    memory: str | None = None,
    metrics: Metrics = "all",
    surface_tolerance: float = 2.0,
    group_by: str = "found",
    tta: str | None = None,
    ensemble: tuple[str, ...] | None = None,
    way: WantedWay = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    html: str | None = None,
    card: str | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Scores with 95 % intervals: evaluate(RUN, IMAGES, MASKS), or evaluate(PREDICTIONS, MASKS) without a run.

    metrics, surface_tolerance: see docs/metrics.md. group_by: as in `train`; groups are what the bootstrap draws.
    network: as in `load`. tta, ensemble: what is averaged, as in `predict`.
    html: a file for the report as a page; card: one for a model card of the RUN.
    """
    ensemble = tuple(os.fspath(other) for other in ensemble or ()) or None
    options, show = from_arguments(EvaluateOptions, locals()), progress or Silent()
    require_card(Path(source), options)
    open_run = cache(partial(load_averaged, options=options, given=network))
    opener = Opener(_is_trained, open_run, partial(_trained_on, others=options.ensemble or ()))
    scores = evaluate_source((source, *folders), options, opener, network is not None, show)
    if options.html or options.card:
        report_evaluation((source, *folders), scores, options, open_run, show, network is not None)
    return scores


def _is_trained(path: Path) -> bool:
    """Whether there is a RUN or an exported file."""
    return RunFolder(path).config_file.exists() or is_artefact(path)


def _trained_on(path: Path, others: Sequence[StrPath] = ()) -> frozenset[str]:
    """Digests of the images that any of these was trained on; an exported file does not say."""
    return frozenset().union(*(RunFolder(Path(each)).trained_on() for each in (path, *others)))


def compare(
    *sources: StrPath,
    masks: StrPath,
    images: StrPath | None = None,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    follow_links: bool = False,
    metrics: Metrics = "all",
    surface_tolerance: float = 2.0,
    group_by: str = "found",
    memory: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Comparison:
    """The scores of folders of predicted masks on the same masks, and the first against each other one.

    images: then the sources are RUNs and exported files. Differences have 95 % intervals by paired bootstrap.
    """
    options = from_arguments(CompareOptions, locals())
    computing = ComputeOptions(memory, device=device)
    opener = Opener(_is_trained, partial(load_predictor, options=computing), _trained_on)
    return compare_sources(sources, masks, images, options, opener, progress or Silent())
