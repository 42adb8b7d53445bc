"""Each network's cost; the same networks as others write them, forward and training step; checkpointing on and off.

usage: python benchmarks/peers.py [--rounds 7] [--tiny]
Equal settings: ours and the peer's, same weights, same arrays, same loss and optimiser, float32, contiguous, in turn in
one process. Defaults: keepmap's own training step and Runtime against the plain loop (speed.py). The bytes of tensors
are counted; the largest resident size is that of a process of its own for each way. --tiny: images of 64 px, one round,
and no fcn_vgg16, which pads them to 264; nothing is written. The peers come with the extra dev.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import keepmap
from common import write_result
from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.describe import multiply_adds, parameters, peak_bytes
from keepmap.networks.footprint import Ledger
from keepmap.networks.network import Network
from keepmap.resources import resolve_precision, use_cpu
from keepmap.weights.sources import SOURCES
from plain_unet import PlainUNet
from speed import measure_inference, measure_training, seconds_in_turn

CLASSES, CLASSIC = 2, "unet"
MEGA, MIB = 1e6, 2**20
_NAMESPACES: list[torch.library.Library] = []
Pair = tuple[Network, nn.Module]


def declare_operators() -> None:
    """Make torchvision importable beside a torch from another source: its operators are declared, and never called."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        raise SystemExit("torchvision is not installed: pip install 'keepmap[dev]'")
    try:
        torch.ops.load_library(str(next(Path(found.origin).parent.glob("_C*"))))
    except (OSError, StopIteration):
        namespace = torch.library.Library("torchvision", "DEF")
        namespace.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        namespace.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _NAMESPACES.append(namespace)


def classic() -> Pair:
    """The classic U-Net, 64 to 1024 channels, and the plain one."""
    ours, plain = keepmap.build_model(CLASSIC, channels=3, classes=CLASSES), PlainUNet(CLASSES)
    plain.take_over({name: t for name, t in ours.state_dict().items() if name not in ("mean", "std")})
    return ours, plain


def imported(source: str, theirs: nn.Module) -> Pair:
    """Ours with the weights of a peer's network, as `import-weights` makes it, and the peer's."""
    origin, state = SOURCES[source], theirs.state_dict()
    recipe = origin.recipe(state)
    ours = build_network(recipe.network, channels=recipe.channels, classes=recipe.classes, options=recipe.options)
    names = [name for name in ours.state_dict() if name not in ("mean", "std")]
    named = {name: origin.turned(name, state[origin.theirs(name)], recipe) for name in names}
    ours.load_state_dict({**ours.state_dict(), **named})
    return ours, theirs


def unet_resnet34() -> Pair:
    """The U-Net over ResNet-34 of segmentation_models_pytorch, and ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import segmentation_models_pytorch as smp

        return imported("smp:unet-resnet34", smp.Unet("resnet34", encoder_weights=None, classes=CLASSES))


def fcn_resnet50() -> Pair:
    """torchvision's FCN over a dilated ResNet-50."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision.models.segmentation import fcn_resnet50 as build

        theirs = build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False)
    return imported("torchvision:fcn_resnet50", theirs)


PAIRS: Mapping[str, Callable[[], Pair]] = {
    "milesial U-Net": classic,
    "smp Unet-ResNet34": unet_resnet34,
    "torchvision fcn_resnet50": fcn_resnet50,
}
"""What the peer is called -> ours and the peer's."""


def logits_of(network: nn.Module, x: Tensor) -> Tensor:
    """The logits, which torchvision returns in a dict."""
    found: Any = network(x)
    logits: Tensor = found["out"] if isinstance(found, dict) else found
    return logits


def stepper(network: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """A training step on x and y: cross-entropy, backward, AdamW."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

    def step() -> None:
        loss = F.cross_entropy(logits_of(network, x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def batch(side: int, count: int) -> tuple[Tensor, Tensor]:
    """Normalised images and their classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 3, side, side, generator=generator)
    return x, torch.randint(CLASSES, (count, side, side), generator=generator)


def compare(first: list[float], second: list[float]) -> dict[str, Any]:
    """How many times as long the second takes: of the medians, and the least and the most of any round."""
    each = [b / a for a, b in zip(first, second, strict=True)]
    return {
        "ratio": statistics.median(second) / statistics.median(first), "range": [min(each), max(each)],
        "first_seconds": [round(s, 3) for s in first], "second_seconds": [round(s, 3) for s in second],
    }  # fmt: skip


def against_peer(build: Callable[[], Pair], side: int, rounds: int) -> dict[str, Any]:
    """Logits, forward and training step of ours and a peer, at equal settings."""
    torch.manual_seed(0)
    ours, theirs = build()
    x, y = batch(side, 1)
    ours.eval(), theirs.eval()
    with torch.inference_mode():
        a, b = logits_of(ours, x), logits_of(theirs, x)
        gap = float((a - b).abs().max() / b.abs().max())
        forward = compare(*seconds_in_turn(lambda: ours(x), lambda: theirs(x), rounds))
    x, y = batch(side, 2)
    training = compare(*seconds_in_turn(stepper(ours, x, y), stepper(theirs, x, y), rounds))
    return {"side": side, "logit_difference": gap, "forward": forward, "training": training}


