"""Training images per second of the whole loop against the plain eager float32 loop, and what the loop spends beside.

usage: python benchmarks/throughput.py [--rounds 4] [--steps 6]
Equal settings: the same function (the classic U-Net; the U-Net over ResNet-34 of segmentation_models_pytorch), batch 4
of 256 x 256, scaled and flipped crops with another light, cross-entropy + Dice, AdamW, an exponential average of the
weights. In turn, A B A B, --steps of each a turn. A is keepmap's own batches and Engine, in the precision that it
chooses here; B draws its crops between its steps, as most repositories do, contiguous, in a process of its own.
Beside: the share of A's time that is neither forward pass nor backward pass nor optimiser.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from common import write_result
from keepmap.data.augment import Augmentation
from keepmap.data.sampling import Sampler
from keepmap.networks.describe import multiply_adds
from keepmap.planning.recipe import OptimiserConfig
from keepmap.protocols import Silent
from keepmap.resources import Stopwatch, resolve_precision, thread_count, use_cpu
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from peers import classic, declare_operators, unet_resnet34
from plain_unet import plain_loss
from speed import matrix_product, seconds_in_turn

BATCH, CROP, MEAN, DEVIATION, RATE, DECAY = 4, 256, 118.0, 58.0, 1e-4, 0.99
IMAGES, SIDES = 16, (360, 480)
PAIRS = {"classic U-Net": classic, "U-Net over ResNet-34": unet_resnet34}
Sample = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]


class Drawn:
    """Images of noise and masks of rectangles in memory, in the place of decoded files."""

    def __init__(self) -> None:
        noise = np.random.default_rng(0)
        self.samples: list[Sample] = []
        for _ in range(IMAGES):
            classes = np.zeros(SIDES, np.int16)
            for y, x in noise.integers(0, SIDES, (20, 2)):
                classes[y : y + 40, x : x + 40] = 1
            self.samples.append((noise.integers(0, 256, (3, *SIDES), np.uint8), classes))

    def __len__(self) -> int:
        return IMAGES

    def get(self, index: int) -> Sample:
        """Image (3, H, W) and classes (H, W)."""
        return self.samples[index]


class Inside:
    """Seconds in forward pass, backward pass and optimiser of an engine, added up."""

    def __init__(self, engine: Engine) -> None:
        self.seconds, self._watch = 0.0, Stopwatch()
        engine.network.register_forward_pre_hook(lambda *_: self._begin())
        engine.network.register_forward_hook(lambda *_: self._end())
        engine.optimiser.register_step_pre_hook(lambda *_: self._begin())
        engine.optimiser.register_step_post_hook(lambda *_: self._end())
        engine.fabric.backward = self._timed(engine.fabric.backward)  # type: ignore[method-assign]

    def _begin(self) -> None:
        self._watch = Stopwatch()

    def _end(self) -> None:
        self.seconds += self._watch.seconds

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            self._begin()
            result = call(*arguments, **options)
            self._end()
            return result

        return timed


def our_batches() -> Batches:
    """keepmap's crops, with what its plan says by default."""
    how = Augmentation(
        scale=(0.6, 1.7), upright=False, invert=0.0, gain=0.3, shift=25.0, value_range=(0.0, 255.0),
        fill=(MEAN,) * 3, padding=15,
    )  # fmt: skip
    return Batches(Drawn(), Sampler(IMAGES, BATCH, 0), CROP, how)  # type: ignore[arg-type]


def our_engine(network: nn.Module, precision: str) -> Engine:
    """keepmap's training step, the average of the weights included."""
    return Engine(network, device="cpu", precision=precision, optimiser=OptimiserConfig(averaging=DECAY))


def take_our_steps(engine: Engine, batches: Batches, steps: int) -> None:
    """Some steps, the first batch drawn anew, so that nothing was prepared while the other side was at work."""
    for step, x, y in batches.stream(0, Silent()):
        engine.step(x, y, RATE)
        if step + 1 == steps:
            break


