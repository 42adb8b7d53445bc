"""The trainings behind docs/how-it-works.md: drawn images, one recipe, and the networks that are compared.

Measures nothing and draws nothing. Steps are counted, never seconds, so that a busy machine trains the same networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from keepmap.data.augment import Augmentation
from keepmap.data.drawn import CLASS_NAMES, draw_dataset
from keepmap.data.labels import LabelSet
from keepmap.data.sampling import Sampler
from keepmap.data.scan import scan
from keepmap.data.store import SampleStore
from keepmap.networks.catalogue import build_network
from keepmap.networks.layers import Scale
from keepmap.networks.network import Network
from keepmap.networks.unet import UNet, UNetConfig
from keepmap.protocols import Array, Silent
from keepmap.resources import resolve_precision
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from keepmap.weights.imagenet import begin_from_imagenet
from keepmap.weights.published import IMAGENET

CHANNELS, CLASSES = 3, len(CLASS_NAMES)
TRAIN, UNSEEN = (48, 11), (24, 12)
"""How many images are drawn, and the seed that they are drawn from: for training, and for every number and picture."""
SHOWN = 9
"""The unseen image that every picture shows."""
ENCODER = "efficientnet_lite0"
WIDTHS = (12, 24, 48, 96, 192)
SHALLOW = WIDTHS[:2]
WIDE = (22, 44)
"""Two levels with about the arithmetic of the five of WIDTHS."""


class UNetWithoutSkips(UNet):
    """A U-Net whose skips are zero: as many parameters as with them, and the way up knows the deepest level alone."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.zero = Scale(0.0)

    def _contract(self, values: list[Tensor]) -> list[Tensor]:
        *skips, deepest = super()._contract(values)
        return [*(self.zero(skip) for skip in skips), deepest]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; lengths in pixels."""

    steps: int
    batch: int = 8
    crop: int = 96
    learning_rate: float = 2e-3
    warm_up: int = 25
    seed: int = 0

    def rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to 0."""
        rising = min(1.0, (step + 1) / self.warm_up)
        return self.learning_rate * rising * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class Data:
    """The images to train on and those that no network has seen."""

    train: SampleStore
    unseen: SampleStore
    labels: LabelSet
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    cell: tuple[float, ...]
    """Mean raw value of each channel over the cells of the training images."""

    def shown(self) -> tuple[Array, Array]:
        """Image (3, H, W) uint8 and classes (H, W) of the image in every picture."""
        return self.unseen.get(SHOWN)


def draw_data(folder: Path) -> Data:
    """Draw both sets of images into `folder` and look at them."""
    stores = []
    for name, (count, seed) in (("train", TRAIN), ("unseen", UNSEEN)):
        images, masks = draw_dataset(folder / name, count=count, seed=seed)
        report = scan(images, masks, class_names=CLASS_NAMES, ignore="none", progress=Silent())
        report.raise_if_failed()
        stores.append(SampleStore(report.facts, cast(LabelSet, report.labels), 1 << 30))
    train, unseen = stores
    pairs = [train.get(index) for index in range(len(train))]
    pixels = np.concatenate([image.reshape(CHANNELS, -1) for image, _ in pairs], 1)
    cells = np.concatenate([image[:, classes > 0] for image, classes in pairs], 1)
    mean, deviation, cell = (tuple(map(float, v)) for v in (pixels.mean(1), pixels.std(1), cells.mean(1)))
    return Data(train, unseen, train.labels, mean, deviation, cell)


def unet(data: Data, seed: int, kind: type[UNet] = UNet, **options: Any) -> UNet:
    """A U-Net of three classes with the normalisation of the training images."""
    torch.manual_seed(seed)
    network = kind(UNetConfig(CHANNELS, CLASSES, **{"widths": WIDTHS, **options}))
    network.set_normalisation(data.mean, data.deviation)
    return network


