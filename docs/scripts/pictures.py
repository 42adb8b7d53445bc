"""Draws the pictures of docs/how-it-works.md from arrays, on white, for light and dark pages alike.

Knows no network: what is drawn is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from PIL import Image

from keepmap.protocols import Array

CLASSES = np.array([(20, 24, 32), (64, 176, 255), (255, 150, 60)], np.uint8)
"""Colours of background, smooth and granular cells."""
INK, FAINT, WRONG = "#22242a", "#6a6e78", "#e2283c"
BARS = ("#3b6fb6", "#e39b3c", "#6aa56a")
_DPI, _WIDTH = 150, 9.0
"""Pixels per inch, and inches of width of every picture."""
_COLOURS = 192
"""Of the palette that a picture is stored with; more would cost bytes and show nothing."""

mpl.use("Agg")
mpl.rcParams.update(
    {
        "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": FAINT,
        "axes.edgecolor": "#c4c7ce", "xtick.color": FAINT, "ytick.color": FAINT, "axes.linewidth": 0.8,
        "figure.facecolor": "white", "axes.titlelocation": "left", "axes.titlesize": 9.5,
        "image.interpolation": "nearest",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    pixels: (H, W, 3) uint8, or (H, W) with a colour map.  title, note: one line each.
    truth: classes (H, W) whose cells are outlined, or None.  extent: pixels of the image that `pixels` cover, (H, W).
    """

    pixels: Array
    title: str
    note: str = ""
    truth: Array | None = None
    extent: tuple[int, int] | None = None


def coloured(classes: Array) -> Array:
    """Classes (H, W) as (H, W, 3) uint8."""
    return CLASSES[classes]


def blended(shares: Array) -> Array:
    """Shares (K, h, w) of the classes, which sum to 1, as a mixture of their colours (h, w, 3) uint8."""
    return np.tensordot(shares, CLASSES.astype(float), (0, 0)).round().clip(0, 255).astype(np.uint8)


def show(axes: Axes, panel: Panel) -> None:
    """One panel, without ticks."""
    height, width = panel.extent or panel.pixels.shape[:2]
    axes.imshow(panel.pixels, extent=(0, width, height, 0))
    if panel.truth is not None:
        axes.contour(
            np.arange(panel.truth.shape[1]) + 0.5, np.arange(panel.truth.shape[0]) + 0.5, panel.truth > 0, [0.5],
            colors="white", linewidths=0.7,
        )  # fmt: skip
        height, width = panel.truth.shape
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_title(panel.title, pad=16 if panel.note else 5, fontweight="bold")
    if panel.note:
        axes.text(0, 1.02, panel.note, transform=axes.transAxes, color=FAINT, fontsize=8, va="bottom")


def save(figure: Figure, path: Path) -> None:
    """Write `figure` as a PNG of few colours."""
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", pad_inches=0.06)
    plt.close(figure)
    picture = Image.open(path).convert("RGB")
    picture.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def grid(rows: Sequence[Sequence[Panel | None]], path: Path, height: float) -> None:
    """Panels in rows and columns; height: of a row in inches."""
    figure, axes = plt.subplots(
        len(rows), len(rows[0]), figsize=(_WIDTH, height * len(rows)), layout="constrained", squeeze=False
    )
    for line, panels in zip(axes, rows, strict=True):
        for place, panel in zip(line, panels, strict=True):
            place.axis("off") if panel is None else show(place, panel)
    save(figure, path)


def from_what_to_where(
    first: Sequence[Panel], shares: Mapping[str, float], second: Sequence[Panel], path: Path
) -> None:
    """Two rows of four: three panels and in their midst the bars of a classifier; then four panels."""
    figure, axes = plt.subplots(2, 4, figsize=(_WIDTH, 5.2), layout="constrained")
    for place, panel in zip((axes[0, 0], axes[0, 1], axes[0, 3], *axes[1]), (*first, *second), strict=True):
        show(place, panel)
    bars = axes[0, 2]
    bars.barh(list(shares), list(shares.values()), color=[tuple(c / 255) for c in CLASSES], height=0.4)
    for row, (name, share) in enumerate(shares.items()):
        bars.text(share + 0.03, row, f"{share:.0%}", va="center", color=INK)
        bars.text(0.01, row - 0.26, name, va="bottom", color=INK, fontsize=8)
    bars.set(xlim=(0, 1.25), ylim=(len(shares) - 0.6, -0.8), xticks=[], yticks=[])
    bars.set_box_aspect(first[0].pixels.shape[0] / first[0].pixels.shape[1])
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    bars.set_title("a classifier's answer", pad=16, fontweight="bold")
    bars.text(0, 1.02, "what, and no longer where", transform=bars.transAxes, color=FAINT, fontsize=8, va="bottom")
    save(figure, path)


