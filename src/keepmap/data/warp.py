"""One resampling of an image and its classes through any affine map and an elastic one: rotated, sheared, scaled, bent.

Draws no random number and knows no intensities; flips are whole array operations and happen elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from keepmap.protocols import Array

Plane = npt.NDArray[np.float32]

_NODES = 3
"""Nodes of the elastic grid along each side (Ronneberger et al. 2015, section 3.1)."""
_LEAST_SHRINK = 1.1
"""How much an image may shrink before one bilinear sample a pixel is too few."""
_MOST_SHRINK = 1.25
"""How much four samples a pixel are left to shrink an image by; a factor above it is averaged away before."""
_KEYS = -0.5
"""Parameter of the bicubic kernel (Keys 1981): with -0.5 it reproduces parabolas."""


@dataclass(frozen=True)
class Warp:
    """Where the pixels of a crop come from. Pairs are (row, column); a pixel's centre lies at its index + 0.5.

    crop: the point of the crop, in its pixels, that shows the point `image` of the image, in its pixels.
    matrix: pixels of the image per pixel of the crop, ((row by row, row by column), (column by row, by column)).
    moves: (2, 3, 3) displacements in pixels of the crop at the corners, the middles of the sides and the centre of the
    crop, bicubic between them; None for an affine map.
    """

    crop: tuple[float, float]
    image: tuple[float, float]
    matrix: tuple[tuple[float, float], tuple[float, float]]
    moves: npt.NDArray[np.float64] | None = None


def linear(degrees: float, shear: float, scale: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """The matrix of a Warp that shows the image turned anti-clockwise by `degrees`, then sheared along the crop's rows.

    shear: degrees by which upright lines lean. scale: pixels of the image per pixel of the crop, (rows, columns).
    """
    c, s, t = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), math.tan(math.radians(shear))
    rows, columns = scale
    return (rows * (c + s * t), rows * s), (columns * (c * t - s), columns * c)


def warped(
    image: npt.NDArray[Any], classes: Array, warp: Warp, size: int
) -> tuple[Plane, Array, npt.NDArray[np.bool_]]:
    """x (C, size, size) float32, y (size, size) in its own type and where both lie inside the image, (size, size).

    x is bilinear, with antialiasing where the image shrinks; y is the class of the pixel that a place lies in. Outside
    the border of the image is repeated.
    """
    rows, columns, (top, left) = _places(warp, size)
    shrink = [math.hypot(*row) for row in warp.matrix]
    row_cut, rows = _cut(rows, top, image.shape[1], shrink[0])
    column_cut, columns = _cut(columns, left, image.shape[2], shrink[1])
    near = np.ascontiguousarray(classes[row_cut, column_cut])
    height, width = near.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    flat = _within(rows, height) * np.int32(width) + _within(columns, width)
    region, (tall, wide) = _reduced(image[:, row_cut, column_cut], shrink)
    if tall * wide > 1:
        rows, columns = rows / np.float32(tall), columns / np.float32(wide)
    x = _sampled(region, rows, columns, (shrink[0] / tall, shrink[1] / wide))
    return x, near.reshape(-1).take(flat), inside


def _places(warp: Warp, size: int) -> tuple[Plane, Plane, tuple[int, int]]:
    """Row and column of each pixel of the crop in the image, from a whole pixel on: exact enough in float32."""
    top, left = (math.floor(place) for place in warp.image)
    steps = np.arange(size) + 0.5
    down, right = ((steps - middle).astype(np.float32) for middle in warp.crop)
    (a, b), (c, d) = np.asarray(warp.matrix, np.float32)
    rows = np.add.outer(down * a + np.float32(warp.image[0] - top), right * b)
    columns = np.add.outer(down * c + np.float32(warp.image[1] - left), right * d)
    if warp.moves is not None:
        basis = bicubic(size)
        bent_down, bent_right = (basis @ move.astype(np.float32) @ basis.T for move in warp.moves)
        rows += a * bent_down + b * bent_right
        columns += c * bent_down + d * bent_right
    return rows, columns, (top, left)


def _cut(places: Plane, base: int, extent: int, shrink: float) -> tuple[slice, Plane]:
    """The part of an axis of the image that `places` (from `base` on) and what is sampled beside them need."""
    beside = 2 + math.ceil(2 * shrink)
    first = min(max(base + math.floor(float(places.min())) - beside, 0), extent - 1)
    last = max(min(base + math.ceil(float(places.max())) + beside, extent), first + 1)
    return slice(first, last), places + np.float32(base - first)


def _within(places: Plane, extent: int) -> npt.NDArray[np.int32]:
    return np.clip(places, 0, extent - 1).astype(np.int32)  # which rounds down what is not negative


@lru_cache(maxsize=4)
def bicubic(size: int) -> Plane:
    """(size, 3): the weights of nodes at 0, size / 2 and size for each pixel's centre; the outer ones repeat."""
    places = (np.arange(size) + 0.5) * ((_NODES - 1) / size)
    weights = np.zeros((size, _NODES))
    for node in range(-1, _NODES + 1):
        weights[:, min(max(node, 0), _NODES - 1)] += _cubic(np.abs(places - node))
    return weights.astype(np.float32)


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    near = ((_KEYS + 2) * distance - (_KEYS + 3)) * distance**2 + 1
    far = _KEYS * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _reduced(region: npt.NDArray[Any], shrink: Sequence[float]) -> tuple[Plane, tuple[int, int]]:
    """`region` (C, h, w) as float32 and the whole factors it is averaged down by, of an image that shrinks strongly."""
    rows, columns = (max(1, math.floor(s / _MOST_SHRINK)) for s in shrink)
    if rows * columns == 1:
        return region.astype(np.float32), (1, 1)
    planes = [channel if channel.dtype == np.uint8 else channel.astype(np.float32) for channel in region]
    reduced = [np.asarray(Image.fromarray(np.ascontiguousarray(p)).reduce((columns, rows)), np.float32) for p in planes]
    return np.stack(reduced), (rows, columns)


