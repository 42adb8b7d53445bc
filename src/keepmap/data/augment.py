"""From one decoded image and its classes to one training crop: one resampling for both, then light, then flips.

Knows no files and no batches; every random number comes from the generator that is handed in. What is switched off
draws none, so a crop without it is what it was before there was such a thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from keepmap.data import light
from keepmap.data.labels import IGNORE_INDEX
from keepmap.data.warp import Warp, linear, warped
from keepmap.protocols import Array

Chance = tuple[float, float]
"""(share of the crops that something happens to, how far it goes at most)."""

_STRETCH = 1.5
"""How far a side that is too short for the crop may be stretched before the rest is padded and ignored."""

_PADDED = 0.25
_OFF_CENTRE = 0.25
"""How far from the middle of a crop the pixel that it was chosen for lies at most, in sides of the crop."""
_SEARCHED = 1 << 20
"""Pixels of a mask that are searched for a class at first."""


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a crop.

    scale: smallest and largest magnification, drawn log-uniformly.
    upright: True keeps top and bottom (streets); False also flips vertically and transposes (microscopy).
    invert: share of crops whose intensities are turned over within value_range.
    gain: half-width of the factor around 1; shift: half-width of the offset, in raw values.
    value_range: smallest and largest raw value.
    fill: raw value of each channel that the network normalises to zero; what lies outside the image has it.
    padding: most rows and columns at the bottom and right that a quarter of the crops loses to `fill`, as images lose
    them whose sides are no multiple of the network's stride.

    The others are pairs (share of the crops, how far at most), by default off. Drawn uniformly up to the second number:
    rotation, shear: degrees to either side.
    colour:   half-width of a factor around 1 that every channel has of its own.
    contrast: half-width of the factor around 1 by which values keep away from their channel's mean.
    noise:    standard deviation of Gaussian noise, in raw values.
    blur:     standard deviation of a Gaussian, in pixels of the crop.
    Drawn log-uniformly:
    gamma:    the exponent, from 1 / g to g, between the least and the largest value of the crop.
    coarse:   how many times as wide the pixels were that the crop seems to be taken with, from 1 on.
    And elastic: standard deviation of the displacements, in pixels of the crop, at 3x3 nodes (Ronneberger et al. 2015,
    section 3.1, with 10), bicubic between them; it is fixed, not a most. Up to a sixteenth of the crop nothing folds.
    """

    scale: tuple[float, float]
    upright: bool
    invert: float
    gain: float
    shift: float
    value_range: tuple[float, float]
    fill: tuple[float, ...]
    padding: int
    rotation: Chance = (0.0, 0.0)
    shear: Chance = (0.0, 0.0)
    elastic: Chance = (0.0, 0.0)
    colour: Chance = (0.0, 0.0)
    contrast: Chance = (0.0, 0.0)
    gamma: Chance = (0.0, 1.0)
    noise: Chance = (0.0, 0.0)
    blur: Chance = (0.0, 0.0)
    coarse: Chance = (0.0, 1.0)


def training_crop(
    image: npt.NDArray[Any],
    classes: Array,
    size: int,
    how: Augmentation,
    random: np.random.Generator,
    focus: int | None = None,
    shown: Array | None = None,
) -> tuple[npt.NDArray[np.float32], Array]:
    """One crop of `image` (C, H, W) and `classes` (H, W): x (C, size, size) float32 raw values, y (size, size) int16.

    Pixels outside the image are IGNORE_INDEX in y and `how.fill` in x.
    focus: a class, a random pixel of which lies in the inner half of the crop (at the border of the image, just in the
    crop). Raises ValueError where `classes` has none.
    shown: (H, W) integers that y is of in place of the classes, in their own type.
    """
    labels = classes if shown is None else shown
    middle = (None, None) if focus is None else pixel_of(classes, focus, random)
    magnification = math.exp(random.uniform(*np.log(how.scale)))
    rows, height = span(image.shape[1], size, magnification, random, middle[0])
    columns, width = span(image.shape[2], size, magnification, random, middle[1])
    warp = _warp(how, (rows, height), (columns, width), random)
    if warp is None:
        x = np.empty((image.shape[0], height, width), np.float32)
        _resample(image, rows, columns, x)
        y = labels[np.ix_(_nearest(rows, height), _nearest(columns, width))]
        x = _light(x, how, random)
    else:
        x, y, inside = warped(image, labels, warp, size)
        x = _light(x, how, random)
        if not inside.all():
            y[~inside] = IGNORE_INDEX
            x = np.where(inside, x, np.reshape(np.asarray(how.fill, np.float32), (-1, 1, 1)))
    x, y = _flip(x, y, how.upright, random)
    return padded(x, y, size, how, random)


def pixel_of(classes: npt.NDArray[np.int16], wanted: int, random: np.random.Generator) -> tuple[int, int]:
    """(row, column) of a random pixel of the class `wanted`. Raises ValueError where there is none.

    Of a large mask every n-th row and column is searched, from random ones on, and all of it if that finds nothing.
    """
    step = math.ceil(math.sqrt(classes.size / _SEARCHED))
    top, left = (int(first) for first in random.integers(0, step, 2))
    for part, (row, column), factor in ((classes[top::step, left::step], (top, left), step), (classes, (0, 0), 1)):
        found = np.flatnonzero(part == wanted)
        if len(found):
            down, right = divmod(int(found[random.integers(len(found))]), part.shape[1])
            return row + factor * down, column + factor * right
    raise ValueError(f"no pixel is of the class {wanted}")


