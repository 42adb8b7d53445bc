"""Scores of 1,000 pairs of 512 x 512 with 11 classes, against a plain bincount loop and MONAI's surface metrics.

usage: python benchmarks/metrics.py [speed memory] [--pairs 1000] [--monai 20]
The pairs are drawn: patches of 11 classes, a twentieth of the pixels ignored, about nine in ten of the others right.
Times are of one core; ours and the others take turns. MONAI is given one-hot tensors, whose making does not count.
Memory is the largest resident size of a process that counts and scores a tenth of the pairs, and of one that does all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from common import write_result
from keepmap.metrics.scoring import choose_resampling, score
from keepmap.metrics.surfaces import SURFACE_TOLERANCE, hausdorff95, near_counts, outline_distances, surface_dice
from keepmap.metrics.surfaces import surface_distance as mean_distance
from keepmap.metrics.tally import Judging, Tally
from keepmap.resources import Stopwatch, peak_memory

if TYPE_CHECKING:
    import torch

CLASSES, SIDE, DRAWN = 11, 512, 8
Labels = npt.NDArray[np.int16]
Pair = tuple[Labels, Labels]


def draw_pairs(side: int = SIDE, count: int = DRAWN) -> list[Pair]:
    """Truth with -1 where ignored, and prediction, (side, side) each."""
    random = np.random.default_rng(0)

    def field() -> npt.NDArray[np.float64]:
        return np.stack([ndimage.gaussian_filter(random.normal(size=(side, side)), 16) for _ in range(CLASSES)])

    pairs = []
    for _ in range(count):
        scene = field()
        truth = scene.argmax(0).astype(np.int16)
        truth[random.random((side // 8, side // 8)).repeat(8, 0).repeat(8, 1) < 0.05] = -1
        pairs.append((truth, (scene + 0.1 * field()).argmax(0).astype(np.int16)))
    return pairs


def stream(drawn: list[Pair], count: int) -> Iterator[Pair]:
    """As many different pairs as asked for: the drawn ones, shifted around."""
    for index in range(count):
        truth, prediction = drawn[index % len(drawn)]
        shift = 37 * (index // len(drawn))
        yield np.roll(truth, shift, 1), np.roll(prediction, shift, 1)


def plain_matrix(matrix: npt.NDArray[np.int64], truth: Labels, prediction: Labels) -> None:
    """The loop body that most repositories have: bincount of K x truth + prediction, where the truth is a class."""
    known = (truth >= 0) & (truth < CLASSES)
    codes = CLASSES * truth[known].astype(int) + prediction[known]
    matrix += np.bincount(codes, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def barest_matrix(matrix: npt.NDArray[np.int64], truth: Labels, prediction: Labels) -> None:
    """The least that numpy can do: ignored pixels fall into codes that are dropped, no check."""
    codes = (truth + np.int16(1)) * np.int16(CLASSES) + prediction
    counts = np.bincount(codes.reshape(-1), minlength=CLASSES * (CLASSES + 1))
    matrix += counts[CLASSES:].reshape(CLASSES, CLASSES)


def new_tally(shapes: bool) -> Tally:
    """A tally of the drawn classes."""
    return Tally(tuple(map(str, range(CLASSES))), Judging(shapes, regions=True))


def region(drawn: list[Pair], count: int) -> dict[str, Any]:
    """Seconds a pair of the three ways, and whether they count the same."""
    tally, matrices = new_tally(False), [np.zeros((CLASSES, CLASSES), np.int64) for _ in range(2)]
    ways: list[Callable[[Labels, Labels], None]] = [
        lambda t, p: tally.add("", t, p), lambda t, p: plain_matrix(matrices[0], t, p),
        lambda t, p: barest_matrix(matrices[1], t, p),
    ]  # fmt: skip
    seconds, random = [0.0] * len(ways), np.random.default_rng(0)
    for pair in stream(drawn, count):
        for place in random.permutation(len(ways)):
            watch = Stopwatch()
            ways[place](*pair)
            seconds[place] += watch.seconds
    assert all(np.array_equal(tally.matrix.matrix, matrix) for matrix in matrices)
    ours, plain, barest = (value / count for value in seconds)
    return {"ours": ours, "plain": plain, "barest": barest, "ratio": plain / ours, "ratio_barest": barest / ours}


def everything(drawn: list[Pair], count: int) -> dict[str, Any]:
    """Seconds a pair of all numbers, and of the scores of all pairs with their intervals."""
    tally, seconds = new_tally(True), []
    for index, pair in enumerate(stream(drawn, count)):
        watch = Stopwatch()
        tally.add(str(index), *pair)
        seconds.append(watch.seconds)
    watch = Stopwatch()
    scores = score(tally, choose_resampling(tally.stems, {stem: stem for stem in tally.stems}, asked=False))
    return {
        "seconds": float(np.mean(seconds)), "slowest": max(seconds), "intervals_seconds": watch.seconds,
        "mean_iou": scores.mean_iou, "pairs": count,
    }  # fmt: skip


def one_hot(classes: Labels, count: int) -> torch.Tensor:
    """(1, count, H, W) float32."""
    import torch

    return torch.from_numpy((classes[None] == np.arange(count)[:, None, None]).astype(np.float32))[None]


def surfaces_of_monai(truth: torch.Tensor, prediction: torch.Tensor) -> npt.NDArray[np.float64]:
    """(3, K): Hausdorff 95 %, symmetric surface distance, surface Dice."""
    from monai import metrics

    both: dict[str, Any] = {"include_background": True}
    tolerances = [SURFACE_TOLERANCE] * truth.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = (
            metrics.compute_hausdorff_distance(prediction, truth, percentile=95, **both),
            metrics.compute_average_surface_distance(prediction, truth, symmetric=True, **both),
            metrics.compute_surface_dice(prediction, truth, tolerances, **both),
        )
    return np.stack([values[0].numpy() for values in found]).astype(np.float64)


def surfaces_of_ours(truth: Labels, prediction: Labels, classes: int) -> npt.NDArray[np.float64]:
    """The same, without objects and boundary F, which MONAI does not have."""
    distances = outline_distances(truth, prediction, classes)
    return np.stack([
        [hausdorff95(pair) for pair in distances], [mean_distance(pair) for pair in distances],
        surface_dice(near_counts(distances, SURFACE_TOLERANCE)),
    ])  # fmt: skip


def against_monai(drawn: list[Pair], count: int) -> dict[str, Any]:
    """Seconds a pair of MONAI's three numbers, of ours of the same, and the largest difference of the classes.

    In a frame of a class of its own, because MONAI takes the border of the image for an outline and we do not, and
    without ignored pixels, which it does not know.
    """
    seconds, largest = [0.0, 0.0], 0.0
    for truth, prediction in stream(drawn, count):
        framed = [
            np.pad(plane, 1, constant_values=CLASSES) for plane in (np.where(truth < 0, prediction, truth), prediction)
        ]
        tensors = [one_hot(plane, CLASSES + 1) for plane in framed]
        watch = Stopwatch()
        ours = surfaces_of_ours(framed[0], framed[1], CLASSES + 1)
        seconds[0] += watch.seconds
        watch = Stopwatch()
        theirs = surfaces_of_monai(*tensors)
        seconds[1] += watch.seconds
        largest = max(largest, float(np.nanmax(np.abs(ours - theirs)[:, :CLASSES])))
    ours_seconds, monai = (value / count for value in seconds)
    return {"ours": ours_seconds, "monai": monai, "ratio": monai / ours_seconds, "difference": largest, "pairs": count}


def peak_mib(drawn: list[Pair], count: int) -> float:
    """The most that Python and numpy hold while so many pairs are counted, in MiB."""
    tracemalloc.start()
    tally = new_tally(True)
    for index, pair in enumerate(stream(drawn, count)):
        tally.add(str(index), *pair)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def resident_mib(count: int, side: int) -> list[float]:
    """The most that a process of its own holds before it counts so many pairs, and after it has scored them, in MiB."""
    command = [sys.executable, __file__, "resident", "--pairs", str(count), "--side", str(side)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [float(word) for word in said.split()]


def print_resident(count: int, side: int) -> None:
    """What the process does. Raises RuntimeError where the system does not tell."""
    drawn = draw_pairs(side)
    before = peak_memory()
    everything(drawn, count)
    after = peak_memory()
    if before is None or after is None:
        raise RuntimeError("this system does not tell the largest resident size")
    print(before / 2**20, after / 2**20)


def speed(pairs: int, monai: int) -> dict[str, Any]:
    """Seconds, and what Python holds."""
    import torch

    torch.set_num_threads(1)
    drawn = draw_pairs()
    return {
        "side": SIDE, "classes": CLASSES, "region": region(drawn, pairs),
        "all": everything(drawn, pairs), "monai": against_monai(drawn, monai),
        "peak_mib": {str(count): peak_mib(drawn, count) for count in (pairs // 20, pairs // 4)},
    }  # fmt: skip


def memory(pairs: int, side: int) -> dict[str, Any]:
    """Resident sizes of processes."""
    return {"side": side, "resident_mib": {str(count): resident_mib(count, side) for count in (pairs // 10, pairs)}}


def main() -> None:
    """Measure and write results/metrics.json and results/metrics-memory.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["speed", "memory"], choices=["speed", "memory", "resident"])
    for name, default in (("pairs", 1000), ("monai", 20), ("side", SIDE)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if "resident" in options.parts:
        print_resident(options.pairs, options.side)
        return
    if "speed" in options.parts:
        write_result("metrics", speed(options.pairs, options.monai))
    if "memory" in options.parts:
        write_result("metrics-memory", memory(options.pairs, options.side))


if __name__ == "__main__":
    main()