@dataclass(frozen=True)
class Maps:
    """Some channels of one level of a network, (n, h, w), and how many there are in all."""

    values: Array
    channels: int


def letter_u(image: Array, down: Sequence[Maps], up: Sequence[Maps], answer: Array, path: Path) -> None:
    """The feature maps of a U-Net where they stand in the U: `down` shallow first, `up` deep first."""
    figure = plt.figure(figsize=(_WIDTH, 6.85))
    depth = len(down)
    side = [1.42 * 0.76**level for level in range(depth)]
    top = [6.35 - sum(side[:level]) - 0.42 * level for level in range(depth)]
    left = [1.95 + 0.52 * level for level in range(depth - 1)] + [(_WIDTH - side[-1]) / 2]
    ways, backs = [], []
    for level, maps in enumerate(down):
        ways.append(_stack(figure, maps, (left[level], top[level], side[level]), "left" if up[level:] else "center"))
    for maps, level in zip(up, reversed(range(depth - 1)), strict=True):
        backs.append(_stack(figure, maps, (_WIDTH - left[level] - side[level], top[level], side[level]), "right"))
    first = _place(figure, image, (0.15, top[0], side[0]))
    first.set_title("image", fontweight="bold", pad=4)
    last = _place(figure, answer, (_WIDTH - 0.15 - side[0], top[0], side[0]))
    last.set_title("classes", fontweight="bold", pad=4)
    for a, b in pairwise((first, *ways, *backs, last)):
        _arrow(figure, a, b, FAINT)
    for level, back in enumerate(reversed(backs)):
        _arrow(figure, ways[level], back, BARS[1], label="skip" if level else "skip: the fine map, passed across")
    figure.text(0.5, 0.985, "down: twice the channels, half the extent        up: back again", ha="center", va="top")
    save(figure, path)


def _place(figure: Figure, values: Array, where: tuple[float, float, float]) -> Axes:
    """A square picture; where: left, top and side in inches, from the lower left corner of the figure."""
    (x, y, side), (width, height) = where, figure.get_size_inches()
    axes = figure.add_axes((x / width, (y - side) / height, side / width, side / height))
    axes.imshow(values, cmap="magma", aspect="auto")
    axes.set(xticks=[], yticks=[])
    return axes


def _stack(figure: Figure, maps: Maps, where: tuple[float, float, float], align: str) -> Axes:
    """Maps one behind the other, their number and extent below; returns the axes of the foremost."""
    (x, y, side), (width, height) = where, figure.get_size_inches()
    for index in reversed(range(len(maps.values))):
        front = _place(figure, maps.values[index], (x + 0.09 * index, y + 0.072 * index, side))
    anchor = {"left": x + 0.14, "right": x + side - 0.14, "center": x + side / 2}[align]
    rows, columns = maps.values.shape[1:]
    figure.text(
        anchor / width, (y - side - 0.06) / height, f"{maps.channels} × {rows}×{columns}",
        ha=align, va="top", fontsize=7.5, color=FAINT,
    )  # fmt: skip
    return front


