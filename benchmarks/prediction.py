"""Prediction of large images: memory and time beside one pass and MONAI, bands and tiles against the whole, and kills.

usage: python benchmarks/prediction.py [large exact kills] [--sides 5000 10000 20000] [--monai 5000 10000] [--tries 20]
       [--draws 200] [--networks unet encoder_unet] [--memory 1G] [--whole 12G] [--again]
Weights are random, which changes neither memory nor time. Each row is a result of its own, so that a run that was
stopped goes on with the next; --again measures anew. MONAI's windows are computed by keepmap's own pass, and both in
float32, so that only the method differs; they are as large as the pass beside it. Their labels are held against those
of one pass over the whole image in float32 where that fits in --whole, else against keepmap's in float32. Where one
pass over the whole image fits in --whole, from file to file like the bands, both are measured in turn, three times. The
smallest image is measured once more at four times its height, whose peak is to be the same. Peak is the largest
resident size of a process, Python and torch included. Linux or macOS.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import tifffile
import torch

import keepmap
from common import RESULTS, write_result
from keepmap.data.drawn import draw_pair
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.masks import read_mask
from keepmap.geometry.tiles import round_up
from keepmap.inference.predictor import Predictor
from keepmap.networks.catalogue import build_network
from keepmap.options import Precision, WantedWay
from keepmap.resources import Stopwatch
from keepmap.runtime.torch_runtime import TorchRuntime
from memory import peak_of
from untrained import save_run

SIDE, TILE = 1024, 512
"""Pixels: of the pass that the others are compared with, and of the tiles of a TIFF."""
TURNS, TALL = 3, 4
"""Measurements of each way, and heights of the image whose peak is to be that of one."""
LABELS = LabelSet((0, 1, 2), ("background", "smooth cell", "granular cell"), None, default_colours(3))
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"widths": (16, 32, 64, 128, 256)},
    "encoder_unet": {"encoder": "efficientnet_lite0"},
}
DRAWN: tuple[tuple[str, dict[str, Any]], ...] = (
    ("unet", {"widths": (4, 6, 8)}), ("unet", {"widths": (4, 6, 8, 8), "up": "bilinear"}),
    ("unet", {"widths": (4, 6, 8), "attention": True}), ("encoder_unet", {"widths": (16, 12, 8, 6, 4)}),
    ("encoder_unet", {"encoder": "efficientnet_lite0", "widths": (16, 12, 8, 6, 4)}), ("fcn", {"head_width": 8}),
)  # fmt: skip
"""Networks for the comparison of parts with the whole."""
Part = Callable[[Path, argparse.Namespace], None]


def make_run(folder: Path, name: str) -> Path:
    """A RUN of an untrained network for the drawn images' three classes."""
    torch.manual_seed(0)
    network = build_network(name, channels=3, classes=3, options=NETWORKS[name])
    network.set_normalisation([60.0] * 3, [50.0] * 3)
    return save_run(folder, network, LABELS).path


def write_image(path: Path, side: int, times: int = 1) -> Path:
    """A tiled RGB TIFF (times * side, side, 3) uint8: one drawn field of cells, repeated and never held whole."""
    field, _ = draw_pair(seed=0, index=0)
    height, width = field.shape[:2]

    def tiles() -> Iterator[np.ndarray[Any, Any]]:
        for top in range(0, times * side, TILE):
            for left in range(0, side, TILE):
                rows, columns = (np.arange(start, start + TILE) for start in (top, left))
                yield np.ascontiguousarray(field[rows[:, None] % height, columns % width])

    if not path.exists():
        options: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "bigtiff": True}
        tifffile.imwrite(path, tiles(), shape=(times * side, side, 3), dtype=np.uint8, **options)
    return path


