"""From one decoded image and its classes to one training crop: one resampling for both, then flips and light.

Knows no files and no batches; every random number comes from the generator that is handed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from keepmap.data.labels import IGNORE_INDEX

_STRETCH = 1.5
"""How far a side that is too short for the crop may be stretched before the rest is padded and ignored."""

_PADDED = 0.25


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
    """

    scale: tuple[float, float]
    upright: bool
    invert: float
    gain: float
    shift: float
    value_range: tuple[float, float]
    fill: tuple[float, ...]
    padding: int


def training_crop(
    image: npt.NDArray[Any],
    classes: npt.NDArray[np.int16],
    size: int,
    how: Augmentation,
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """One crop of `image` (C, H, W) and `classes` (H, W): x (C, size, size) float32 raw values, y (size, size) int16.

    Pixels outside the image are IGNORE_INDEX in y and `how.fill` in x.
    """
    magnification = math.exp(random.uniform(*np.log(how.scale)))
    rows, height = _span(image.shape[1], size, magnification, random)
    columns, width = _span(image.shape[2], size, magnification, random)
    x = np.empty((image.shape[0], height, width), np.float32)
    _resample(image, rows, columns, x)
    y = classes[np.ix_(_nearest(rows, height), _nearest(columns, width))]
    x, y = _flip(_light(x, how, random), y, how.upright, random)
    return _padded(x, y, size, how, random)


def _padded(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int16],
    size: int,
    how: Augmentation,
    random: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    """The crop with everything at its bottom and right that is not image filled and ignored."""
    lost = random.integers(0, how.padding + 1, 2) * (random.random() < _PADDED)
    height, width = (max(1, min(n, size - cut)) for n, cut in zip(y.shape, lost, strict=True))
    filled = np.empty((len(x), size, size), np.float32)
    filled[...] = np.reshape(how.fill, (-1, 1, 1))
    ignored = np.full((size, size), IGNORE_INDEX, np.int16)
    filled[:, :height, :width] = x[:, :height, :width]
    ignored[:height, :width] = y[:height, :width]
    return filled, ignored


def _span(extent: int, size: int, magnification: float, random: np.random.Generator) -> tuple[tuple[float, float], int]:
    """One axis: the part (start, stop) of the image in pixels, and the number of crop pixels it fills."""
    wanted = size / magnification
    part = min(float(extent), wanted)
    start = random.uniform(0, extent - part)
    filled = max(1, min(size, round(part * magnification * _STRETCH)))
    return (start, start + part), filled


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
    x: npt.NDArray[np.float32], y: npt.NDArray[np.int16], upright: bool, random: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    horizontal, vertical, transposed = random.random(3) < 0.5
    if horizontal:
        x, y = x[..., ::-1], y[..., ::-1]
    if vertical and not upright:
        x, y = x[:, ::-1], y[::-1]
    if transposed and not upright:
        x, y = x.swapaxes(1, 2), y.swapaxes(0, 1)
    return x, y


def _light(x: npt.NDArray[np.float32], how: Augmentation, random: np.random.Generator) -> npt.NDArray[np.float32]:
    low, high = how.value_range
    turned = random.random() < how.invert
    gain = 1 + random.uniform(-how.gain, how.gain)
    shift = random.uniform(-how.shift, how.shift)
    if turned:
        x = low + high - x
    lit: npt.NDArray[np.float32] = np.clip((x - low) * np.float32(gain) + np.float32(low + shift), low, high)
    return lit
