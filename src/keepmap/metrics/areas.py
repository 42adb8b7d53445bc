"""What a label map holds: the area of each class, its objects and their sizes.

Knows class indices only: neither their names, nor the size of a pixel, nor files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from keepmap.metrics.confusion import Indices
from keepmap.metrics.objects import Components
from keepmap.protocols import LabelMap

BAND = 1 << 20
"""Pixels that are looked at in one go."""


@dataclass(frozen=True)
class ClassArea:
    """One class in one label map.

    pixels: its area. percent: of all pixels that are of a class, NaN where there are none.
    objects: how many; an object is a connected region, through sides and corners, as in the scores.
    smallest, median, mean, largest: their areas in pixels, NaN where there are none.
    """

    pixels: int
    percent: float
    objects: int
    smallest: float
    median: float
    mean: float
    largest: float


def class_areas(indices: LabelMap, classes: int, *, band: int = BAND) -> list[ClassArea]:
    """The figures of each class of a map (H, W) of class indices 0..classes - 1, negative where there is no class.

    indices: may be mapped from a file; `band` pixels are looked at at a time, and memory follows the number of objects.
    """
    components = Components()
    pixels = np.zeros(1, np.int64)
    for _, part in bands_of(indices, band):
        numbers = components.add(part)
        pixels = np.append(pixels, np.zeros(len(components.classes) - len(pixels), np.int64))
        pixels += np.bincount(numbers.reshape(-1), minlength=len(pixels))
    roots = components.roots()
    sizes = np.bincount(roots[1:], pixels[1:], len(roots)).astype(np.int64)
    kinds = np.full(len(roots), -1)
    kinds[roots] = components.classes
    return [_figures(np.sort(sizes[kinds == k]), int(sizes.sum())) for k in range(classes)]


def bands_of(indices: LabelMap, band: int = BAND) -> Iterator[tuple[slice, Indices]]:
    """Rows of a map (H, W) and their class indices int16, about `band` pixels at a time."""
    height, width = indices.shape
    step = max(1, band // max(width, 1))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        yield rows, np.asarray(indices[rows], np.int16)


def _figures(sizes: npt.NDArray[np.int64], total: int) -> ClassArea:
    """sizes: of the objects of one class, in pixels, rising. total: pixels of all classes."""
    pixels = int(sizes.sum())
    percent = 100 * pixels / total if total else math.nan
    if not len(sizes):
        return ClassArea(pixels, percent, 0, math.nan, math.nan, math.nan, math.nan)
    middle, mean = float(np.median(sizes)), pixels / len(sizes)
    return ClassArea(pixels, percent, len(sizes), float(sizes[0]), middle, mean, float(sizes[-1]))
