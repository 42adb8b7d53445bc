"""Prediction from file to file with the classic U-Net: keepmap, the eager float32 loop, the bare network in OpenVINO.

usage: python benchmarks/export.py [--images 40] [--rounds 3] [--trained RUN IMAGES MASKS]
All sides have the same weights and see images of 512 x 512 in turn, A B C D; ratios are those of the medians. keepmap
reads, normalises, predicts and writes PNG by `predict`, from OpenVINO exports in bfloat16 and int8, and with PyTorch;
the eager loop reads and writes the same files around passes in a process of its own; the bare loop only computes
logits of arrays that are in memory. With --trained, the mean IoU of a trained run and of its exports on images with
masks.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from PIL import Image

import keepmap
from common import write_result
from keepmap.artefacts import parity
from keepmap.data.labels import LabelSet, default_colours
from keepmap.resources import Stopwatch, has_bfloat16, resolve_precision, thread_count, use_cpu
from keepmap.runs import RunFolder
from speed import CLASSES, PlainLoop, make_network, matrix_product
from untrained import save_run

SIDE = 512
HINTS = {"float32": "f32", "bfloat16": "bf16"}


def make_images(folder: Path, count: int, side: int) -> list[Path]:
    """Smooth noise as RGB PNG, so that reading costs what it costs of photographs."""
    folder.mkdir()
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (side // 8, side // 8, 3), np.uint8))
        paths.append(folder / f"{number:03}.png")
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def make_run(path: Path, network: Any) -> RunFolder:
    """A RUN of `network` as it is."""
    labels = LabelSet(tuple(range(CLASSES)), tuple(map(str, range(CLASSES))), None, default_colours(CLASSES))
    return save_run(path, network, labels)


def bare_loop(file: Path, arrays: list[Any], precision: str) -> None:
    """The network alone, one array after the other, as OpenVINO's users write it."""
    hints = {"INFERENCE_PRECISION_HINT": HINTS[precision], "INFERENCE_NUM_THREADS": thread_count()}
    request = openvino.Core().compile_model(file, "CPU", hints).create_infer_request()
    for array in arrays:
        request.infer({"image": array}, share_inputs=True, share_outputs=True)


def eager_loop(plain: Callable[[str], Any], paths: list[Path], out: Path) -> None:
    """Read each file, a pass of the plain network in eager float32 over an image of that size, write the labels."""
    for path in paths:
        np.asarray(Image.open(path))
        labels = plain("predict")[0].astype(np.uint8)
        Image.fromarray(labels).save(out / path.name)


def in_turn(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            watch = Stopwatch()
            call()
            seconds[name].append(watch.seconds)
    return seconds


def measure(scratch: Path, network: Any, plain: Callable[[str], Any], images: int, side: int, rounds: int) -> Any:
    """Seconds of all sides for all images, the ratios, and the share of equal labels of int8."""
    precision = resolve_precision("auto", "cpu")
    paths = make_images(scratch / "images", images, side)
    run = make_run(scratch / "run", network)
    exact = keepmap.export(run.path, "openvino", scratch / "exact")
    parity.AGREEMENT = 0.0  # classes of random weights are apart by less than int8 can tell; see --trained
    small = keepmap.export(run.path, "openvino", scratch / "int8", int8=True, calibration=str(scratch / "images"))
    arrays = [np.ascontiguousarray(np.asarray(Image.open(p)).transpose(2, 0, 1)[None], np.float32) for p in paths]
    (scratch / "eager").mkdir()
    calls: dict[str, Callable[[], Any]] = {
        "predict": lambda: keepmap.predict(exact.path, paths, scratch / "a"),
        "predict_int8": lambda: keepmap.predict(small.path, paths, scratch / "b"),
        "predict_torch": lambda: keepmap.predict(run.path, paths, scratch / "c"),
        "eager": lambda: eager_loop(plain, paths, scratch / "eager"),
        "bare": lambda: bare_loop(exact.path, arrays, precision),
    }
    calls["predict"]()
    seconds = in_turn(calls, rounds)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "images": images, "side": side, "precision": precision,
        "seconds": {name: [round(s, 3) for s in times] for name, times in seconds.items()},
        "faster_than_eager": middle["eager"] / middle["predict"],
        "torch_faster_than_eager": middle["eager"] / middle["predict_torch"],
        "over_bare": middle["predict"] / middle["bare"],
        "int8_faster": middle["predict"] / middle["predict_int8"],
        "int8_equal_labels": small.parity.agreement, "logit_difference": exact.parity.difference,
    }  # fmt: skip


def trained_scores(scratch: Path, run: str, images: str, masks: str) -> dict[str, Any]:
    """Mean IoU of a trained run, of its export and of its int8 export."""
    places = {"run": Path(run)}
    for name, int8 in (("exported", False), ("int8", True)):
        places[name] = keepmap.export(run, "openvino", scratch / f"trained-{name}", int8=int8).path
    return {name: keepmap.evaluate(place, images, masks).mean_iou for name, place in places.items()}


def main() -> None:
    """Measure and write results/export.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trained", nargs=3, metavar=("RUN", "IMAGES", "MASKS"))
    told = parser.parse_args()
    use_cpu()
    scratch = Path(tempfile.mkdtemp())
    try:
        figures = measure(scratch, make_network().eval(), PlainLoop(), told.images, SIDE, told.rounds)
        types = [torch.float32, *([torch.bfloat16] if has_bfloat16("cpu") else [])]
        yardstick = {str(dtype).split(".")[1]: matrix_product(dtype) for dtype in types}
        scores = trained_scores(scratch, *told.trained) if told.trained else None
    finally:
        shutil.rmtree(scratch)
    write_result(
        "export",
        {**figures, "trained": scores, "openvino": openvino.__version__.split("-")[0], "matrix_product": yardstick},
    )


if __name__ == "__main__":
    main()