def held(network: Network, side: int, precision: str) -> tuple[int, int]:
    """Bytes of tensors between forward and backward, and at the peak of both; beside weights and their gradients."""
    network = copy.deepcopy(network)  # the ledger would drop its gradients for ever
    x, y = prepared(network, side, precision)
    with Ledger(network) as ledger:
        loss = loss_of(network, x, y, precision)
        between = ledger.now
        loss.backward()
    return between, ledger.peak


def prepared(network: Network, side: int, precision: str) -> tuple[Tensor, Tensor]:
    """One image and its classes, and the network in training, in the memory layout of the precision."""
    layout = torch.channels_last if precision == "bfloat16" else torch.contiguous_format
    network.train().to(memory_format=layout)
    x, y = batch(side, 1)
    return x.contiguous(memory_format=layout), y


def loss_of(network: Network, x: Tensor, y: Tensor, precision: str) -> Tensor:
    """Cross-entropy, the network under autocast where the precision is bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        logits = network(x)
    return F.cross_entropy(logits.float(), y)


def cost(name: str, side: int) -> dict[str, Any]:
    """Parameters, and multiply-adds and float32 bytes in training per megapixel, counted and computed beforehand."""
    network, area = keepmap.build_model(name, channels=3, classes=CLASSES), side**2 / MEGA
    again = keepmap.build_model(name, channels=3, classes=CLASSES, checkpointing=True)
    row = {
        "network": name,
        "parameters": parameters(network),
        "multiply_adds": multiply_adds(network, (side, side)) / area,
    }
    for key, each in (("plain", network), ("checkpointing", again)):
        between, peak = held(each, side, "float32")
        computed = peak_bytes(each, (side, side), training=True)
        row[key] = {
            "held_mib": between / MIB / area,
            "peak_mib": peak / MIB / area,
            "computed_mib": computed / MIB / area,
        }
    return row


def resident(checkpointing: bool, side: int, precision: str) -> None:
    """Print the largest resident size that two steps of the classic U-Net add to what it takes before, in bytes."""
    use_cpu()
    network = keepmap.build_model(CLASSIC, channels=3, classes=CLASSES, checkpointing=checkpointing)
    x, y = prepared(network, side, precision)
    small = x[..., :32, :32].contiguous(), y[..., :32, :32].contiguous()
    loss_of(network, *small, precision).backward()
    before = largest_resident()
    for _ in range(2):
        loss_of(network, x, y, precision).backward()
    print(largest_resident() - before, flush=True)


def largest_resident() -> int:
    """The largest resident size of this process so far, in bytes; Linux counts it from the start of the program.

    What getrusage returns there begins with the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        rows = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(rows["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_of(checkpointing: bool, side: int, precision: str) -> int:
    """What `resident` prints in a fresh process."""
    code = f"import peers; peers.resident({checkpointing}, {side}, {precision!r})"
    folder = Path(__file__).resolve().parent
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return int(done.stdout)


def recomputing(side: int, rounds: int, precision: str) -> dict[str, Any]:
    """The classic U-Net with checkpointing as a share of without: bytes held, peaks, and time of a step; one image."""
    networks = {on: keepmap.build_model(CLASSIC, channels=3, classes=CLASSES, checkpointing=on) for on in (True, False)}
    networks[True].load_state_dict(networks[False].state_dict())
    counted = {on: held(network, side, precision) for on, network in networks.items()}
    process = {on: resident_of(on, side, precision) for on in networks}
    steps = []
    for network in networks.values():
        x, y = prepared(network, side, precision)
        optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)

        def step(network: Network = network, optimiser: Any = optimiser, x: Tensor = x, y: Tensor = y) -> None:
            loss = loss_of(network, x, y, precision)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        steps.append(step)
    again, once = seconds_in_turn(steps[0], steps[1], rounds)
    return {
        "side": side, "precision": precision,
        "held_mib": [counted[on][0] / MIB for on in (True, False)],
        "peak_mib": [counted[on][1] / MIB for on in (True, False)],
        "resident_mib": [process[on] / MIB for on in (True, False)],
        "time": compare(once, again),
    }  # fmt: skip


def main() -> None:
    """Measure and write results/peers.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    use_cpu()
    declare_operators()
    precision = resolve_precision("auto", "cpu")
    side, rounds = (64, 1) if options.tiny else (256, options.rounds)
    names = [name for name in NETWORKS if name != "fcn_vgg16" or not options.tiny]
    figures: dict[str, Any] = {"precision": precision, "networks": [cost(name, side) for name in names]}
    figures["peers"] = {name: against_peer(build, side, rounds) for name, build in PAIRS.items()}
    figures["checkpointing"] = recomputing(2 * side, rounds, precision)
    if options.tiny:
        print(json.dumps(figures, indent=1))
        return
    defaults = {"training": measure_training(precision, rounds), "inference": measure_inference(precision, rounds)}
    write_result("peers", {**figures, "defaults": defaults})


if __name__ == "__main__":
    main()
