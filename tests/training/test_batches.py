"""Batches depend on the step alone, whatever was drawn before."""

from itertools import islice

import numpy as np
import pytest
import torch

from keepmap.data.augment import Augmentation
from keepmap.data.sampling import Sampler
from keepmap.training.batches import Batches

HOW = Augmentation(
    scale=(0.7, 1.4),
    upright=False,
    invert=0.1,
    gain=0.2,
    shift=8.0,
    value_range=(0.0, 255.0),
    fill=(9.0,),
    padding=7,
)


class Drawn:
    """Three images held in memory, in place of files."""

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(index)
        return random.integers(0, 256, (3, 50, 60), dtype=np.uint8), random.integers(0, 2, (50, 60)).astype(np.int16)


def batches() -> Batches:
    return Batches(Drawn(), Sampler(3, 2, 0), 32, HOW)  # type: ignore[arg-type]


def test_shapes_and_types() -> None:
    x, y = batches().draw(0)
    assert (tuple(x.shape), x.dtype, tuple(y.shape), y.dtype) == (
        (2, 3, 32, 32),
        torch.float32,
        (2, 32, 32),
        torch.int64,
    )


def test_a_stream_gives_every_step_once_and_the_same_from_anywhere() -> None:
    whole = list(islice(batches().stream(0), 7))
    assert [step for step, _, _ in whole] == list(range(7))
    for step, x, y in islice(batches().stream(4), 3):
        assert torch.equal(x, whole[step][1])
        assert torch.equal(y, whole[step][2])
        assert torch.equal(x, batches().draw(step)[0])


def test_a_stream_can_be_left() -> None:
    for step, _, _ in batches().stream(0):
        if step == 1:
            break


def test_errors_of_the_thread_arrive() -> None:
    class Broken:
        def get(self, index: int) -> None:
            raise OSError("gone.png")

    broken = Batches(Broken(), Sampler(3, 2, 0), 32, HOW)  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r"gone\.png"):
        next(broken.stream(0))
