"""What changes the values of a crop and not its places: contrast, gamma, noise, blur, low resolution.

Draws no amounts, knows no classes and cuts nothing off: what leaves the range of the data is the caller's to clip.
Each function takes x (C, H, W) float32 raw values, any C, H, W >= 1, and returns a new array of that shape and type.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Planes = npt.NDArray[np.float32]

_REACH = 3.0
"""Standard deviations after which a Gaussian is cut off."""


def scaled(x: Planes, factors: npt.NDArray[np.float64], zero: float) -> Planes:
    """Every channel's distance from `zero` times its factor, (C,): colour jitter."""
    jittered: Planes = (x - np.float32(zero)) * np.asarray(factors, np.float32)[:, None, None] + np.float32(zero)
    return jittered


def contrasted(x: Planes, factor: float) -> Planes:
    """Every channel's distance from its mean times `factor`."""
    mean = x.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    stretched: Planes = (x - mean) * np.float32(factor) + mean
    return stretched


def bent(x: Planes, exponent: float) -> Planes:
    """Gamma: the place of a value between the least and the largest of the crop, 0 to 1, to the power of `exponent`.

    Both ends stay where they are, so the range of the values does too, whatever part of its type the data uses.
    """
    low, high = x.min(), x.max()
    if not high > low:
        return x.copy()
    span = high - low
    curved: Planes = np.power((x - low) / span, np.float32(exponent)) * span + low
    return curved


def noisy(x: Planes, deviation: float, random: np.random.Generator) -> Planes:
    """Gaussian noise on every value of every channel. deviation: in raw values."""
    return x + random.standard_normal(x.shape, np.float32) * np.float32(deviation)


def blurred(x: Planes, deviation: float) -> Planes:
    """Every channel under a Gaussian; the border repeats. deviation: in pixels of the crop."""
    smooth: Planes = ndimage.gaussian_filter(x, (0.0, deviation, deviation), mode="nearest", truncate=_REACH)
    return smooth


def coarse(x: Planes, factor: float) -> Planes:
    """As if taken with pixels `factor` times as wide, and enlarged again. factor: 1 or more."""
    height, width = x.shape[1:]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    out = np.empty_like(x)
    for plane, target in zip(x, out, strict=True):
        shrunk = Image.fromarray(np.ascontiguousarray(plane)).resize(small, Image.Resampling.BOX)
        target[...] = shrunk.resize((width, height), Image.Resampling.BILINEAR)
    return out
