"""The verbs that make a RUN: by training, and from weights made elsewhere.

Takes no step itself: `training` and `weights` do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from keepmap.artefacts.loading import load_predictor
from keepmap.config import from_arguments
from keepmap.data.pipeline import Pipeline
from keepmap.errors import OptionError
from keepmap.networks.candidate import Segmenter
from keepmap.options import ComputeOptions, ImportOptions, Instances, Precision, TrainOptions
from keepmap.planning.plan import Plan
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.reporting.writing import report_training
from keepmap.runs import RunFolder
from keepmap.training.preparing import prepare
from keepmap.training.session import begin, draw_preview, go_on, raise_if_interrupted
from keepmap.weights.importing import import_file


@dataclass(frozen=True)
class Run:
    """A trained model. path: the RUN folder; best: mean IoU on the held-out images; steps: optimiser steps done."""

    path: Path
    plan: Plan
    best: float
    best_step: int
    steps: int
    seconds: float


def plan(
    images: StrPath, masks: StrPath, *, classes: str | None = None, ignore: str = "auto", instances: Instances = "auto",
    frame: int | None = None, max_pixels: int = 100_000_000, follow_links: bool = False, model: str = "auto",
    encoder: str = "auto", set: dict[str, Any] | None = None,  # noqa: A002
    weights: str = "auto", offline: bool = False, init: str | None = None, network: Segmenter | None = None,
    time: str | None = None, steps: int | None = None, epochs: int | None = None, seed: int = 0, device: str = "auto",
    group_by: str = "found", validation: str | None = None, precision: Precision = "auto", crop: int | None = None,
    batch: int | None = None, workers: int | None = None, devices: int | None = None, tensorboard: bool = False,
    deterministic: bool = False, memory: str | None = None, checkpointing: bool = False,
    progress: Progress | None = None,
) -> Plan:  # fmt: skip
    """What `train` with the same arguments would do, and why, after a few measured steps; nothing is written.

    The Plan has an attribute for each entry of plan.json, and `because`, `expected_seconds`, `expected_bytes`.
    """
    options = from_arguments(TrainOptions, locals())
    return prepare(Path(images), Path(masks), options, progress or Silent(), network).plan


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
    follow_links: bool = False,
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
    devices: int | None = None,
    tensorboard: bool = False,
    deterministic: bool = False,
    memory: str | None = None,
    checkpointing: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Plan, train and validate a network on two folders, and write the RUN folder `out`.

    set: fixed entries of plan.json (set={"gain": 0.5}) and options of the network that `model` names, as `build_model`
    takes them: set={"skips": 0} for FCN-32s. memory: for the steps and the decoded images together.
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
    Only workers can be others then, which changes nothing in the result, and devices.
    devices: processes that train together, see docs/scaling.md. Where neither torchrun nor srun began them, the script
    that calls this is begun once for each.
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
        if images is not None or masks is not None or options != TrainOptions(workers=workers, devices=devices):
            raise OptionError(
                "--resume takes no folders and no options but --workers and --devices.", do=f"-o {out} --resume"
            )
        plan, position, first = go_on(run, show, network, augment, workers=workers, devices=devices)
    elif images is None or masks is None:
        raise OptionError("Images and masks are needed.", expected="IMAGES MASKS -o RUN, or -o RUN --resume")
    else:
        plan, position, first = begin(Path(images), Path(masks), run, options, show, network, augment)
    raise_if_interrupted(run, plan, position, network, augment)
    if not first:
        return Run(run.path, plan, position.best, position.best_step, position.step, position.seconds)
    computing = ComputeOptions(options.memory, device=plan.device, precision=cast(Precision, plan.precision))
    needed = network if run.read_config().foreign else None
    report_training(run, partial(load_predictor, options=computing, given=needed), show)
    return Run(run.path, plan, position.best, position.best_step, position.step, position.seconds)


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
