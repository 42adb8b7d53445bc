"""The verbs that use a RUN: load, predict, evaluate.

Computes nothing itself: `inference` and `evaluation` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from keepmap.config import from_arguments
from keepmap.data.classes import named_classes
from keepmap.errors import OptionError
from keepmap.evaluation import evaluate_folders, evaluate_run
from keepmap.inference.files import predict_files
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import Scores
from keepmap.networks.candidate import Segmenter
from keepmap.options import EvaluateOptions, Instances, Precision, PredictOptions, WantedWay, parse_size
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.resources import resolve_device, resolve_precision, use_cpu
from keepmap.runs import RunFolder
from keepmap.runtime.torch_runtime import Runtime


def load(
    path: StrPath,
    *,
    network: Segmenter | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    memory: str | None = None,
    way: WantedWay = "auto",
) -> Predictor:
    """The model of a RUN: predictor(image (H, W) or (H, W, C)) gives label values (H, W). Raises RunError.

    network: for a RUN of a network of your own, an object like the one that was trained; it is left as it is.
    """
    use_cpu()
    trained, config = RunFolder(Path(path)).load_network(network)
    where = resolve_device(device)
    runtime = Runtime(trained, device=where, precision=resolve_precision(precision, where))
    limit = int(parse_size(memory)) if memory else None
    return Predictor(runtime, config.labels, memory_bytes=limit, dtype=config.dtype, way=way)



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
    predictor = load(
        run, network=network, device=options.device, precision=options.precision, memory=options.memory,
        way=options.way,
    )
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
    if len(folders) == 1 and RunFolder(Path(source)).config_file.exists():
        raise OptionError(f"{source} is a RUN: it needs images as well.", expected="evaluate RUN IMAGES MASKS")
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
    predictor = load(
        source, network=network, device=options.device, precision=options.precision, memory=options.memory,
        way=options.way,
    )
    return evaluate_run(predictor, Path(folders[0]), Path(folders[1]), reading=options, progress=show)
