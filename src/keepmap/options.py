"""What each public verb can be told: one frozen dataclass per verb, the same for Python and the shell.

Holds names, defaults and their one-line explanations only; what they do is decided where they are used.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from keepmap.config import option
from keepmap.errors import OptionError

Instances = Literal["auto", "yes", "no"]
Precision = Literal["auto", "float32", "bfloat16"]
Metrics = Literal["all", "region"]
Target = Literal["onnx", "openvino"]
ProbabilityType = Literal["float32", "float16", "uint8"]
WantedWay = Literal["auto", "pass", "bands", "tiles"]
RuntimeName = Literal["torch", "onnx", "openvino", "auto"]


@dataclass(frozen=True)
class ImageOptions:
    """How image files are read. Raises OptionError for numbers that cannot be."""

    frame: int | None = option(None, "which frame, from 0, of files that hold several; without it they are refused")
    max_pixels: int = option(100_000_000, "most pixels of a file that has to be decoded whole")
    follow_links: bool = option(False, "also read what links in a folder lead to outside it")

    def __post_init__(self) -> None:
        for name, value, least in (("--frame", self.frame, 0), ("--max-pixels", self.max_pixels, 1)):
            if value is not None and value < least:
                raise OptionError(f"{name} {value} cannot be.", found=str(value), expected=f"at least {least}")


@dataclass(frozen=True)
class LabelOptions:
    """How label values in mask files are read."""

    classes: str | None = option(None, "text file with a class a line: NAME in the order of ids, NAME,ID or NAME,R,G,B")
    ignore: str = option("auto", "label value (or R,G,B) left out of loss and scores; auto: 255 beside ids; none: none")
    instances: Instances = option("auto", "yes: each value above 0 numbers an object; auto: where the masks show it")


@dataclass(frozen=True)
class ComputeOptions:
    """How a trained network computes."""

    memory: str | None = option(None, "memory to compute in, such as 2G; default: a share of what is free")
    way: WantedWay = option("auto", "pass, bands, tiles, or auto: the quickest that memory suffices for")
    device: str = option("auto", "auto, cpu, cuda or mps")
    precision: Precision = option("auto", "auto, float32 or bfloat16")


@dataclass(frozen=True)
class CheckOptions(ImageOptions, LabelOptions):
    """Options of `keepmap check`."""

    fix: str | None = option(None, "new folder for a repaired copy of the data")
    html: str | None = option(None, "file for the report as a page with pictures")


@dataclass(frozen=True)
class ConvertOptions(ImageOptions, LabelOptions):
    """Options of `keepmap convert`."""

    images: str | None = option(None, "folder of the images, which give names and sizes; others are left out")


@dataclass(frozen=True)
class TrainOptions(ImageOptions, LabelOptions):
    """Options of `keepmap train`. Exactly one of time, steps and epochs decides the length."""

    model: str = option("auto", "network, one of `keepmap models`; auto chooses by the data and the machine")
    encoder: str = option("auto", "encoder of networks that have one, one of `keepmap models`, or timm:NAME")
    set: dict[str, Any] | None = option(None, "fixes an entry of plan.json or an option of the network; once for each")
    weights: str = option("auto", "where it starts: imagenet (fetched), none, FILE, or auto (imagenet where at hand)")
    offline: bool = option(False, "fetch nothing: weights come from the cache or from files")
    init: str | None = option(None, "RUN whose weights it starts from: what matches is loaded, the rest is listed")
    time: str | None = option(None, "wall-clock time of the whole command, such as 90s, 10m, 2h; default 10m")
    steps: int | None = option(None, "optimiser steps, instead of a time")
    epochs: int | None = option(None, "epochs (one crop per training image each), instead of a time")
    seed: int = option(0, "seed of the split, the weights, the sampling and the augmentation")
    device: str = option("auto", "auto, cpu, cuda or mps")
    group_by: str = option("found", "what stays together: found, folder, none, a CSV file or a regular expression")
    validation: str | None = option(None, "text file with one held-out stem a line, in place of a choice")
    precision: Precision = option("auto", "auto, float32 or bfloat16")
    crop: int | None = option(None, "side of the training crops in pixels; default: planned")
    batch: int | None = option(None, "crops per optimiser step; default: planned")
    workers: int | None = option(None, "processes that draw batches, 0 for a thread; default: planned")
    devices: int | None = option(None, "processes that share a step, one a GPU; default: as torchrun or srun say, 1")
    tensorboard: bool = option(False, "also write event files for TensorBoard, into RUN/tensorboard")
    deterministic: bool = option(False, "the same weights each time, to the bit, on the same machine")
    memory: str | None = option(None, "memory to compute in, such as 2G; default: a share of what is free")
    checkpointing: bool = option(False, "recompute activations in the backward pass: less memory for a third more time")


@dataclass(frozen=True)
class AveragingOptions(ComputeOptions):
    """What several passes over an image are averaged over."""

    tta: str | None = option(None, "average over views of each image: flips, rotations, scales, or several with commas")
    ensemble: tuple[str, ...] | None = option(None, "another RUN or exported file to average with; once for each")


@dataclass(frozen=True)
class PredictOptions(AveragingOptions, ImageOptions):
    """Options of `keepmap predict`. Raises OptionError for numbers that cannot be."""

    overlay: bool = option(False, "also write OUT/STEM_overlay.png, the classes drawn over the image")
    polygons: bool = option(False, "also write OUT/STEM.geojson, the regions as polygons in the image's coordinates")
    probabilities: bool = option(False, "also write OUT/STEM.npy, class probabilities (K, H, W)")
    probability_type: ProbabilityType = option("float32", "float32, float16, or uint8: 255 times the probability")
    coarse: bool = option(False, "also write OUT/STEM_coarse.npy, the raw score map of an FCN before upsampling")
    review: bool = option(False, "also write OUT/review_first.csv: images by the Dice to be expected, worst first")
    table: str | None = option(None, "CSV file of areas, objects and their sizes for each image and class")
    smallest_object: int = option(0, "regions of fewer pixels get the class that surrounds them most")
    fill_holes: int = option(0, "holes of up to so many pixels get the class around them")
    resume: bool = option(False, "go on with a prediction into OUT that was stopped")
    runtime: RuntimeName | None = option(
        None, "for a RUN: torch, or onnx or openvino as exported into it; auto: the fastest here  [default: torch]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("--smallest-object", self.smallest_object), ("--fill-holes", self.fill_holes)):
            if value < 0:
                raise OptionError(f"{name} {value} cannot be.", found=str(value), expected="pixels, 0 for none")
        if self.probability_type != "float32" and not self.probabilities:
            raise OptionError("--probability-type says how probabilities are written.", do="add --probabilities")


TOKEN = "KEEPMAP_TOKEN"
"""The variable of the environment that may hold the token, which a list of processes would show in an argument."""


@dataclass(frozen=True)
class ServeOptions(ComputeOptions):
    """Options of `keepmap serve`."""

    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0 for all, which needs --token")
    port: int = option(8000, "port to listen on; 0: any that is free")
    token: str | None = option(None, f"secret that every client has to send; {TOKEN} in the environment stays unseen")
    names: str | None = option(None, "names under which a proxy makes it known, with commas")
    state: str | None = option(None, "folder for uploads and jobs; default: one in the cache for this model and port")
    queue: int = option(64, "predictions that may wait; others are told to come again")
    connections: int = option(128, "connections that may be open")
    receive: str = option("20s", "time to send a request, before which it may be slower than 100 kB a second")
    max_bytes: str = option("100M", "most bytes of a request")
    max_pixels: int = option(100_000_000, "most pixels of a file that has to be decoded whole")
    max_job_bytes: str = option("8G", "most bytes of a job")
    max_job_pixels: int = option(2_000_000_000, "most pixels of a job")
    decode_time: str = option("20s", "time in which an image has to be decoded")
    decode_memory: str = option("2G", "memory in which an image has to be decoded")
    keep: str = option("24h", "how long results of jobs are kept")


@dataclass(frozen=True)
class ScoreOptions(ImageOptions, LabelOptions):
    """Which scores are computed, and over what their intervals are. Raises OptionError."""

    metrics: Metrics = option("all", "all, or region: IoU, Dice, precision and recall only, in a fraction of the time")
    surface_tolerance: float = option(2.0, "pixels that two outlines may lie apart, for the surface Dice")
    group_by: str = option("found", "what stays together: found, folder, none, a CSV file or a regular expression")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.surface_tolerance < math.inf:
            raise OptionError(
                f"--surface-tolerance {self.surface_tolerance:g} cannot be.", found=f"{self.surface_tolerance:g}",
                expected="pixels, 0 or more",
            )


@dataclass(frozen=True)
class EvaluateOptions(AveragingOptions, ScoreOptions):
    """Options of `keepmap evaluate`."""

    html: str | None = option(None, "file for the report as a page with pictures")
    card: str | None = option(None, "file for a model card of the RUN with these scores, in the Hub's format")


@dataclass(frozen=True)
class CompareOptions(ScoreOptions):
    """Options of `keepmap compare`."""

    memory: str | None = option(None, "memory to compute in, such as 2G; default: a share of what is free")
    device: str = option("auto", "auto, cpu, cuda or mps")


@dataclass(frozen=True)
class ImportOptions:
    """Options of `keepmap import-weights`."""

    classes: str | None = option(None, "text file with a class a line: NAME in the order of ids, NAME,ID or NAME,R,G,B")
    mean: tuple[float, ...] | None = option(None, "subtracted from raw values: a number a channel, or one for all")
    std: tuple[float, ...] | None = option(None, "what raw values are divided by: a number a channel, or one for all")
    offline: bool = option(False, "fetch nothing: weights come from the cache or from files")


@dataclass(frozen=True)
class ExportOptions:
    """Options of `keepmap export`."""

    int8: bool = option(False, "quantise to int8, calibrated on crops of the training images: smaller and faster")
    calibration: str | None = option(None, "folder of images to calibrate int8 on, where the training images are gone")


@dataclass(frozen=True)
class BenchOptions:
    """Options of `keepmap bench`."""

    side: int = option(1024, "height and width in pixels of the image that is computed")
    rounds: int = option(3, "passes that are timed; the median counts")


@dataclass(frozen=True)
class DemoOptions:
    """Options of `keepmap demo`."""

    time: str = option("1m", "wall-clock time of the training")
    seed: int = option(0, "seed of the drawn images and of the training")


_TIME_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30}


def parse_time(text: str, name: str = "--time") -> float:
    """Seconds of "90", "90s", "10m" or "1.5h". Raises OptionError."""
    return _parse(text, _TIME_UNITS, name, "a time such as 90s, 10m or 2h")


def parse_size(text: str, name: str = "--memory") -> float:
    """Bytes of "500M" or "2G" (powers of 1024). Raises OptionError."""
    return _parse(text.removesuffix("B").removesuffix("i").upper(), _SIZE_UNITS, name, "a size such as 500M or 2G")


def _parse(text: str, units: dict[str, float], name: str, expected: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]?)", text.strip())
    if not match or match[2] not in units or float(match[1]) <= 0:
        raise OptionError(f"{name} {text} cannot be read.", found=text, expected=expected)
    return float(match[1]) * units[match[2]]