def _arrow(figure: Figure, a: Axes, b: Axes, colour: str, label: str = "") -> None:
    """From one map to another: across where they stand side by side, else down from a foot or up to one."""
    p, q = a.get_position(), b.get_position()
    inset = 0.07 / _WIDTH
    if abs(p.y1 - q.y1) < 0.01:
        start, end = (p.x1 + 0.028, (p.y0 + p.y1) / 2), (q.x0 - 0.006, (q.y0 + q.y1) / 2)
        style = "arc3,rad=0"
    elif p.y0 > q.y0:
        start, end = (p.x0 + inset, p.y0 - 0.004), (q.x0 - 0.006, (q.y0 + q.y1) / 2)
        style = "angle,angleA=90,angleB=0,rad=4"
    else:
        start, end = (p.x1 + 0.024, (p.y0 + p.y1) / 2), (q.x1 - inset, q.y0 - 0.004)
        style = "angle,angleA=0,angleB=90,rad=4"
    arrow = ConnectionPatch(
        start, end, "figure fraction", "figure fraction", arrowstyle="-|>", connectionstyle=style, color=colour,
        linewidth=1.1, mutation_scale=9, zorder=5,
    )  # fmt: skip
    figure.add_artist(arrow)
    if label:
        middle = (start[0] + end[0]) / 2
        figure.text(middle, start[1] + 0.006, label, ha="center", va="bottom", color=colour, fontsize=8)


def influence(maps: Sequence[tuple[str, str, Array, int, int]], path: Path) -> None:
    """Heat maps of what a pixel looks at: (title, note, weights, reach, radius that holds 90 %)."""
    figure, axes = plt.subplots(1, len(maps), figsize=(_WIDTH, 3.25), layout="constrained")
    for place, (title, note, weights, reach, radius) in zip(axes, maps, strict=True):
        middle = len(weights) // 2
        shown = np.log10(np.maximum(weights / weights.max(), 1e-4))
        edge = middle + 0.5
        picture = place.imshow(shown, cmap="magma", extent=(-edge, edge, edge, -edge), vmin=-4)
        for r, colour, line in ((reach, "white", "-"), (radius, "#7fd0ff", "--")):
            box = Rectangle((-r - 0.5, -r - 0.5), 2 * r + 1, 2 * r + 1, fill=False, edgecolor=colour, linestyle=line)
            place.add_patch(box)
        place.set_title(title, fontweight="bold", pad=16)
        place.text(0, 1.02, note, transform=place.transAxes, color=FAINT, fontsize=8, va="bottom")
        place.set_xlabel("pixels from the output pixel")
        place.tick_params(length=2, labelsize=7)
    bar = figure.colorbar(picture, ax=axes, ticks=[-4, -3, -2, -1, 0], fraction=0.015, pad=0.01)
    bar.ax.set_yticklabels(["≤ 0.0001", "0.001", "0.01", "0.1", "1"], fontsize=7)
    bar.outline.set_visible(False)
    save(figure, path)


def costs(levels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Where parameters, arithmetic and memory of a network sit, level by level."""
    figure, axes = plt.subplots(figsize=(_WIDTH, 2.9), layout="constrained")
    kinds = (("parameters", "parameters"), ("work", "multiply-adds"), ("memory", "memory in training"))
    for place, (key, name) in enumerate(kinds):
        rows = np.arange(len(levels)) + (place - 1) * 0.26
        values = [level[key] for level in levels]
        axes.barh(rows, values, 0.24, color=BARS[place], label=name)
        for row, value in zip(rows, values, strict=True):
            axes.text(value + 0.004, row, f"{value:.1%}" if value < 0.1 else f"{value:.0%}", va="center", fontsize=7.5)
    names = [f"{level['channels']} channels, {level['side']}×{level['side']}" for level in levels]
    axes.set_yticks(range(len(levels)), names, color=INK)
    axes.invert_yaxis()
    axes.set(xticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.28))
    save(figure, path)


def ripples(rows: Sequence[Sequence[tuple[str, str, Array]]], path: Path) -> None:
    """Answers to an image of one colour: (title, note, values (h, w) in units of what the network says at all)."""
    figure, axes = plt.subplots(len(rows), len(rows[0]), figsize=(_WIDTH, 2.6 * len(rows)), layout="constrained")
    for line, panels in zip(axes, rows, strict=True):
        for place, (title, note, values) in zip(line, panels, strict=True):
            picture = place.imshow(values - values.mean(), cmap="RdBu_r", vmin=-0.4, vmax=0.4)
            place.set(xticks=[], yticks=[])
            place.set_title(title, fontweight="bold", pad=16)
            place.text(0, 1.02, note, transform=place.transAxes, color=FAINT, fontsize=8, va="bottom")
    bar = figure.colorbar(picture, ax=axes, fraction=0.012, pad=0.01, ticks=[-0.4, -0.2, 0, 0.2, 0.4])
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    save(figure, path)