def fcn(skips: int, start: Mapping[str, Tensor] | None = None) -> Network:
    """An FCN over EfficientNet-Lite0, from ImageNet weights, then with every tensor of `start` that fits.

    A score layer of a skip that `start` does not have is zero: the network begins as the coarser one.
    """
    torch.manual_seed(0)
    options = {"encoder": ENCODER, "skips": skips, "head_width": 128}
    network = build_network("fcn", channels=CHANNELS, classes=CLASSES, options=options)
    begin_from_imagenet(network, ENCODER, Silent())
    network.set_normalisation(IMAGENET[ENCODER].mean, IMAGENET[ENCODER].std)
    own = network.state_dict()
    fits = {name: t for name, t in (start or {}).items() if name in own and own[name].shape == t.shape}
    network.load_state_dict(fits, strict=False)
    return network


def train(network: Network, data: Data, recipe: Recipe) -> Network:
    """Train in place by `recipe` and return the network in eval mode."""
    how = Augmentation(
        scale=(0.8, 1.25), upright=False, invert=0.0, gain=0.2, shift=8.0, value_range=(0.0, 255.0), fill=data.mean,
        padding=0,
    )  # fmt: skip
    batches = Batches(data.train, Sampler(len(data.train), recipe.batch, recipe.seed), recipe.crop, how)
    engine = Engine(network, device="cpu", precision=resolve_precision("auto", "cpu"))
    for step, x, y in batches.stream(0):
        if step == recipe.steps:
            break
        torch.manual_seed(step)
        loss = engine.step(x, y, recipe.rate(step))
        if not math.isfinite(loss):
            raise ArithmeticError(f"the loss of step {step} is no number")
    return network.eval().to(memory_format=torch.contiguous_format)


def trained(name: str, folder: Path, build: Callable[[], Network], data: Data, recipe: Recipe) -> Network:
    """The network that `build` returns, trained by `recipe`; taken from `folder` where it was trained before."""
    network, file = build(), folder / f"{name}-{recipe.steps}-{recipe.seed}.safetensors"
    if file.exists():
        network.load_state_dict(load_file(file))
        return network.eval()
    train(network, data, recipe)
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, file)
    print(f"trained {file.stem}", flush=True)
    return network


PARTS: dict[str, tuple[type[UNet], dict[str, Any]]] = {
    "whole": (UNet, {}),
    "no_skips": (UNetWithoutSkips, {}),
    "shallow": (UNet, {"widths": SHALLOW}),
    "wide": (UNet, {"widths": WIDE}),
}
"""What the parts of a U-Net are for: the same network whole, without its skips, without its three deepest levels, and
again without these but widened to the arithmetic of the whole."""

UPSAMPLING: dict[str, dict[str, Any]] = {
    "kernel3": {"up_kernel": 3, "up_padding": 1, "up_output_padding": 1},
    "kernel4": {"up_kernel": 4, "up_padding": 1, "up_init": "bilinear"},
    "bilinear": {"up": "bilinear"},
}
"""Ways to double the extent beside the default, a transposed convolution of kernel 2: two of larger kernels, of which
the second begins as interpolation, and interpolation."""

SKIPS = {"fcn32": 0, "fcn16": 1, "fcn8": 2}
"""FCN-32s, 16s and 8s, and the shallower score maps that each fuses in."""


def train_parts(data: Data, folder: Path, recipe: Recipe, seeds: int) -> dict[str, list[Network]]:
    """The networks of PARTS, each with every seed."""
    networks: dict[str, list[Network]] = {name: [] for name in PARTS}
    for seed in range(seeds):
        for name, (kind, options) in PARTS.items():
            build, seeded = partial(unet, data, seed, kind, **options), replace(recipe, seed=seed)
            networks[name].append(trained(f"unet-{name}", folder, build, data, seeded))
    return networks


def train_upsampling(data: Data, folder: Path, recipe: Recipe) -> dict[str, Network]:
    """The networks of UPSAMPLING."""
    return {
        name: trained(f"unet-{name}", folder, partial(unet, data, 0, **options), data, recipe)
        for name, options in UPSAMPLING.items()
    }


def train_fcns(data: Data, folder: Path, recipe: Recipe) -> dict[str, Network]:
    """The networks of SKIPS, each from the one before, as in the paper."""
    networks: dict[str, Network] = {}
    state: dict[str, Tensor] = {}
    for name, skips in SKIPS.items():
        networks[name] = trained(name, folder, partial(fcn, skips, state), data, recipe)
        state = networks[name].state_dict()
    return networks
