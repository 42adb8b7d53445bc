"""The U-Net's weight map: how much each pixel counts, so that narrow gaps between objects are learnt.

Knows arrays of classes and of objects only; whether a training uses the map is decided where the loss is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from keepmap.data.instances import number_objects
from keepmap.protocols import Array

_FAR = 6.0
"""Distance, in sigma, from which on an object adds nothing: there its term is below the digits of float32."""
_NEIGHBOURS = np.ones((3, 3), int)


def weight_map(
    classes: Array,
    instances: Array | None = None,
    *,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] | None = None,
) -> npt.NDArray[np.float32]:
    """w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)) of each pixel (H, W), float32 (Ronneberger 2015, equation 2).

    classes: (H, W) integers, negative where ignored. instances: (H, W) integers, each object a number above 0 of its
    own; None: the objects are the connected regions of each class above 0, diagonal neighbours being connected.
    w_c: class_weights of its class (1 without, and where ignored). d1, d2: distances in pixels to the nearest and the
    second nearest object, between the centres of pixels. The second term is that of pixels of class 0 alone, which
    neither belong to an object nor are ignored. Objects that touch have no gap, and none is invented.
    """
    weights = np.ones(classes.shape, np.float32)
    if class_weights is not None:
        weights[classes >= 0] = np.asarray(class_weights, np.float32)[classes[classes >= 0]]
    objects = _regions(classes) if instances is None else number_objects(instances)
    both = _two_distances(objects, math.ceil(_FAR * sigma))
    gap = (classes == 0) & (both < _FAR * sigma)
    weights[gap] += w0 * np.exp(-(both[gap] ** 2) / (2 * sigma**2))
    return weights


def _regions(classes: Array) -> Array:
    """(H, W) connected regions of one class as 1, 2, 3, ...; 0 for class 0 and where ignored."""
    numbers = np.zeros(classes.shape, np.int32)
    for value in np.unique(classes[classes > 0]):
        found = ndimage.label(classes == value, _NEIGHBOURS)[0]
        numbers[found > 0] = found[found > 0] + numbers.max()
    return numbers


def _two_distances(objects: Array, reach: int) -> Array:
    """d1 + d2 (H, W), exact where it is below `reach` and not below it elsewhere. objects: 1, 2, 3, ...; beside them 0.

    Each object is looked at within `reach` of it alone, and where another one is there.
    """
    nearest, second = np.full((2, *objects.shape), np.inf)
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        if place is None:
            continue
        around = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in place)
        own = objects[around] == number
        if not ((objects[around] > 0) & ~own).any():
            continue
        distance = ndimage.distance_transform_edt(~own)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    both: Array = nearest + second
    return both
