"""Draws a small data set of fluorescent cells with the troubles of real microscopy: the sample behind the demo.

Does not know what it is used for; it writes the two folders that anyone else would bring.

Background is class 0. Two kinds of cell share size, colour and brightness in the mean and differ in shape and texture:
class 1 is round, smooth and bright at the rim; class 2 is drawn out, uneven in outline and granular. Cells touch and
overlap, light falls off, part of the field is out of focus, photons are few, and dust of the size of a cell lies about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from keepmap.errors import OutputError

CLASS_NAMES = ("background", "smooth cell", "granular cell")

_Floats = npt.NDArray[np.float32]
_Bytes = npt.NDArray[np.uint8]
_SIDES = (181, 330)
"""Rows and columns of an image in pixels: odd numbers from the first up to the second."""
_PALETTE = (16, 18, 24, 64, 176, 255, 255, 150, 60)
"""Colours of the mask files, so that a viewer shows them; their values are the palette's indices."""


@dataclass(frozen=True)
class _Cell:
    """One cell. Centre and radius in pixels, turn in radians; waves: relative amplitude and phase of each harmonic."""

    kind: int
    row: float
    column: float
    radius: float
    stretch: float
    turn: float
    waves: tuple[tuple[float, float], ...]
    brightness: float


@dataclass(frozen=True)
class _Patch:
    """A cell seen from above on a square of pixels; each array (h, w) float32."""

    rows: slice
    columns: slice
    depth: _Floats
    """0 outside and at the outline, 1 in the middle."""
    cover: _Floats
    """Share of each pixel that the cell covers, 0..1."""


