"""The seams of the package: what a source, a sink, a runtime and a progress display must offer.

Knows arrays and paths only; every implementation lives in a layer further down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
StrPath = str | PathLike[str]
Window = tuple[slice, slice]
"""Rows and columns in pixels, each `slice(start, stop)` with 0 <= start < stop <= extent."""


@dataclass(frozen=True)
class Geometry:
    """How large the pixels of an image are and where they lie, as its file says; a prediction carries the same.

    spacing: height and width of a pixel in `unit`, None where unknown. unit: "micrometer", "inch", ...; "" if unknown.
    origin: row and column of the first pixel's centre, in `unit`.
    tags: the GeoTIFF tags (code, type, count, value) that place the image on the Earth, unchanged.
    """

    spacing: tuple[float, float] | None = None
    unit: str = ""
    origin: tuple[float, float] = (0.0, 0.0)
    tags: tuple[tuple[int, int, int, Any], ...] = ()


class LabelMap(Protocol):
    """Class indices (H, W), negative where there is no class: an array, or what reads like one row by row."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""

    def __getitem__(self, rows: Any, /) -> Any:
        """The indices (h, W) of a slice of rows, or (W,) of one row."""


class ArraySource(Protocol):
    """An image on disk that is read window by window."""

    @property
    def path(self) -> Path:
        """The file, for messages."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W): channels, rows, columns in pixels, after EXIF rotation."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, uint16 or float32; what is stored otherwise is float32 (see `data.samples`)."""

    @property
    def nodata(self) -> float | None:
        """The value, NaN in float32, of pixels that were never measured; None where the file names none."""

    @property
    def orientation(self) -> int:
        """The EXIF rotation 1..8 that was applied."""

    @property
    def geometry(self) -> Geometry:
        """Pixel size and place, after EXIF rotation."""

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w) in the source's dtype; None reads the whole image. Raises DataError."""


class ArraySink(Protocol):
    """A label image being written."""

    def write(self, window: Window, labels: Array) -> None:
        """Put label values (h, w), unsigned integers, at `window`; each pixel is to be written once."""


Output = Literal["labels", "probabilities", "logits"]


class Runtime(Protocol):
    """Where a trained network computes: arrays in, labels out. Safe to share between threads."""

    @property
    def channels(self) -> int:
        """Channels of the image."""

    @property
    def classes(self) -> int:
        """K, the number of classes."""

    @property
    def mean(self) -> Array:
        """The raw value (C,) that stands for pixels that were never measured."""

    @property
    def stride(self) -> int:
        """Total stride in pixels: parts of an image begin at multiples of it."""

    @property
    def reach(self) -> tuple[int, int]:
        """(before, after): the rows that an output row depends on, in pixels."""

    @property
    def local(self) -> bool:
        """Whether computing in parts equals computing the whole."""

    @property
    def unstreamable(self) -> str:
        """Why an image cannot be computed in bands; "" where it can."""

    @property
    def quick_pass(self) -> float:
        """Bytes of a pass from which bands take less time; infinite where they never do."""

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """What labels come in: uint8 up to 256 classes, int16 above."""

    def peak_bytes(self, height: int, width: int) -> int:
        """Bytes that one pass of one image of (height, width) pixels needs at its peak, about."""

    def band_bytes(self, band: int, width: int) -> int:
        """Bytes that `stream` needs at its peak for bands of so many rows of `width` pixels, about."""

    def free_memory(self) -> int:
        """Bytes that can still be allocated where the network computes."""

    def run(self, x: Array, output: Output = "labels") -> Array:
        """One pass of raw values x (N, C, h, w): labels (N, h, w), probabilities or logits (N, K, h, w) float32."""

    def stream(
        self, size: tuple[int, int], band: int, read: Callable[[slice], Array], output: Output = "labels"
    ) -> Iterator[Array]:
        """One image of `size` (H, W) in bands of `band` rows: labels (n, W) or values (K, n, W), in order."""

    def check_scores(self) -> object:
        """Raise OptionError where there is no score map before the upsampling."""

    def scores(self, x: Array) -> Array:
        """The raw score map (N, K, h / s, w / s) float32, s its stride, rounded up; x as in `run`."""


class Tracker(Protocol):
    """One long step under way."""

    def advance(self, done: float = 1, **figures: float | str) -> None:
        """`done` more units are finished; figures (loss=0.31, ...) are shown beside the bar."""

    def resize(self, total: float) -> None:
        """The step turned out to be of `total` units."""


class Progress(Protocol):
    """Where long steps say how far they are: a bar, plain lines or nothing."""

    def say(self, text: str) -> None:
        """One line of text for the user."""

    def track(self, name: str, total: float, unit: str) -> AbstractContextManager[Tracker]:
        """Show a step of `total` units (images, steps, tiles) with its rate and the time left."""


class Silent:
    """A Progress, and its own Tracker, that shows nothing: the default of every Python function."""

    def say(self, text: str) -> None:
        """Drop the line."""

    def track(self, name: str, total: float, unit: str) -> Silent:
        """Itself, as a context that shows nothing."""
        return self

    def advance(self, done: float = 1, **figures: float | str) -> None:
        """Nothing."""

    def resize(self, total: float) -> None:
        """Nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None: ...