def _sampled(region: Plane, rows: Plane, columns: Plane, shrink: Sequence[float]) -> Plane:
    """`region` (C, h, w) at places in its own pixels, (size, size) each: bilinear, a mean of four where it shrinks.

    The four lie so that the variance of what a pixel sees is that of the triangle which `training_crop` resizes with,
    s^2 / 6 for an axis that shrinks by s; the bilinear kernel alone has 1 / 6.
    """
    _, height, width = region.shape
    grid = np.empty((1, *rows.shape, 2), np.float32)
    np.multiply(columns, np.float32(2 / width), out=grid[0, ..., 0])
    np.multiply(rows, np.float32(2 / height), out=grid[0, ..., 1])
    grid -= 1
    planes = torch.from_numpy(np.ascontiguousarray(region))[None]
    if max(shrink) < _LEAST_SHRINK:
        return _bilinear(planes, grid)
    down, right = (2 * math.sqrt(max(s**2 - 1, 0.0) / 6) / n for s, n in zip(shrink, (height, width), strict=True))
    pairs = grid.view(np.complex64)  # one number for a place: much faster to add to than two
    x = np.zeros((len(region), *rows.shape), np.float32)
    for step in (complex(right, down), complex(-2 * right), complex(0, -2 * down), complex(2 * right)):
        pairs += np.complex64(step)
        x += _bilinear(planes, grid)
    return x * np.float32(0.25)


def _bilinear(planes: Tensor, grid: Plane) -> Plane:
    """A batch of one image is the work of one thread to torch, however many it may use."""
    x: Plane = grid_sample(
        planes, torch.from_numpy(grid), mode="bilinear", padding_mode="border", align_corners=False
    )[0].numpy()  # fmt: skip
    return x