def draw_dataset(folder: Path, *, count: int, seed: int) -> tuple[Path, Path]:
    """Write `count` pairs folder/images/NAME.png, folder/masks/NAME.png, and folder/classes.txt; return both folders.

    Images are RGB of 8 bits, each of its own odd size from 181x181 to 329x329; masks hold the ids 0, 1 and 2.
    Image i depends on (seed, i) alone. Raises OutputError if the folder cannot be written.
    """
    images, masks = folder / "images", folder / "masks"
    try:
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(exist_ok=True)
        for index in range(count):
            image, classes = draw_pair(seed=seed, index=index)
            Image.fromarray(image).save(images / f"cells_{index:03d}.png")
            mask = Image.fromarray(classes)
            mask.putpalette(_PALETTE)
            mask.save(masks / f"cells_{index:03d}.png")
        (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written.", found=str(error)) from error
    return images, masks


def draw_pair(*, seed: int, index: int) -> tuple[_Bytes, _Bytes]:
    """Image (H, W, 3) uint8 and its classes (H, W) uint8 in 0..2; the same for the same (seed, index)."""
    random = np.random.default_rng((seed, index))
    height, width = (int(n) for n in random.integers(_SIDES[0] // 2, _SIDES[1] // 2, size=2) * 2 + 1)
    classes = np.zeros((height, width), np.uint8)
    light = np.zeros((2, height, width), np.float32)
    grain = _grain(random)
    for cell in _scatter(random, height, width):
        _paint(random, cell, grain, light, classes)
    _soil(random, light)
    return _expose(random, _defocus(random, light)), classes


def _scatter(random: np.random.Generator, height: int, width: int) -> Iterator[_Cell]:
    """Cells in clumps with a prevailing kind, so that many touch, some overlap and the border cuts some."""
    clumps = max(3, round(height * width / 3600 * random.uniform(0.6, 1.4)))
    taken: list[tuple[float, float, float]] = []
    for _ in range(clumps):
        centre = random.uniform((0, 0), (height, width))
        prevailing = int(random.integers(1, 3))
        for _ in range(int(random.integers(1, 7))):
            kind = prevailing if random.random() < 0.75 else 3 - prevailing
            radius = float(random.uniform(9.0, 15.0))
            row, column = centre + random.normal(0, 15, size=2)
            if all(np.hypot(row - r, column - c) > 0.72 * (radius + s) for r, c, s in taken):
                taken.append((row, column, radius))
                yield _cell(random, kind, row, column, radius)


def _cell(random: np.random.Generator, kind: int, row: float, column: float, radius: float) -> _Cell:
    stretch = random.uniform(1.0, 1.18) if kind == 1 else random.uniform(1.15, 1.75)
    strength = 0.035 if kind == 1 else 0.11
    waves = tuple((float(random.normal(0, strength / n)), float(random.uniform(0, 2 * np.pi))) for n in range(2, 7))
    brightness = float(random.uniform(0.45, 1.05) * (1.0 if kind == 1 else 0.94))
    return _Cell(kind, row, column, radius, float(stretch), float(random.uniform(0, np.pi)), waves, brightness)


def _outline(cell: _Cell, height: int, width: int) -> _Patch | None:
    """The pixels of the cell's bounding square; None if none of them lies in the image."""
    reach = cell.radius * cell.stretch**0.5 * 1.45 + 2
    top, left = max(0, int(cell.row - reach)), max(0, int(cell.column - reach))
    bottom, right = min(height, int(cell.row + reach) + 1), min(width, int(cell.column + reach) + 1)
    if top >= bottom or left >= right:
        return None
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    y, x = y - cell.row, x - cell.column
    along = (x * np.cos(cell.turn) + y * np.sin(cell.turn)) / cell.stretch**0.5
    across = (y * np.cos(cell.turn) - x * np.sin(cell.turn)) * cell.stretch**0.5
    angle = np.arctan2(across, along)
    border = 1 + sum(size * np.cos(order * angle + phase) for order, (size, phase) in enumerate(cell.waves, start=2))
    distance = np.hypot(along, across) / (cell.radius * border)
    depth = np.clip(1 - distance, 0, 1).astype(np.float32)
    cover = np.clip((1 - distance) * cell.radius + 0.5, 0, 1).astype(np.float32)
    return _Patch(slice(top, bottom), slice(left, right), depth, cover)


def _paint(random: np.random.Generator, cell: _Cell, grain: _Floats, light: _Floats, classes: _Bytes) -> None:
    """Lay one cell over the field: its cytoplasm into light[0], its nucleus into light[1], its class into `classes`.

    The cell hides half of what shines beneath it, so that an overlap is brighter than either cell alone.
    """
    height, width = classes.shape
    patch = _outline(cell, height, width)
    if patch is None:
        return
    texture = _cut(random, grain[cell.kind - 1], patch.depth.shape)
    shell = np.exp(-(((patch.depth - 0.13) / 0.10) ** 2))
    if cell.kind == 1:
        body = 0.62 + 0.34 * shell + 0.07 * texture
        nucleus = 0.9 * _rise(patch.depth, 0.46, 0.07) * (1 + 0.10 * texture)
    else:
        body = 0.66 + 0.12 * shell + 0.24 * texture
        nucleus = 0.8 * _rise(patch.depth + 0.05 * texture, 0.50, 0.10) * (1 + 0.28 * texture)
    where = (slice(None), patch.rows, patch.columns)
    shine = np.stack([body * (1 - 0.45 * nucleus), nucleus]).clip(0) * cell.brightness
    light[where] = light[where] * (1 - 0.5 * patch.cover) + shine * patch.cover
    classes[patch.rows, patch.columns][patch.cover >= 0.5] = cell.kind


def _rise(values: _Floats, middle: float, width: float) -> _Floats:
    """A smooth step from 0 to 1 around `middle`."""
    return np.asarray(1 / (1 + np.exp(-(values - middle) / (width / 2))), np.float32)


def _grain(random: np.random.Generator) -> _Floats:
    """Two textures (2, 256, 256) of zero mean and unit deviation that wrap around: soft clouds and fine granules."""
    noise = random.standard_normal((2, 256, 256)).astype(np.float32)
    soft = ndimage.gaussian_filter(noise[0], 4.0, mode="wrap")
    fine = ndimage.gaussian_filter(noise[1], 1.1, mode="wrap") - ndimage.gaussian_filter(noise[1], 2.6, mode="wrap")
    return np.stack([soft / soft.std(), fine / fine.std()]).astype(np.float32)


def _cut(random: np.random.Generator, texture: _Floats, shape: tuple[int, ...]) -> _Floats:
    top, left = random.integers(0, 256, size=2)
    rows, columns = (top + np.arange(shape[0])) % 256, (left + np.arange(shape[1])) % 256
    return np.asarray(texture[np.ix_(rows, columns)])


def _soil(random: np.random.Generator, light: _Floats) -> None:
    """Add what is no cell: discs of dust as large as cells but without a nucleus, bright specks and a fibre."""
    _, height, width = light.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(int(random.integers(2, 7))):
        row, column, radius = random.uniform((0, 0, 6), (height, width, 14))
        distance = np.hypot(y - row, x - column) / radius
        disc = _rise(1 - distance, 0.0, 0.5) * (0.8 + 0.2 * np.cos(distance * 9))
        light += np.array([0.34, 0.12])[:, None, None] * disc * random.uniform(0.5, 1.2)
    for _ in range(int(random.integers(4, 14))):
        row, column, size = random.uniform((0, 0, 0.8), (height, width, 2.4))
        speck = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))
        light += random.uniform(0.2, 0.8, size=2)[:, None, None] * speck
    if random.random() < 0.4:
        angle, shift, bend = random.uniform((0, -60, -0.004), (np.pi, 60, 0.004))
        across = (y - height / 2) * np.cos(angle) - (x - width / 2) * np.sin(angle) - shift
        along = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle)
        light[0] += 0.3 * np.exp(-(((across - bend * along**2) / 1.6) ** 2))