def padded(
    x: npt.NDArray[np.float32],
    y: Array,
    size: int,
    how: Augmentation,
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], Array]:
    """The crop with everything at its bottom and right that is not image filled and ignored."""
    lost = random.integers(0, how.padding + 1, 2) * (random.random() < _PADDED)
    height, width = (max(1, min(n, size - cut)) for n, cut in zip(y.shape, lost, strict=True))
    filled = np.empty((len(x), size, size), np.float32)
    filled[...] = np.reshape(how.fill, (-1, 1, 1))
    ignored = np.full((size, size), IGNORE_INDEX, y.dtype)
    filled[:, :height, :width] = x[:, :height, :width]
    ignored[:height, :width] = y[:height, :width]
    return filled, ignored


def span(
    extent: int, size: int, magnification: float, random: np.random.Generator, middle: int | None = None
) -> tuple[tuple[float, float], int]:
    """One axis: the part (start, stop) of the image in pixels, and the number of crop pixels it fills.

    middle: a pixel that the part lies around, as far as the image allows.
    """
    wanted = size / magnification
    part = min(float(extent), wanted)
    if middle is None:
        start = random.uniform(0, extent - part)
    else:
        before = part * random.uniform(0.5 - _OFF_CENTRE, 0.5 + _OFF_CENTRE)
        start = min(max(middle + 0.5 - before, 0.0), extent - part)
    filled = max(1, min(size, round(part * magnification * _STRETCH)))
    return (start, start + part), filled


def _warp(
    how: Augmentation,
    rows: tuple[tuple[float, float], int],
    columns: tuple[tuple[float, float], int],
    random: np.random.Generator,
) -> Warp | None:
    """The map of a crop that is more than a window, None for one that is not. rows, columns: as from `span`."""
    degrees, shear = _to_either_side(how.rotation, random), _to_either_side(how.shear, random)
    moves = random.normal(0, how.elastic[1], (2, 3, 3)) if _happens(how.elastic, random) else None
    if degrees == shear == 0 and moves is None:
        return None
    spans = (rows, columns)
    scale = [(stop - start) / filled for (start, stop), filled in spans]
    return Warp(
        crop=(rows[1] / 2, columns[1] / 2),
        image=(sum(rows[0]) / 2, sum(columns[0]) / 2),
        matrix=linear(degrees, shear, (scale[0], scale[1])),
        moves=moves,
    )


def _happens(chance: Chance, random: np.random.Generator) -> bool:
    return chance[0] > 0 and random.random() < chance[0]


def _to_either_side(chance: Chance, random: np.random.Generator) -> float:
    return random.uniform(-chance[1], chance[1]) if _happens(chance, random) else 0.0


def _nearest(span: tuple[float, float], count: int) -> npt.NDArray[np.int64]:
    start, stop = span
    places: npt.NDArray[np.int64] = np.floor(start + (np.arange(count) + 0.5) * ((stop - start) / count)).astype(
        np.int64
    )
    return places


def _resample(
    image: npt.NDArray[Any], rows: tuple[float, float], columns: tuple[float, float], out: npt.NDArray[np.float32]
) -> None:
    """Bilinear with antialiasing of the box rows x columns of every channel into `out` (C, h, w)."""
    top, left = math.floor(rows[0]), math.floor(columns[0])
    region = image[:, top : math.ceil(rows[1]), left : math.ceil(columns[1])]
    box = (columns[0] - left, rows[0] - top, columns[1] - left, rows[1] - top)
    for channel, target in zip(region, out, strict=True):
        plane = channel if channel.dtype == np.uint8 else channel.astype(np.float32)
        picture = Image.fromarray(np.ascontiguousarray(plane))
        target[...] = picture.resize((out.shape[2], out.shape[1]), Image.Resampling.BILINEAR, box=box)


def _flip(
    x: npt.NDArray[np.float32], y: Array, upright: bool, random: np.random.Generator
) -> tuple[npt.NDArray[np.float32], Array]:
    horizontal, vertical, transposed = random.random(3) < 0.5
    if horizontal:
        x, y = x[..., ::-1], y[..., ::-1]
    if vertical and not upright:
        x, y = x[:, ::-1], y[::-1]
    if transposed and not upright:
        x, y = x.swapaxes(1, 2), y.swapaxes(0, 1)
    return x, y


def _light(x: npt.NDArray[np.float32], how: Augmentation, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """`x` seen through a worse lens, under another light, by a worse sensor; every value stays in how.value_range."""
    low, high = how.value_range
    turned = random.random() < how.invert
    gain = 1 + random.uniform(-how.gain, how.gain)
    shift = random.uniform(-how.shift, how.shift)
    if _happens(how.blur, random):
        x = light.blurred(x, random.uniform(0, how.blur[1]))
    if _happens(how.coarse, random):
        x = light.coarse(x, math.exp(random.uniform(0, math.log(how.coarse[1]))))
    if turned:
        x = low + high - x
    x = np.clip((x - low) * np.float32(gain) + np.float32(low + shift), low, high)
    lit = _more_light(x, how, random)
    return x if lit is x else np.clip(lit, low, high)


def _more_light(x: npt.NDArray[np.float32], how: Augmentation, random: np.random.Generator) -> npt.NDArray[np.float32]:
    if _happens(how.colour, random):
        x = light.scaled(x, 1 + random.uniform(-how.colour[1], how.colour[1], len(x)), how.value_range[0])
    if _happens(how.contrast, random):
        x = light.contrasted(x, 1 + random.uniform(-how.contrast[1], how.contrast[1]))
    if _happens(how.gamma, random):
        most = math.log(how.gamma[1])
        x = light.bent(x, math.exp(random.uniform(-most, most)))
    if _happens(how.noise, random):
        x = light.noisy(x, random.uniform(0, how.noise[1]), random)
    return x
