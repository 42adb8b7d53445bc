"""The mean of the probabilities of several networks, or of one on several views of an image, as one runtime.

Knows runtimes and arrays; neither labels nor where the networks come from.

A view is the image flipped, turned or scaled. So that a part of an image is seen as it is in the whole, it is first
padded at the bottom and right, with what the network takes for the mean, to a multiple of a stride at which scaled
grids meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf, lcm
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F

from keepmap.errors import OptionError, nearest
from keepmap.geometry.tiles import round_up
from keepmap.protocols import Array, Output, Runtime
from keepmap.runtime.outputs import label_dtype

_KINDS = ("flips", "rotations", "scales")
_SCALES = (Fraction(3, 4), Fraction(1), Fraction(5, 4))
_MIXED = 4
"""Pixels around a scaled one that interpolation there and back mixes in, at most."""


@dataclass(frozen=True)
class View:
    """An image scaled, then mirrored left to right if `flipped`, then turned by quarter turns."""

    flipped: bool = False
    turns: int = 0
    scale: Fraction = Fraction(1)

    def of(self, x: Array) -> Array:
        """The view of x (N, C, h, w); h and w times `scale` are whole."""
        seen = _resized(x, (int(x.shape[2] * self.scale), int(x.shape[3] * self.scale)))
        seen = seen[..., ::-1] if self.flipped else seen
        return np.ascontiguousarray(np.rot90(seen, self.turns, (2, 3)))

    def back(self, values: Array, size: tuple[int, int]) -> Array:
        """Values (N, K, h', w') of the view as those of the image (N, K, *size)."""
        back = np.rot90(values, -self.turns, (2, 3))
        return _resized(back[..., ::-1] if self.flipped else back, size)


def views_of(text: str) -> tuple[View, ...]:
    """The views for --tta: flips (4), rotations (4), both (8), each at three scales if these are named too.

    Raises OptionError for a word that is none of them.
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in _KINDS:
            raise OptionError(f"--tta {word} does not exist.", found=text, expected=nearest(word, _KINDS))
    flips = (False, True) if "flips" in words else (False,)
    turns = range(4) if "rotations" in words else range(0, 4, 2 if "flips" in words else 4)
    scales = _SCALES if "scales" in words else (Fraction(1),)
    return tuple(View(flip, turn, scale) for scale in scales for turn in turns for flip in flips)


class AveragedRuntime:
    """The mean over `runtimes` and, for each, over `views`; as safe to share between threads as they are.

    runtimes: of equal channels and classes. Pixels that were never measured have the mean of the first.
    """

    unstreamable = "the mean of several networks or views is computed in one pass or in tiles"
    quick_pass = inf

    def __init__(self, runtimes: Sequence[Runtime], views: Sequence[View] = (View(),)) -> None:
        first = runtimes[0]
        self.runtimes, self._views = tuple(runtimes), tuple(views)
        self._plain = self._views == (View(),)
        self._scales = {view.scale for view in views}
        self.channels, self.classes, self.mean = first.channels, first.classes, first.mean
        self.stride = lcm(*(runtime.stride * scale.denominator for runtime in runtimes for scale in self._scales))
        self.local = all(runtime.local for runtime in runtimes)
        self.reach = self._reach()

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """What labels come in: uint8 up to 256 classes, int16 above."""
        return label_dtype(self.classes)

    def peak_bytes(self, height: int, width: int) -> int:
        """Bytes that one pass of one image of (height, width) pixels needs at its peak, about."""
        largest = max(self._scales)
        sides = ceil(round_up(height, self.stride) * largest), ceil(round_up(width, self.stride) * largest)
        held = sides[0] * sides[1] * 4 * (2 * self.channels + 3 * self.classes)
        return held + max(max(r.peak_bytes(*sides), r.peak_bytes(*sides[::-1])) for r in self.runtimes)

    def band_bytes(self, band: int, width: int) -> int:
        """Never asked for: see `unstreamable`."""
        raise TypeError(self.unstreamable)

    def free_memory(self) -> int:
        """Bytes that can still be allocated where the networks compute."""
        return min(runtime.free_memory() for runtime in self.runtimes)

    def run(self, x: Array, output: Output = "labels") -> Array:
        """One pass of each network over each view, as `TorchRuntime.run`; logits are logarithms of the mean."""
        total = np.zeros((len(x), self.classes, *x.shape[2:]), np.float32)
        for runtime in self.runtimes:
            padded = x if self._plain else _padded(x, self.stride, runtime.mean)
            for view in self._views:
                values = view.back(runtime.run(view.of(padded), "probabilities"), (padded.shape[2], padded.shape[3]))
                total += values[..., : x.shape[2], : x.shape[3]]
        if output == "labels":
            labels: Array = total.argmax(axis=1).astype(self.label_dtype)
            return labels
        total /= len(self.runtimes) * len(self._views)
        if output == "logits":
            return np.log(np.maximum(total, np.finfo(np.float32).tiny))
        return total

    def stream(
        self, size: tuple[int, int], band: int, read: Callable[[slice], Array], output: Output = "labels"
    ) -> Iterator[Array]:
        """Raises TypeError with the reason in `unstreamable`."""
        raise TypeError(self.unstreamable)

    def check_scores(self) -> NoReturn:
        """Raise OptionError: there is one score map for each network and view."""
        raise OptionError("The mean of several networks or views has no coarse score map.", do="leave out --coarse")

    def scores(self, x: Array) -> Array:
        """Raises as `check_scores`."""
        self.check_scores()

    def _reach(self) -> tuple[int, int]:
        """The rows before and after; where an image is seen from several sides, as many on each of them."""
        before, after = (max(runtime.reach[side] for runtime in self.runtimes) for side in (0, 1))
        if self._plain:
            return before, after
        scaled = self._scales != {Fraction(1)}
        furthest = ceil(max(before, after) / min(self._scales)) + _MIXED * scaled
        return furthest, furthest


def _padded(x: Array, stride: int, mean: Array) -> Array:
    """x (N, C, h, w) with the raw value `mean` (C,) below and to the right, up to multiples of `stride`."""
    height, width = round_up(x.shape[2], stride), round_up(x.shape[3], stride)
    if (height, width) == x.shape[2:]:
        return x
    padded = np.empty((*x.shape[:2], height, width), np.float32)
    padded[:] = mean.reshape(-1, 1, 1)
    padded[..., : x.shape[2], : x.shape[3]] = x
    return padded


def _resized(values: Array, size: tuple[int, int]) -> Array:
    if values.shape[2:] == size:
        return values
    tensor = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    resized: Array = F.interpolate(tensor, size, mode="bilinear", align_corners=False).numpy()
    return resized
