"""The verbs that use a RUN: load, predict, evaluate.

Computes nothing itself: `inference` and `evaluation` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from keepmap.artefacts.loading import is_artefact, load_predictor
from keepmap.config import from_arguments
from keepmap.data.classes import named_classes
from keepmap.errors import OptionError
from keepmap.evaluation import evaluate_folders, evaluate_run
from keepmap.inference.files import predict_files
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import Scores
from keepmap.networks.candidate import Segmenter
from keepmap.options import ComputeOptions, EvaluateOptions, Instances, Precision, PredictOptions, WantedWay
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.runs import RunFolder


def load(
    path: StrPath,
    *,
    network: Segmenter | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    memory: str | None = None,
    way: WantedWay = "auto",
) -> Predictor:
    """The model of a RUN or of an exported file: predictor(image (H, W) or (H, W, C)) gives label values (H, W).

    network: for a RUN of a network of your own, an object like the one that was trained; it is left as it is.
    Raises RunError, ArtefactError.
    """
    return load_predictor(Path(path), ComputeOptions(memory, way, device, precision), network)



def predict(
    run: StrPath,
    inputs: StrPath | Sequence[StrPath],
    out: StrPath,
    *,
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    overlay: bool = False,
    probabilities: bool = False,
    coarse: bool = False,
    network: Segmenter | None = None,
    memory: str | None = None,
    way: WantedWay = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> list[Path]:
    """Masks of image files and folders, of each image's own size with the label values of the training masks.

    Writes OUT/<relative stem>.png (.tif for TIFF and .npy, .zarr for Zarr) and returns these paths. Pixel size and
    place on the Earth are kept. Raises before the first image is predicted where an input is missing, two share one
    output, or `out` cannot be written. network: as in `load`.
    """
    options = from_arguments(PredictOptions, locals())
    predictor = load_predictor(Path(run), options, network)
    several = [inputs] if isinstance(inputs, str | PathLike) else inputs
    return predict_files(
        predictor,
        [Path(i) for i in several],
        Path(out),
        overlay=options.overlay,
        probabilities=options.probabilities,
        coarse=options.coarse,
        reading=options,
        progress=progress or Silent(),
    )



def evaluate(
    source: StrPath,
    *folders: StrPath,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    network: Segmenter | None = None,
    memory: str | None = None,
    way: WantedWay = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> Scores:
    """Scores over all pixels: evaluate(RUN, IMAGES, MASKS), or evaluate(PREDICTIONS, MASKS) without a run.

    network: as in `load`.
    """
    options = from_arguments(EvaluateOptions, locals())
    show = progress or Silent()
    names = named_classes(options.classes)
    if len(folders) == 1 and (RunFolder(Path(source)).config_file.exists() or is_artefact(Path(source))):
        raise OptionError(f"{source} is a trained network: it needs images.", expected="evaluate RUN IMAGES MASKS")
    if len(folders) == 1:
        if (memory, way, device, precision, network) != (None, "auto", "auto", "auto", None):
            raise OptionError("--memory, --way, --device, --precision and network= are for a RUN; nothing is computed.")
        return evaluate_folders(
            Path(source), Path(folders[0]), class_names=names, ignore=options.ignore, instances=options.instances,
            reading=options, progress=show,
        )  # fmt: skip
    if len(folders) != 2:
        raise OptionError("evaluate takes two or three folders.", expected="RUN IMAGES MASKS, or PREDICTIONS MASKS")
    if names is not None or (options.ignore, options.instances) != ("auto", "auto"):
        raise OptionError(
            "A RUN brings its own classes and ignored value.",
            do="leave out --classes, --ignore and --instances, or evaluate PREDICTIONS MASKS with them",
        )
    predictor = load_predictor(Path(source), options, network)
    return evaluate_run(predictor, Path(folders[0]), Path(folders[1]), reading=options, progress=show)
