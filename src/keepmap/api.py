"""The composition root: the public functions of keepmap, and nothing else.

Every verb turns its options into one frozen dataclass and hands them to the layers that do the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from keepmap.config import from_arguments, write_text
from keepmap.data.classes import named_classes
from keepmap.data.convert import Conversion, Reading, convert_annotations
from keepmap.data.drawn import draw_dataset
from keepmap.data.pipeline import Pipeline
from keepmap.data.repair import IMAGES, MASKS, repair, require_new
from keepmap.data.scan import DataReport, scan
from keepmap.errors import OptionError
from keepmap.evaluation import evaluate_folders, evaluate_run
from keepmap.inference.files import predict_files
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import Scores
from keepmap.networks import contract
from keepmap.networks.candidate import Segmenter
from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.describe import LevelRow, ModelRow, describe, sketch, summarise
from keepmap.networks.network import Network
from keepmap.options import (
    CheckOptions,
    ConvertOptions,
    DemoOptions,
    EvaluateOptions,
    ImportOptions,
    Instances,
    Precision,
    PredictOptions,
    TrainOptions,
    WantedWay,
    parse_size,
)
from keepmap.planning.plan import Plan
from keepmap.protocols import Progress, Silent
from keepmap.reporting.data_page import data_page
from keepmap.reporting.pictures import draw_comparisons
from keepmap.resources import resolve_device, resolve_precision, use_cpu
from keepmap.runs import RunFolder
from keepmap.runtime.torch_runtime import Runtime
from keepmap.training.session import begin, draw_preview, go_on, raise_if_interrupted
from keepmap.weights.importing import import_file

StrPath = str | PathLike[str]


@dataclass(frozen=True)
class Run:
    """A trained model. path: the RUN folder; best: mean IoU on the held-out images; steps: optimiser steps done."""

    path: Path
    plan: Plan
    best: float
    best_step: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Demo:
    """What `demo` leaves behind: the run, its scores on images it did not see, one picture."""

    run: Run
    scores: Scores
    picture: Path


def check(
    images: StrPath,
    masks: StrPath,
    *,
    fix: str | None = None,
    html: str | None = None,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    progress: Progress | None = None,
) -> DataReport:
    """Everything that is wrong with two folders of images and masks, in one report. Raises nothing for bad files.

    fix: a new folder, written whole or not at all: a repaired copy, which the report's `repair` and `repaired` are on.
    html: a file for the report as a page. Raises OutputError where either cannot be written, DataError where a folder
    cannot be listed or, with fix, the labels cannot be told.
    """
    options = from_arguments(CheckOptions, locals())
    names = named_classes(options.classes)
    folders, show = (Path(images), Path(masks)), progress or Silent()
    if options.fix:
        require_new(Path(options.fix), *folders)
    report = scan(
        *folders, class_names=names, ignore=options.ignore, instances=options.instances, reading=options, progress=show
    )
    if options.fix:
        done = repair(*folders, Path(options.fix), class_names=names, options=options, progress=show)
        again = scan(
            done.out / IMAGES, done.out / MASKS, class_names=named_classes(done.classes) or names,
            ignore="auto" if done.classes else options.ignore, instances=options.instances, reading=options,
            progress=show,
        )  # fmt: skip
        report = replace(report, repair=done, repaired=again)
    if options.html:
        write_text(Path(options.html), data_page(report))
    return report


def convert(
    source: StrPath,
    out: StrPath,
    *,
    images: str | None = None,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    progress: Progress | None = None,
) -> Conversion:
    """Masks of class ids, OUT/STEM.png with OUT/classes.txt, from masks of any kind, COCO json or labelme json.

    source: a folder of masks, a COCO file, a labelme file or a folder of them. images: the folder of the images.
    What is wrong is refused and nothing is written; what is left out is in the result. Raises DataError, OptionError,
    OutputError.
    """
    options = from_arguments(ConvertOptions, locals())
    names = named_classes(options.classes)
    reading = Reading(names, options.ignore, options.instances, options)
    folder = Path(options.images) if options.images else None
    return convert_annotations(Path(source), Path(out), images=folder, reading=reading, progress=progress or Silent())


def train(
    images: StrPath | None = None,
    masks: StrPath | None = None,
    out: StrPath | None = None,
    *,
    resume: bool = False,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    model: str = "auto",
    encoder: str = "auto",
    set: dict[str, Any] | None = None,  # noqa: A002
    weights: str = "auto",
    offline: bool = False,
    init: str | None = None,
    network: Segmenter | None = None,
    augment: Pipeline | None = None,
    preview: StrPath | None = None,
    time: str | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    group_by: str = "found",
    validation: str | None = None,
    precision: Precision = "auto",
    crop: int | None = None,
    batch: int | None = None,
    workers: int | None = None,
    deterministic: bool = False,
    checkpointing: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Plan, train and validate a network on two folders, and write the RUN folder `out`.

    set: options of the network that `model` names, as `build_model` takes them: set={"skips": 0} for FCN-32s.
    weights: auto, imagenet (fetched into the cache unless offline), none, or a file of a classifier of the encoder.
    init: a RUN whose weights it starts from, as far as names and shapes match (FCN-32s to 16s to 8s, say).
    group_by: which images a split must not part, see `data.groups.group_stems`. validation: a file of held-out stems.
    network: an object in place of `model`; a copy is trained, from the weights it has. The RUN can build one of keepmap
    again. Of your own `nn.Module`, one that passes `check_segmenter`, it holds the weights and the name of the class:
    it is needed again as network= wherever the RUN is used.
    augment: a callable that changes the crops in place of keepmap's own augmentation, see `data.pipeline.Pipeline`;
    albumentations' Compose is one. It is needed again to resume.
    preview: a PNG file. The crops that the training would begin with are drawn into it, and nothing is trained: the Run
    that comes back has no steps, and the picture for its path. `out` is not needed then.
    With resume=True, `out` is a RUN that was interrupted; it knows its folders and options, and the time spent counts.
    Only workers can be others then, which changes nothing in the result.
    Raises DataError with everything that is wrong before the first step, ContractError for an object that is no
    network, Interrupted after Ctrl-C (the state is saved).
    """
    options = from_arguments(TrainOptions, locals())
    show = progress or Silent()
    if preview is not None:
        if resume or images is None or masks is None:
            raise OptionError("--preview draws what a new training begins with.", expected="IMAGES MASKS")
        plan = draw_preview(Path(images), Path(masks), Path(preview), options, show, network, augment)
        return Run(Path(preview), plan, best=-1.0, best_step=0, steps=0, seconds=0.0)
    if out is None:
        raise OptionError("No RUN folder is named.", expected="-o RUN")
    run = RunFolder(Path(out))
    if resume:
        if images is not None or masks is not None or options != TrainOptions(workers=options.workers):
            raise OptionError("--resume takes no folders and no options but --workers.", do=f"-o {out} --resume")
        plan, position = go_on(run, show, network, augment, workers=options.workers)
    elif images is None or masks is None:
        raise OptionError("Images and masks are needed.", expected="IMAGES MASKS -o RUN, or -o RUN --resume")
    else:
        plan, position = begin(Path(images), Path(masks), run, options, show, network, augment)
    raise_if_interrupted(run, plan, position, network, augment)
    return Run(run.path, plan, position.best, position.best_step, position.step, position.seconds)


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


