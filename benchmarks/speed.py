"""Training images per second and inference megapixels per second of the classic U-Net, against a plain eager loop.

usage: python benchmarks/speed.py [--rounds 4]
Both sides start from the same weights and see the same arrays in turn, A B A B; the ratio is that of the medians.
A is keepmap's own training step and Runtime, in the precision that it chooses here; B is plain_unet.py in float32,
contiguous, in a process of its own, so that nothing that keepmap sets reaches it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

import keepmap
from common import write_result
from keepmap.networks.describe import multiply_adds
from keepmap.networks.network import Network
from keepmap.resources import Stopwatch, resolve_precision, thread_count, use_cpu
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training.engine import Engine
from plain_unet import PlainUNet, plain_loss

CLASSES, BATCH, CROP, SIDE = 2, 4, 256, 512
MEAN, DEVIATION, RATE = 118.0, 58.0, 1e-4


def seconds_in_turn(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each call, A B A B, after one of each to warm up."""
    ours(), theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, row in zip((ours, theirs), times, strict=True):
            watch = Stopwatch()
            call()
            row.append(watch.seconds)
    return times


def make_network() -> Network:
    """keepmap's network, the same in both processes."""
    torch.manual_seed(0)
    network = keepmap.build_model("unet", channels=3, classes=CLASSES)
    network.set_normalisation([MEAN] * 3, [DEVIATION] * 3)
    return network


def make_plain() -> PlainUNet:
    """The plain network with the weights of keepmap's."""
    plain = PlainUNet(CLASSES)
    plain.take_over({name: t for name, t in make_network().state_dict().items() if name not in ("mean", "std")})
    return plain


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Raw values and classes to train on."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, 3, CROP, CROP, generator=generator) * 255
    return x, torch.randint(CLASSES, (BATCH, CROP, CROP), generator=generator)


def make_image() -> np.ndarray[Any, Any]:
    """An image to predict."""
    return np.random.default_rng(0).integers(0, 256, (1, 3, SIDE, SIDE), np.uint8)


class PlainLoop:
    """The plain loop in a process of its own: each call does one thing there and returns what came of it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=serve_plain, args=(theirs,), daemon=True)
        self._process.start()

    def __call__(self, task: str) -> Any:
        """Do "train" (a step) or "predict" (labels of one image)."""
        self._ours.send(task)
        return self._ours.recv()


def serve_plain(pipe: Connection) -> None:
    """Take one training step or predict one image at a time, as told, until the other side is gone."""
    torch.set_num_threads(thread_count())
    plain, (x, y), image = make_plain(), make_batch(), make_image()
    optimiser = torch.optim.AdamW(plain.parameters(), RATE, weight_decay=1e-2, fused=True)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if task == "train":
            plain.train()
            loss = plain_loss(plain((x - MEAN) / DEVIATION), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pipe.send(None)
        else:
            plain.eval()
            with torch.no_grad():
                pipe.send(plain((torch.from_numpy(image).float() - MEAN) / DEVIATION).argmax(1).numpy())


def difference() -> float:
    """Largest difference of the logits in float32, as a share of the largest logit."""
    x = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        a, b = make_network().eval()(x), make_plain().eval()((x - MEAN) / DEVIATION)
    return float((a - b).abs().max() / b.abs().max())


def measure_training(precision: str, rounds: int) -> dict[str, Any]:
    """Images per second of both, batch 4 at 256 x 256, forward, loss, backward and optimiser."""
    engine = Engine(make_network(), device="cpu", precision=precision)
    (x, y), plain = make_batch(), PlainLoop()
    ours, theirs = seconds_in_turn(lambda: engine.step(x, y, RATE), lambda: plain("train"), rounds)
    return compare("images per second", BATCH, ours, theirs)


def measure_inference(precision: str, rounds: int) -> dict[str, Any]:
    """Megapixels per second of both, one image of 512 x 512, from raw values to labels."""
    network, image, plain = make_network().eval(), make_image(), PlainLoop()
    runtime = TorchRuntime(network, device="cpu", precision=precision)
    ours, theirs = seconds_in_turn(lambda: runtime.run(image, "labels"), lambda: plain("predict"), rounds)
    agree = float((runtime.run(image, "labels") == plain("predict")).mean())
    figures = compare("megapixels per second", SIDE**2 / 1e6, ours, theirs)
    gflop = 2 * multiply_adds(network, (SIDE, SIDE)) / 1e9
    return {**figures, "equal_labels": agree, "gflop": gflop, "gflop_per_second": gflop / statistics.median(ours)}


def compare(unit: str, amount: float, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Rates of both and their ratio, from medians; all the seconds are kept."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "unit": unit, "keepmap": amount / a, "plain": amount / b, "ratio": b / a,
        "keepmap_seconds": [round(s, 3) for s in ours], "plain_seconds": [round(s, 3) for s in theirs],
    }  # fmt: skip


def matrix_product(dtype: torch.dtype, side: int = 2048) -> float:
    """GFLOP/s of a square matrix product, the yardstick of this machine; best of five."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    times = []
    for _ in range(6):
        watch = Stopwatch()
        _ = a @ b
        times.append(watch.seconds)
    return 2 * side**3 / min(times) / 1e9


def main() -> None:
    """Measure and write results/speed.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    rounds = parser.parse_args().rounds
    use_cpu()
    precision = resolve_precision("auto", "cpu")
    write_result(
        "speed",
        {
            "precision": precision,
            "logit_difference": difference(),
            "training": measure_training(precision, rounds),
            "inference": measure_inference(precision, 2 * rounds),
            "matrix_product": {str(d).split(".")[1]: matrix_product(d) for d in (torch.float32, torch.bfloat16)},
        },
    )


if __name__ == "__main__":
    main()