def _defocus(random: np.random.Generator, light: _Floats) -> _Floats:
    """Blur by the optics, more so towards one side of the field; light (2, H, W) in and out."""
    sharp = ndimage.gaussian_filter(light, (0, 0.7, 0.7))
    soft = ndimage.gaussian_filter(light, (0, *(float(random.uniform(1.6, 2.6)),) * 2))
    haze = ndimage.gaussian_filter(light, (0, 14, 14))
    share = _slope(random, light.shape[1:]) * random.uniform(0.3, 1.0)
    return np.asarray(sharp + (soft - sharp) * share + 0.16 * haze, np.float32)


def _slope(random: np.random.Generator, shape: tuple[int, ...]) -> _Floats:
    """A smooth field (H, W) from 0 at one side to 1 at the opposite one, in a random direction."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    angle = random.uniform(0, 2 * np.pi)
    return _rise(y[:, None] * np.sin(angle) + x[None] * np.cos(angle), random.uniform(-0.3, 0.3), 0.9)


def _expose(random: np.random.Generator, light: _Floats) -> _Bytes:
    """Light (2, H, W) under uneven illumination onto a colour camera with few photons: (H, W, 3) uint8."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in light.shape[1:])
    centre = random.uniform(-0.5, 0.5, size=2)
    lamp = 1 - random.uniform(0.15, 0.38) * ((y[:, None] - centre[0]) ** 2 + (x[None] - centre[1]) ** 2)
    glow = random.uniform(0.02, 0.07) + random.uniform(0, 0.10) * _slope(random, light.shape[1:])
    stains = np.array([[0.12, 1.05, 0.62], [0.62, 0.34, 1.25]]) * random.uniform(0.85, 1.15, size=(2, 3))
    colour = np.tensordot(light * np.clip(lamp, 0.15, None), stains, axes=(0, 0))
    colour += glow[..., None] * np.array([0.35, 0.65, 1.0])
    photons = random.uniform(45, 150)
    counts = random.poisson(np.clip(colour, 0, None) * photons) / photons
    counts = ndimage.gaussian_filter(counts, (0.45, 0.45, 0)) + random.normal(0, 0.012, counts.shape)
    gain = random.uniform(0.8, 1.15)
    return np.asarray(np.clip(255 * np.clip(counts * gain, 0, 1) ** 0.8, 0, 255).round(), np.uint8)