def import_weights(
    file: StrPath,
    source: str,
    out: StrPath,
    *,
    classes: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Turn weights that another library trained into the RUN folder `out`, which predicts, and return its path.

    file:      a state dict, .safetensors or as torch.save writes it; "published" for those that the source offers.
    source:    torchvision:fcn_resnet50 or -101, milesial:unet, smp:unet-resnet18 to -152.
    mean, std: of raw 8-bit values, where they are not those of the source.
    The logits equal those of the source. Raises OptionError, WeightsError, OutputError, DownloadError.
    """
    options = from_arguments(ImportOptions, locals())
    run = RunFolder(Path(out))
    import_file(str(file), source, run, options, progress or Silent())
    return run.path


def build_model(name: str, *, channels: int, classes: int, **options: Any) -> Network:
    """A network by name, with random weights: (N, channels, *S) raw values to logits (N, classes, *S).

    options: fields of the network's own dataclass; a misspelt one raises OptionError with the nearest valid name.
    """
    return build_network(name, channels=channels, classes=classes, options=options)


def list_models() -> list[ModelRow]:
    """Every network with its default options: name, parameters, stride in pixels, reach in pixels."""
    return [summarise(name) for name in NETWORKS]


def describe_network(
    name: str, *, size: tuple[int, int], channels: int = 3, classes: int = 2, **options: Any
) -> list[LevelRow]:
    """One network at one image size (H, W) in pixels, level by level: extent, channels, reach, bytes."""
    return describe(sketch(name, channels=channels, classes=classes, options=options), size)


def check_segmenter(network: Segmenter, *, seed: int = 0) -> None:
    """Prove on copies of a network, keepmap's or your own, what keepmap takes for granted of one.

    network: an `nn.Module` with channels, classes, stride, reach (before, after), local and forward: raw values
             (N, channels, H, W) to logits (N, classes, H, W). seed: of all that is drawn.
    Raises ContractError naming the first clause that does not hold.
    """
    contract.check_segmenter(network, seed=seed)


def demo(out: StrPath = "keepmap-demo", *, time: str = "1m", seed: int = 0, progress: Progress | None = None) -> Demo:
    """Draw a small data set, train on it, score and predict images that were not seen, and draw one picture."""
    options = from_arguments(DemoOptions, locals())
    show, folder = progress or Silent(), Path(out)
    RunFolder(folder).check_free()
    seen, unseen = folder / "data" / "train", folder / "data" / "test"
    draw_dataset(seen, count=40, seed=options.seed)
    draw_dataset(unseen, count=10, seed=options.seed + 1)
    run = train(
        seen / "images",
        seen / "masks",
        folder / "run",
        classes=str(seen / "classes.txt"),
        time=options.time,
        seed=options.seed,
        progress=show,
    )
    images, masks = unseen / "images", unseen / "masks"
    scores = evaluate(run.path, images, masks, progress=show)
    predictions = predict(run.path, images, folder / "predictions", progress=show)
    triples = [(images / p.name, masks / p.name, p) for p in predictions]
    picture = draw_comparisons(triples, RunFolder(run.path).read_config().labels, folder / "demo.png")
    return Demo(run, scores, picture)
