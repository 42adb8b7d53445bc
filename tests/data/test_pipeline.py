"""A user's callable is seeded for every crop, is told what it may count on, and is refused with what it did wrong."""

from __future__ import annotations

import random as python_random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from keepmap.data.augment import Augmentation
from keepmap.data.labels import IGNORE_INDEX
from keepmap.data.pipeline import Own, own_crop, pipeline_name, seeded_globals
from keepmap.errors import OptionError

HOW = Augmentation(
    scale=(0.5, 2.0),
    upright=False,
    invert=0.5,
    gain=0.3,
    shift=25.0,
    value_range=(0.0, 255.0),
    fill=(9.4,),
    padding=0,
)
IMAGE = np.random.default_rng(0).integers(0, 256, (3, 60, 70), dtype=np.uint8)
CLASSES = (IMAGE[0] // 100).astype(np.int16)


class Compose:
    """In the shape of albumentations: keyword arguments, a dictionary, generators of its own or the global ones."""

    def __init__(self, source: str = "own") -> None:
        self.source = source
        self.own = np.random.default_rng()

    def set_random_seed(self, seed: int | None) -> None:
        self.own = np.random.default_rng(seed)

    def _draw(self) -> float:
        return {
            "own": self.own.random,
            "python": python_random.random,
            "numpy": np.random.random,
            "torch": lambda: float(torch.rand(())),
        }[self.source]()

    def __call__(self, *, image: np.ndarray, mask: np.ndarray, **others: Any) -> dict[str, Any]:
        image[:] = image * self._draw()
        turns = int(4 * self._draw())
        return {**others, "image": np.rot90(image, turns), "mask": np.rot90(mask, turns)}


def same(*, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": image, "mask": mask}


def crop(pipeline: Any, seed: int = 0, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    how = options.pop("how", HOW)
    image, classes = options.pop("image", IMAGE), options.pop("classes", CLASSES)
    return own_crop(image, classes, 32, how, np.random.default_rng(seed), Own(pipeline, 3), **options)


@pytest.mark.parametrize("source", ["own", "python", "numpy", "torch"])
def test_every_source_of_randomness_is_seeded_for_the_crop_and_put_back(source: str) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    python_random.seed(6)
    np.random.seed(7)
    states = python_random.getstate(), np.random.get_state()[1].tolist()
    used, fresh = Compose(source), Compose(source)
    first = [crop(used, seed) for seed in range(4)]
    assert (python_random.getstate(), np.random.get_state()[1].tolist()) == states
    assert torch.equal(torch.rand(3), wanted)
    again = [crop(fresh, seed) for seed in reversed(range(4))][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    assert len({x.tobytes() for x, _ in first}) == 4


def test_globals_are_put_back_after_an_error() -> None:
    state = torch.get_rng_state()
    with pytest.raises(KeyError), seeded_globals(3):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_without_a_change_a_crop_is_a_window(dtype: type, channels: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (channels, 40, 33)).astype(dtype)
    classes = np.arange(40 * 33).reshape(40, 33).astype(np.int16) % 3
    places = set()
    for seed in range(20):
        x, y = crop(same, seed, image=image, classes=classes)
        (top, left) = next(
            (r, c) for r in range(9) for c in range(2) if np.array_equal(x, image[:, r : r + 32, c : c + 32])
        )
        np.testing.assert_array_equal(y, classes[top : top + 32, left : left + 32])
        assert (x.dtype, y.dtype) == (np.float32, np.int16)
        places.add((top, left))
    assert len(places) > 5


def test_what_lies_outside_is_filled_and_ignored() -> None:
    x, y = crop(same, image=IMAGE[:, :20, :12], classes=CLASSES[:20, :12])
    assert (y[20:] == IGNORE_INDEX).all()
    assert (y[:, 12:] == IGNORE_INDEX).all()
    assert (x[:, y == IGNORE_INDEX] == 9).all()
    np.testing.assert_array_equal(x[:, :20, :12], IMAGE[:, :20, :12])
    cut = [crop(same, seed, how=replace(HOW, padding=16))[1] for seed in range(40)]
    assert 2 < sum((y == IGNORE_INDEX).any() for y in cut) < 25


def test_a_crop_is_around_the_class_that_is_wanted() -> None:
    classes = np.zeros((60, 70), np.int16)
    classes[59, 3] = 2
    assert all((crop(same, seed, classes=classes, focus=2)[1] == 2).sum() == 1 for seed in range(10))


def test_the_data_is_not_written_to() -> None:
    before = IMAGE.copy()
    crop(Compose())
    np.testing.assert_array_equal(IMAGE, before)


def returning(**changed: Any) -> Any:
    return lambda *, image, mask: {"image": image, "mask": mask} | {k: v(image, mask) for k, v in changed.items()}


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        (lambda image, mask: (image, mask), ["something else", "tuple", '"image" and "mask"']),
        (lambda image, mask: {"image": image}, ["something else", "keys image"]),
        (returning(image=lambda i, m: i[:16]), ["another kind", "(16, 32, 3) of uint8", "(32, 32, 3) of uint8"]),
        (returning(image=lambda i, m: i / 255), ["(32, 32, 3) of float64", "leave out Normalize"]),
        (returning(image=lambda i, m: torch.from_numpy(i)), ["Tensor", "ToTensor"]),
        (returning(mask=lambda i, m: m[..., None]), ["mask of another kind", "(32, 32) of integers"]),
        (returning(mask=lambda i, m: m * 0.5), ["mask of another kind", "float64"]),
        (returning(mask=lambda i, m: m + 7), ["classes that there are not", "0..2", "nearest"]),
        (lambda image: {}, ["failed", "TypeError", "(32, 32, 3) of uint8"]),
    ],
)
def test_what_is_wrong_is_said(pipeline: Any, words: list[str]) -> None:
    with pytest.raises(OptionError, match="augment= callable") as caught:
        crop(pipeline)
    assert not [word for word in words if word not in str(caught.value)]


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(OptionError, match="no numbers"):
        crop(returning(image=lambda i, m: i * np.float32(np.nan)), image=IMAGE.astype(np.float32))


def test_names() -> None:
    assert pipeline_name(same) == "same"
    assert pipeline_name(Compose()) == "Compose"
