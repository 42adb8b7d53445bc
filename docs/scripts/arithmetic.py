"""What docs/how-it-works.md works out from the layers of networks: extents, reach, parameters, arithmetic, memory.

Trains nothing, draws nothing; no data flow but where a concatenation is made to fail.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from keepmap.networks.describe import describe, multiply_adds, parameters, peak_bytes, sketch
from keepmap.networks.fcn_vgg16 import FC6, as_convolution
from keepmap.networks.grid import extents_of
from keepmap.networks.layers import pool, transposed
from keepmap.networks.network import Network
from keepmap.networks.reach import CONVS, TRANSPOSEDS, fields_of
from keepmap.networks.trace import steps_of

MIB, GIGA = 2**20, 1e9
ODD = 101
"""A side that no pooling halves evenly, pixels."""
DEPTHS = (2, 3, 4, 5, 6)
MATCHES = ("multiple", "pad", "crop", "resize")
SIDE = 512
"""Side in pixels of the images that costs are quoted for."""


def worked_out() -> dict[str, Any]:
    """All numbers of the page that follow from the code alone."""
    unet, down = sketch("unet"), halves(ODD, 5)
    return {
        "levels": levels(unet, SIDE), "totals": totals(unet, SIDE), "reach": reaches(), "extents": matches(ODD),
        "shared": shared_work(SIDE), "valid": valid_sizes(SIDE), "odd": ODD, "down": " → ".join(map(str, down)),
        "broken": broken(down), "fitting": 100 / unet.stride**2,
    }  # fmt: skip


def broken(sides: list[int]) -> int:
    """The deepest of the sides on the way down that does not come back on the way up."""
    return next(side for side in reversed(sides[:-1]) if side % 2)


def levels(network: Network, side: int) -> list[dict[str, Any]]:
    """Each resolution of a network for an image of `side` pixels: its extent, channels, and shares of the costs.

    A layer counts for the level that it reads from.
    """
    strides = [field.stride for field in fields_of(network)]
    size, extents = (side, side), extents_of(network, (side, side))
    weights: dict[int, int] = {}
    work: dict[int, int] = {}
    for step, extent in zip(steps_of(network), extents, strict=True):
        if step.layer is None:
            continue
        source = step.inputs[0]
        places = extents[source] if isinstance(step.layer, TRANSPOSEDS) else extent
        stride = strides[source]
        weights[stride] = weights.get(stride, 0) + parameters(step.layer)
        if isinstance(step.layer, (*CONVS, *TRANSPOSEDS)):
            work[stride] = work.get(stride, 0) + step.layer.weight.numel() * prod(places)
    rows = describe(network, size)
    kept = sum(row.training_bytes for row in rows)
    return [
        {
            "level": row.level,
            "stride": row.stride,
            "side": row.size[0],
            "channels": row.channels,
            "reach": row.reach[0],
            "parameters": weights[row.stride] / parameters(network),
            "work": work[row.stride] / multiply_adds(network, size),
            "memory": row.training_bytes / kept,
            "skip": row.skip_bytes / MIB,
            "training": row.training_bytes / MIB,
        }
        for row in rows
    ]


def totals(network: Network, side: int) -> dict[str, Any]:
    """Parameters in millions, multiply-adds in 10^9, memory in MiB and reach for an image of `side` pixels.

    ratio: of peak memory in training to that in inference.  skips: what waits for the way up.
    """
    size = (side, side)
    return {
        "parameters": parameters(network) / 1e6,
        "work": multiply_adds(network, size) / GIGA,
        "inference": peak_bytes(network, size) / MIB,
        "training": peak_bytes(network, size, training=True) / MIB,
        "reach": max(network.reach),
        "ratio": peak_bytes(network, size, training=True) / peak_bytes(network, size),
        "skips": sum(row.skip_bytes for row in describe(network, size)) / MIB,
    }


def reaches() -> list[dict[str, int]]:
    """The reach of U-Nets of some depths, by how they upsample."""
    rows = []
    for depth in DEPTHS:
        widths = [8] * depth
        row = {"depth": depth, "stride": 2 ** (depth - 1)}
        for up in ("transposed", "bilinear"):
            row[up] = max(sketch("unet", options={"widths": widths, "up": up}).reach)
        rows.append(row)
    return rows


def valid_sizes(side: int) -> dict[str, Any]:
    """The sides that the U-Net of 2015 takes without a mirrored border, and those nearest to `side`."""
    network = sketch("unet2015", channels=1)
    smaller, larger = network.valid_sides(side)
    cut = 2 * network.pad_before
    return {
        "side": side, "least": network.valid_sides(1)[0], "step": network.stride, "cut": cut, "margin": cut // 2,
        "smaller": smaller, "smaller_out": smaller - cut, "larger": larger, "larger_out": larger - cut,
        "crops": [trim.before for trim in network.trim], "note": network.size_note((side, side)),
        "parameters": parameters(network),
    }  # fmt: skip


def halves(side: int, levels: int) -> list[int]:
    """The sides on the way down: each pooling halves and drops the odd row."""
    sides = [side]
    for _ in range(levels - 1):
        sides.append(sides[-1] // 2)
    return sides


def broken_join(side: int) -> str:
    """What torch says where the map that comes up from below `side` rows is joined with the skip of `side` rows."""
    skip = torch.zeros(1, 1, side, side)
    try:
        torch.cat([skip, transposed(1, 1)(pool()(skip))], 1)
    except RuntimeError as error:
        return str(error).splitlines()[0].split(" for ")[0]
    raise ValueError(f"{side} rows halve evenly: nothing breaks")


def matches(side: int) -> dict[str, dict[str, Any]]:
    """What each `match` of a U-Net computes for an image of `side` pixels: the extents that it sees, locality."""
    rows = {}
    for match in MATCHES:
        network = sketch("unet", options={"match": match})
        down = [row.size[0] for row in describe(network, (side, side))]
        rows[match] = {
            "sees": network.padded((side, side))[0],
            "down": " → ".join(map(str, down)),
            "local": "yes" if network.local else "no",
        }
    return rows


def dense_layer(channels: int = 8, outputs: int = 5, extra: int = 2) -> dict[str, Any]:
    """A fully connected layer on 7x7 features against the same matrix as a convolution, on a larger map.

    difference: the largest over all places at which the layer can be applied, relative to the largest value.
    """
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(outputs, channels * FC6**2, generator=generator)
    features = torch.randn(1, channels, FC6 + extra, FC6 + extra, generator=generator)
    once = torch.nn.functional.conv2d(features, as_convolution(matrix, FC6))[0]
    each = torch.stack(
        [
            torch.stack([matrix @ features[0, :, i : i + FC6, j : j + FC6].flatten() for j in range(extra + 1)], 1)
            for i in range(extra + 1)
        ],
        1,
    )
    return {
        "kernel": FC6, "side": FC6 + extra, "places": (extra + 1) ** 2,
        "difference": float((once - each).abs().max() / each.abs().max()),
    }  # fmt: skip


def shared_work(side: int) -> dict[str, Any]:
    """Multiply-adds, in 10^9, of an FCN-32s over VGG-16 on one image, and on a crop of 224 for each place it scores.

    Its head is that of `fcn`, without the paper's 4096 channels and its padding of 100.
    """
    network = sketch("fcn", options={"encoder": "vgg16", "skips": 0})
    places = (-(-side // network.stride)) ** 2
    once, each = multiply_adds(network, (side, side)) / GIGA, multiply_adds(network, (224, 224)) / GIGA
    return {"side": side, "places": places, "once": once, "crop": each, "times": places * each / once}