def child(task: str, run: Path, image: Path, out: Path, memory: str, precision: Precision) -> None:
    """What a process of its own does: `pass`, `keepmap`, `whole` or `monai`. Writes OUT.json with its seconds."""
    if task in ("keepmap", "whole"):
        watch = Stopwatch()
        lines = Lines()
        way: WantedWay = "pass" if task == "whole" else "auto"
        keepmap.predict(run, image, out, memory=memory, way=way, precision=precision, progress=lines)
        said = [line for line in lines.said if str(out) not in line]
        found: dict[str, Any] = {"seconds": watch.seconds, "said": said}
    else:
        predictor = keepmap.load(run, memory=memory, precision=precision)
        work = one_pass if task == "pass" else windows_of_monai
        found = {"seconds": work(predictor, image, out)}
    out.with_suffix(".json").write_text(json.dumps(found), encoding="utf-8")


class Lines(keepmap.protocols.Silent):
    """Progress that keeps its lines."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keep a line."""
        self.said.append(text.split(": ", 1)[-1])


def one_pass(predictor: Predictor, image: Path, out: Path) -> float:
    """Seconds of a pass of SIDE x SIDE pixels, the median of five."""
    pixels = np.ascontiguousarray(tifffile.imread(image)[:SIDE, :SIDE].transpose(2, 0, 1))[None]
    predictor.runtime.run(pixels)
    taken = []
    for _ in range(5):
        watch = Stopwatch()
        predictor.runtime.run(pixels)
        taken.append(watch.seconds)
    return float(np.median(taken))


def windows_of_monai(predictor: Predictor, image: Path, out: Path) -> float:
    """Seconds of reading an image, MONAI's sliding window (Gaussian, overlap 0.25) and writing its labels."""
    from monai.inferers import sliding_window_inference

    watch = Stopwatch()
    pixels = torch.from_numpy(tifffile.imread(image)).permute(2, 0, 1)[None].float()  # its sums have the type of x
    logits = sliding_window_inference(
        pixels, (SIDE, SIDE), 1, lambda x: torch.from_numpy(predictor.runtime.run(x.numpy(), "logits")), overlap=0.25,
        mode="gaussian", device=torch.device("cpu"),
    )  # fmt: skip
    np.save(out.with_suffix(".npy"), logits.argmax(1)[0].to(torch.uint8).numpy())
    return watch.seconds


def in_process(
    task: str, run: Path, image: Path, out: Path, memory: str, precision: Precision = "auto"
) -> dict[str, Any]:
    """The seconds and peak of `child`, and what it found."""
    _, peak = peak_of([sys.executable, __file__, "child", task, *map(str, (run, image, out)), memory, precision])
    return {"peak_mib": peak / 2**20, **json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))}


def large(folder: Path, options: argparse.Namespace) -> None:
    """Each network and side: keepmap beside one pass, and MONAI where it is asked for."""
    for name in options.networks:
        for side in options.sides:
            if known(result := f"prediction-{name}-{side}", options):
                continue
            run = folder / name if (folder / name).exists() else make_run(folder / name, name)
            small = write_image(folder / "small.tif", SIDE)
            image = write_image(folder / f"{side}.tif", side)
            one = in_process("pass", run, small, folder / "pass", options.memory)
            ours = in_process("keepmap", run, image, folder / f"{name}-{side}", options.memory)
            row = {"network": name, "side": side, "memory": options.memory, "pass": one, "keepmap": ours}
            rate = ours["seconds"] / side**2 / (one["seconds"] / SIDE**2)
            row["per_megapixel_ratio"] = rate
            peak, seconds = ours["peak_mib"], ours["seconds"]
            print(f"{name} {side}: {peak:.0f} MiB, {seconds:.0f} s, {rate:.2f} of a pass", flush=True)
            if fits(run, side, options.whole):
                row["beside_whole"] = beside_whole(folder, run, image, options)
                print(f"  whole: {row['beside_whole']}", flush=True)
            if side == min(options.sides):
                tall = write_image(folder / "tall.tif", side, TALL)
                row["tall"] = in_process("keepmap", run, tall, folder / f"{name}-tall", options.memory)
                print(f"  {TALL} times as high: {row['tall']}", flush=True)
                tall.unlink()
            if side in options.monai:
                row["float32"] = beside_monai(folder, run, image, options)
                print(f"  float32: {row['float32']}", flush=True)
            write_result(result, row)
            image.unlink()


