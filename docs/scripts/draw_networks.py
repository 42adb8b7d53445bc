"""Writes docs/networks.md: every network and encoder with its numbers and options, read off the code.

usage: python docs/scripts/draw_networks.py
Trains and measures nothing; no weights are allocated.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from keepmap.networks.catalogue import NETWORKS
from keepmap.networks.describe import multiply_adds, parameters, peak_bytes, sketch
from keepmap.networks.encoders import ENCODERS, build_encoder
from keepmap.networks.score_network import ScoreNetwork
from keepmap.weights.published import IMAGENET, Published

PAGE = Path(__file__).resolve().parents[1] / "networks.md"
SIDE = 1024
"""Side in pixels of the image that costs are computed for; a multiple of every stride."""
_MEGAPIXELS = SIDE**2 / 1e6
_MIB, _GIGA = 2**20, 1e9

HEAD = f"""# The networks

Written by `docs/scripts/draw_networks.py` from the code; do not edit. [How it works](how-it-works.md) tells what the
words mean and why the networks are as they are.

## With their default options

3 channels ({{single}}: 1), 2 classes. *Stride*: pixels that the deepest value stands for, along each axis. *Reach*: how
many rows above and below can change an output pixel; with that context a part of an image is computed exactly as within
the whole, where *local* says yes. Multiply-adds (twice as many FLOP) and peak memory (float32, weights not counted) are
those of an image of {SIDE}×{SIDE} px, divided by its {_MEGAPIXELS:.2f} megapixels. `keepmap models NAME --size HxW`
prints them for your size, level by level.
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], text: Sequence[int] = (0,)) -> str:
    """A Markdown table; the columns in `text` are set to the left, the others, numbers, to the right."""
    rule = ["---" if column in text else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows)) + "\n"


def pair(reach: tuple[int, int]) -> str:
    """(before, after) as one number where they are equal."""
    return str(reach[0]) if reach[0] == reach[1] else f"{reach[0]} / {reach[1]}"


def network_row(name: str) -> list[str]:
    """A network with its default options."""
    network, size = sketch(name, channels=default_channels(name)), (SIDE, SIDE)
    memory = [peak_bytes(network, size, training=training) / _MIB / _MEGAPIXELS for training in (False, True)]
    return [
        f"[`{name}`](#{name})",
        f"{parameters(network):,}",
        str(network.stride),
        pair(network.reach),
        "yes" if network.local else "no",
        f"{multiply_adds(network, size) / _GIGA / _MEGAPIXELS:.1f}",
        *(f"{each:,.0f}" for each in memory),
    ]


def default_channels(name: str) -> int:
    """The channels that a network has unless it is told otherwise."""
    return int(next(f.default for f in dataclasses.fields(NETWORKS[name][0]) if f.name == "channels"))


def kind_of(hint: Any) -> str:
    """What an option takes, in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if kind is type(None) else kind_of(kind) for kind in inner)
    if origin is tuple:
        return "whole numbers"
    return {"int": "whole number", "float": "number", "bool": "yes or no", "str": "name"}[hint.__name__]


def default_of(value: Any) -> str:
    """A default as `--set` takes it."""
    if isinstance(value, tuple):
        return "`" + ",".join(map(str, value)) + ("," if len(value) == 1 else "") + "`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def option_rows(config: type[Any]) -> list[list[str]]:
    """Every option of a network: name, what it takes, default, help."""
    hints = typing.get_type_hints(config)
    return [
        [f"`{f.name}`", kind_of(hints[f.name]), default_of(f.default), f.metadata["help"].replace("|", "\\|")]
        for f in dataclasses.fields(config)
    ]


def encoder_row(name: str) -> list[str]:
    """An encoder for 3 channels."""
    with torch.device("meta"):
        encoder = build_encoder(name, 3)
    numbers = (", ".join(map(str, values)) for values in (encoder.strides, encoder.widths))
    return [f"`{name}`", f"{parameters(encoder):,}", *numbers, origin(IMAGENET[name]) if name in IMAGENET else ""]


def origin(published: Published) -> str:
    """Where published weights come from."""
    if published.package:
        return "package of the extra `pretrained`"
    return f"`{published.file}`" + ("" if published.fetched else ", address unverified")


def section(name: str) -> str:
    """A network: what it is, where it comes from, its options."""
    config, kind = NETWORKS[name]
    said = (kind.__doc__ or "").split("\n\n")
    source = [" ".join(part.split()) for part in said if "Source:" in part]
    coarse = isinstance(kind, type) and issubclass(kind, ScoreNetwork)
    parts = [f"## {name}", " ".join(said[0].split())]
    parts += [part[part.index("Source:") :] for part in source]
    parts += ["Its score map before the upsampling: `keepmap predict --coarse`, `network.scores(x)`."] if coarse else []
    return "\n\n".join([*parts, table(["option", "takes", "default", "what it is"], option_rows(config), (0, 1, 2, 3))])


def borders() -> str:
    """The networks with a border of their own, and its least width on each side."""
    widths = {name: sketch(name, channels=default_channels(name)).pad_before for name in NETWORKS}
    return ", ".join(f"{width} px or more by `{name}`" for name, width in widths.items() if width)


def page() -> str:
    """The whole page."""
    heads = ["network", "parameters", "stride", "reach, px", "local", "10⁹ multiply-adds / megapixel",
             "MiB / megapixel, inference", "MiB / megapixel, training"]  # fmt: skip
    single = ", ".join(f"`{name}`" for name in NETWORKS if default_channels(name) == 1)
    encoders = ["encoder", "parameters", "strides", "channels at these strides", "ImageNet weights"]
    return "\n".join(
        [
            HEAD.format(single=single),
            table(heads, [network_row(name) for name in NETWORKS]),
            f"Borders that a network puts around the image are counted: {borders()}.\n",
            "## Encoders\n\nFor `encoder_unet` and `fcn`, at 3 channels, without a classifier. `timm:NAME` takes a "
            "convolutional network of [timm](https://github.com/huggingface/pytorch-image-models), if installed.\n",
            table(encoders, [encoder_row(name) for name in ENCODERS], (0, 2, 3, 4)),
            "\n".join(section(name) for name in NETWORKS),
        ]
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
