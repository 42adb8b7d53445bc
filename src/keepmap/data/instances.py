"""Masks in which each object has a number of its own: how they are recognised, turned to classes and kept.

Does not know what a class is, nor scores for objects.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from keepmap.data.masks import read_mask
from keepmap.data.values import is_coloured
from keepmap.options import ImageOptions
from keepmap.protocols import Array

LEAST_OBJECTS = 20
"""A mask with fewer values above 0 says nothing about what they are."""

_SCATTERED = 20  # one value in so many may fall apart: an object that another one crosses
_NEIGHBOURS = np.ones((3, 3), int)


def holds_objects(values: Array) -> bool | None:
    """Whether each value above 0 of a mask (H, W) is one connected region, as numbers of objects are and classes not.

    Diagonal neighbours are connected; one value in 20 may be in parts. Nor are 20 regions of 1, with nothing else above
    0, one object. None where there are fewer than 20 values above 0, or colours, so that the mask alone does not tell.
    """
    if values.size and values.min() >= 0 and values.max() == 1:
        return False if ndimage.label(values, _NEIGHBOURS)[1] >= LEAST_OBJECTS else None
    numbers, compact = np.unique(values, return_inverse=True)
    first = int(np.searchsorted(numbers, 1))
    count = len(numbers) - first
    if count < LEAST_OBJECTS or is_coloured([int(numbers[-1])]):
        return None
    compact = compact.reshape(values.shape) - (first - 1)
    scattered = 0
    for number, place in enumerate(ndimage.find_objects(compact.clip(0)), start=1):
        scattered += ndimage.label(compact[place] == number, _NEIGHBOURS)[1] > 1
        if scattered * _SCATTERED > count:
            return False
    return True


def number_their_objects(instances: str, named: bool, told: Collection[bool | None]) -> bool:
    """Whether the masks of a data set number objects.

    instances: "yes", "no", or "auto": where the classes are not `named`, some mask tells so and none the contrary.
    told: what `holds_objects` says of each mask.
    """
    return instances == "yes" or (instances == "auto" and not named and set(told) - {None} == {True})


def collapse(values: Array, ignored: int | None) -> Array:
    """1 for every object of an instance mask (H, W), 0 beside them; negative and ignored values stay."""
    return np.where((values > 0) & (values != ignored), values.dtype.type(1), values)


def number_objects(values: Array, ignored: int | None = None) -> npt.NDArray[np.int32]:
    """The objects of an instance mask (H, W) as 1, 2, 3, ... by their values; 0 beside them, -1 where ignored."""
    objects = (values > 0) & (values != ignored)
    numbers = np.zeros(values.shape, np.int32)
    numbers[objects] = np.unique(values[objects], return_inverse=True)[1].reshape(-1) + 1
    if ignored is not None:
        numbers[values == ignored] = -1
    return numbers


def read_objects(
    path: Path, ignored: int | None = None, reading: ImageOptions = ImageOptions()  # noqa: B008
) -> npt.NDArray[np.int32]:
    """`number_objects` of a mask file. Raises DataError."""
    return number_objects(read_mask(path, reading), ignored)