def fits(run: Path, side: int, memory: str, precision: Precision = "auto") -> bool:
    """Whether one pass over the whole image takes no more than `memory`."""
    predictor = keepmap.load(run, memory=memory, precision=precision)
    return predictor.runtime.peak_bytes(side, side) <= predictor.memory_bytes


def beside_whole(folder: Path, run: Path, image: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The image in bands and in one pass over all of it, from file to file, in turn: seconds, and the share of them."""
    memory = {"keepmap": options.memory, "whole": options.whole}
    taken: dict[str, list[float]] = {task: [] for task in memory}
    for turn in range(TURNS):
        for task, allowed in memory.items():
            found = in_process(task, run, image, folder / f"{task}-{image.stem}-{turn}", allowed)
            taken[task].append(found["seconds"])
    return {**taken, "ratio": float(np.median(taken["keepmap"]) / np.median(taken["whole"]))}


def beside_monai(folder: Path, run: Path, image: Path, options: argparse.Namespace) -> dict[str, Any]:
    """keepmap and MONAI in float32, each with the share of labels that are not those of the reference."""
    both = {
        name: in_process(name, run, image, folder / f"float32-{name}", options.memory, "float32")
        for name in ("keepmap", "monai")
    }
    mine = read_mask(folder / "float32-keepmap" / image.name)
    masks = {"keepmap": mine, "monai": np.load(folder / "float32-monai.npy")}
    wanted, reference = mine, "keepmap"
    if fits(run, wanted.shape[0], options.whole, "float32"):
        in_process("whole", run, image, folder / "whole", options.whole, "float32")
        wanted, reference = read_mask(folder / "whole" / image.name), "one pass"
    for name, mask in masks.items():
        both[name]["labels_that_differ"] = float(np.mean(mask != wanted))
    return {"reference": reference, **both}


def exact(folder: Path, options: argparse.Namespace) -> None:
    """The largest difference of bands and of tiles to one pass, as a share of the largest logit, over random draws."""
    if known("prediction-exact", options):
        return
    random = np.random.default_rng(0)
    worst: dict[str, float] = {}
    for draw in range(options.draws):
        name, settings = DRAWN[random.integers(len(DRAWN))]
        for kind, difference in differences(name, settings, draw, random).items():
            worst[kind] = max(worst.get(kind, 0.0), difference)
    print(f"{options.draws} draws: {worst}", flush=True)
    write_result("prediction-exact", {"draws": options.draws, "largest_difference": worst})


def differences(name: str, settings: dict[str, Any], seed: int, random: np.random.Generator) -> dict[str, float]:
    """One draw of a size, a band, a tile and the offset of a grid -> the difference of each way to one pass.

    Infinite where a pixel was left out or is no number.
    """
    torch.manual_seed(seed)
    network = build_network(name, channels=1, classes=3, options=settings)
    network.set_normalisation([100.0], [60.0])
    runtime = TorchRuntime(network, device="cpu", precision="float32")
    predictor = Predictor(runtime, LABELS, memory_bytes=2**40)
    stride, reach = runtime.stride, runtime.reach
    size = int(random.integers(1, 40 * stride)), int(random.integers(1, 12 * stride))
    pixels = random.integers(0, 255, (1, *size), dtype=np.uint8)
    whole = runtime.run(pixels[None], "logits")[0]
    halo = round_up(reach[0], stride), round_up(reach[1], stride)
    window = tuple(min(sum(halo) + stride * int(random.integers(1, 6)), round_up(side, stride)) for side in size)
    way = predictor.plan_way(*size)
    band = stride * int(random.integers(1, 9))
    columns = {"window": (way.window[0], window[1]), "halo": (way.halo[0], halo)}
    ways = {
        "bands": replace(way, kind="bands", band=band),
        "bands in columns": replace(way, kind="bands", band=band, **columns),
        "tiles": replace(way, kind="tiles", window=window, halo=(halo, halo)),
    }
    moved_by = [stride * int(random.integers(0, side // (2 * stride) + 1)) for side in size]
    moved_by[int(random.integers(2))] = 0  # along one axis, so that more lies beyond the context
    top, left = moved_by
    found = {}
    for kind, each in ways.items():
        values = np.full(whole.shape, np.nan, np.float32)
        for part, logits in predictor._parts(lambda w: pixels[(slice(None), *w)], pixels.shape, "logits", "x", each):
            values[(slice(None), *part)] = logits
        found[kind] = float(np.abs(values - whole).max())
    if top < size[0] and left < size[1]:
        moved = runtime.run(pixels[None, :, top:, left:], "logits")[0]
        first = halo[0] * (top > 0), halo[0] * (left > 0)
        apart = np.abs(moved - whole[:, top:, left:])[:, first[0] :, first[1] :]
        found["another grid"] = float(apart.max(initial=0.0))
    scale = float(np.abs(whole).max())
    return {kind: float(np.nan_to_num(each / scale, nan=np.inf, posinf=np.inf)) for kind, each in found.items()}


def kills(folder: Path, options: argparse.Namespace) -> None:
    """A large job is killed at random moments and goes on: the bytes of its outputs against those of one in peace."""
    if known("prediction-kills", options):
        return
    run, image = make_run(folder / "kills", "unet"), write_image(folder / "kills.tif", options.kill_side)
    watch = Stopwatch()
    job(run, image, folder / "whole", options.memory).wait()
    longest, random = watch.seconds, np.random.default_rng(0)
    expected = (folder / "whole" / "kills.tif").read_bytes()
    same = entered = 0
    for number in range(options.tries):
        out = folder / f"kill-{number}"
        process = job(run, image, out, options.memory)
        time.sleep(float(random.uniform(0.1, 1.0)) * longest)
        process.kill()
        process.wait()
        whole = (out / "kills.tif").exists()
        again = job(run, image, out, options.memory, "--resume")
        said = again.communicate()[0].decode()
        entered += "goes on at" in said
        names = {path.name for path in out.iterdir()}
        found = (out / "kills.tif").read_bytes() == expected and names == {"kills.tif", "prediction.jsonl"}
        same += found and again.returncode == 0
        moment, bytes_are = "after the end" if whole else "on the way", "the same" if found else "OTHERS"
        print(f"kill {number}: {moment}, its bytes are {bytes_are}", flush=True)
    figures = {"side": options.kill_side, "tries": options.tries, "same": same, "entered_on_the_way": entered}
    write_result("prediction-kills", {**figures, "seconds": longest})


def job(run: Path, image: Path, out: Path, memory: str, *more: str) -> subprocess.Popen[bytes]:
    """`keepmap predict` in bands, which keeps how far it is every fifth of a second."""
    words = ["predict", str(run), str(image), "-o", str(out), "--way", "bands", "--memory", memory, *more]
    code = (
        "import sys; from keepmap.inference import files; files._SAVED_EVERY = 0.2\n"
        f"from keepmap.cli.main import main; sys.exit(main({words!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def known(result: str, options: argparse.Namespace) -> bool:
    """Whether a result is there and is not wanted anew."""
    there = (RESULTS / f"{result}.json").exists() and not options.again
    if there:
        print(f"{result}: measured already", flush=True)
    return there


PARTS: dict[str, Part] = {"large": large, "exact": exact, "kills": kills}


def main() -> None:
    """Measure the parts that are asked for."""
    if sys.argv[1:2] == ["child"]:
        task, run, image, out, memory, precision = sys.argv[2:]
        child(task, Path(run), Path(image), Path(out), memory, cast(Precision, precision))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10_000, 20_000])
    parser.add_argument("--monai", type=int, nargs="*", default=[5000, 10_000])
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--whole", default="12G")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--kill-side", type=int, default=4000)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for part in options.parts:
            PARTS[part](Path(name), options)


if __name__ == "__main__":
    main()