def plain_crop(image: Tensor, classes: Tensor, draw: random.Random) -> tuple[Tensor, Tensor]:
    """A crop (3, CROP, CROP), normalised, and its classes: another size, flips, transposition, another light."""
    size = min(*classes.shape, int(CROP / draw.uniform(0.6, 1.7)))
    top, left = (draw.randint(0, side - size) for side in classes.shape)
    x, y = (values[..., top : top + size, left : left + size] for values in (image, classes))
    x = F.interpolate(x[None].float(), (CROP, CROP), mode="bilinear", antialias=True)[0]
    y = F.interpolate(y[None, None].float(), (CROP, CROP), mode="nearest")[0, 0].long()
    for axis in (-1, -2):
        if draw.random() < 0.5:
            x, y = x.flip(axis), y.flip(axis)
    if draw.random() < 0.5:
        x, y = x.transpose(1, 2), y.t()
    x = (x * draw.uniform(0.7, 1.3) + draw.uniform(-25, 25)).clamp(0, 255)
    return (x - MEAN) / DEVIATION, y


class PlainLoop:
    """The plain loop on one network: steps on crops that are drawn between them."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.train()
        self.optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2, fused=True)
        average = get_ema_multi_avg_fn(DECAY)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(network, multi_avg_fn=average)
        self.samples = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in Drawn().samples]

    def take_steps(self, steps: int) -> None:
        """Some steps."""
        draw = random.Random(0)
        for _ in range(steps):
            crops = [plain_crop(*draw.choice(self.samples), draw) for _ in range(BATCH)]
            x, y = (torch.stack(values) for values in zip(*crops, strict=True))
            loss = plain_loss(self.network(x), y)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.average.update_parameters(self.network)


def serve_plain(pipe: Connection, name: str) -> None:
    """In a process of its own: take as many steps as told, for ever."""
    torch.set_num_threads(thread_count())
    declare_operators()
    loop = PlainLoop(PAIRS[name]()[1])
    while True:
        loop.take_steps(pipe.recv())
        pipe.send(None)


def measure(name: str, precision: str, rounds: int, steps: int) -> dict[str, Any]:
    """Images per second of both, their ratio and its range, and the share of our time beside the computing."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=serve_plain, args=(theirs, name), daemon=True)
    process.start()
    network = PAIRS[name]()[0]
    network.set_normalisation([MEAN] * 3, [DEVIATION] * 3)
    engine, batches = our_engine(network, precision), our_batches()
    inside, within = Inside(engine), []

    def ours() -> None:
        before = inside.seconds
        take_our_steps(engine, batches, steps)
        within.append(inside.seconds - before)

    def plain() -> None:
        pipe.send(steps)
        pipe.recv()

    mine, others = seconds_in_turn(ours, plain, rounds)
    process.terminate()
    process.join()
    a, b = statistics.median(mine), statistics.median(others)
    each = [theirs / ours for ours, theirs in zip(mine, others, strict=True)]
    gflop = 6 * multiply_adds(network, (CROP, CROP)) * BATCH * steps / 1e9
    return {
        "keepmap": BATCH * steps / a, "plain": BATCH * steps / b, "ratio": b / a, "range": [min(each), max(each)],
        "beside": 1 - sum(within[1:]) / sum(mine), "gflop_per_second": gflop / a,
        "keepmap_seconds": [round(s, 3) for s in mine], "plain_seconds": [round(s, 3) for s in others],
    }  # fmt: skip


def main() -> None:
    """Measure and write results/throughput.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6)
    wanted = parser.parse_args()
    use_cpu()
    declare_operators()
    precision = resolve_precision("auto", "cpu")
    networks = {name: measure(name, precision, wanted.rounds, wanted.steps) for name in PAIRS}
    yardstick = matrix_product(getattr(torch, precision))
    figures = {"precision": precision, "batch": BATCH, "crop": CROP}
    write_result("throughput", {**figures, "networks": networks, "matrix_product": yardstick})


if __name__ == "__main__":
    main()
