"""A user's own augmentation, an albumentations pipeline, say: seeded for every crop, and what it returns is checked.

Knows no transform, and cuts windows only: it is called in place of `training_crop`'s changes, not beside them.
"""

from __future__ import annotations

import contextlib
import random as python_random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from keepmap.data.augment import Augmentation, padded, pixel_of, span
from keepmap.data.labels import IGNORE_INDEX
from keepmap.errors import OptionError
from keepmap.protocols import Array

_NAME = "The augment= callable"


class Pipeline(Protocol):
    """What `train(augment=...)` takes; albumentations' Compose is one.

    image: (S, S, C) in the type that the files have; mask: (S, S) int16 class indices, -1 where ignored. Both are the
    callable's to write to. It returns a mapping whose "image" and "mask" have the same shapes; the image has the same
    type (the network normalises: no Normalize, no ToTensor), the mask any integer type.

    Before every call the global generators of Python, NumPy and torch are seeded for that crop, and `set_random_seed`
    is called where the object has one, as albumentations has since it keeps generators of its own. So long as its
    randomness comes from these, a training is repeated and resumed exactly, with any number of workers.
    """

    def __call__(self, *, image: Array, mask: Array) -> Mapping[str, Any]:
        """The changed crop as {"image": ..., "mask": ...}."""
        ...


@dataclass(frozen=True)
class Own:
    """A user's callable and the number of classes that its masks may have."""

    pipeline: Pipeline
    classes: int


def pipeline_name(pipeline: Pipeline) -> str:
    """What messages call it: the name of the function, or of the class."""
    return str(getattr(pipeline, "__qualname__", type(pipeline).__qualname__))


def own_crop(
    image: npt.NDArray[Any],
    classes: npt.NDArray[np.int16],
    size: int,
    how: Augmentation,
    random: np.random.Generator,
    own: Own,
    focus: int | None = None,
) -> tuple[npt.NDArray[np.float32], Array]:
    """As `training_crop`, but a window at the image's own scale that nothing but the user's callable changes.

    Of `how` only fill and padding count. Raises OptionError where the callable fails or returns something else.
    """
    x, y = _window(image, classes, size, how, random, focus)
    seed = int(random.integers(2**32))
    try:
        with seeded_globals(seed):
            if callable(reseed := getattr(own.pipeline, "set_random_seed", None)):
                reseed(seed)
            result = own.pipeline(image=x.copy(), mask=y.copy())
    except Exception as error:
        raise OptionError(
            f"{_NAME} failed.", found=f"{type(error).__name__}: {error}",
            do=f"call it yourself with image={_described(x)}, mask={_described(y)}",
        ) from error  # fmt: skip
    changed, mask = _checked(result, x, y, own.classes)
    return padded(np.moveaxis(changed, -1, 0).astype(np.float32), mask.astype(np.int16), size, how, random)


@contextlib.contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Python's, NumPy's and torch's (CPU) global generators begin at `seed`; afterwards they are as before.

    Not while another thread draws from them.
    """
    states = python_random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        python_random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        python_random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _window(
    image: npt.NDArray[Any],
    classes: npt.NDArray[np.int16],
    size: int,
    how: Augmentation,
    random: np.random.Generator,
    focus: int | None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int16]]:
    """(size, size, C) in the image's own type and (size, size): filled and ignored beyond the bottom and right."""
    middle = (None, None) if focus is None else pixel_of(classes, focus, random)
    fill = np.asarray(how.fill)
    fill = fill if image.dtype.kind == "f" else fill.round()
    x = np.empty((size, size, len(image)), image.dtype)
    x[...] = fill.astype(image.dtype)
    y = np.full((size, size), IGNORE_INDEX, np.int16)
    starts = [
        round(span(extent, size, 1.0, random, place)[0][0])
        for extent, place in zip(classes.shape, middle, strict=True)
    ]  # fmt: skip
    rows, columns = (slice(start, start + size) for start in starts)
    seen = classes[rows, columns]
    height, width = seen.shape
    y[:height, :width] = seen
    x[:height, :width] = np.moveaxis(image[:, rows, columns], 0, -1)
    return x, y


def _checked(
    result: Any, x: npt.NDArray[Any], y: npt.NDArray[np.int16], classes: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The image and the mask of `result`. Raises OptionError where they are not what they have to be."""
    if not isinstance(result, Mapping) or not {"image", "mask"} <= result.keys():
        found = f"keys {', '.join(map(str, result))}" if isinstance(result, Mapping) else type(result).__name__
        raise OptionError(
            f"{_NAME} returned something else.", found=found, expected='a mapping with "image" and "mask"',
        )  # fmt: skip
    image, mask = result["image"], result["mask"]
    if not isinstance(image, np.ndarray) or (image.shape, image.dtype) != (x.shape, x.dtype):
        raise OptionError(
            f"{_NAME} returned an image of another kind.", found=_described(image), expected=_described(x),
            do="end with the size that came in; leave out Normalize and ToTensor, the network normalises",
        )  # fmt: skip
    if not isinstance(mask, np.ndarray) or mask.shape != y.shape or mask.dtype.kind not in "iu":
        raise OptionError(
            f"{_NAME} returned a mask of another kind.", found=_described(mask), expected=f"{y.shape} of integers"
        )
    if mask.min() < IGNORE_INDEX or mask.max() >= classes:
        raise OptionError(
            f"{_NAME} returned classes that there are not.", found=f"{mask.min()}..{mask.max()}",
            expected=f"{IGNORE_INDEX} for ignored, and 0..{classes - 1}",
            do="resample masks by the nearest pixel, and fill them with -1",
        )  # fmt: skip
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise OptionError(f"{_NAME} returned values that are no numbers.", expected="finite values")
    return image, mask


def _described(array: Any) -> str:
    return f"{array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
