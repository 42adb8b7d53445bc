"""Batches depend on the step alone, whatever was drawn before."""

from itertools import islice

import numpy as np
import pytest
import torch

from keepmap.data.augment import Augmentation
from keepmap.data.pipeline import Own
from keepmap.data.sampling import Focus, Sampler
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


def test_crops_around_a_class_have_it() -> None:
    sampler = Sampler(3, 4, 0, Focus(0.5, (0.0, 1.0), ((), (0, 2))))
    drawn = Batches(Drawn(), sampler, 32, HOW)  # type: ignore[arg-type]
    for step in range(3):
        y = drawn.draw(step)[1]
        assert (np.asarray(y[1::2]) == 1).any(axis=(1, 2)).all()


def test_an_own_augmentation_is_called_between_the_steps_and_leaves_what_they_draw_alone() -> None:
    calls: list[float] = []

    def own(*, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        calls.append(float(torch.rand(())))
        return {"image": image, "mask": mask}

    drawn = Batches(Drawn(), Sampler(3, 2, 0), 32, HOW, own=Own(own, 2))  # type: ignore[arg-type]
    stream = drawn.stream(3)
    torch.manual_seed(0)
    wanted = torch.rand(4)
    torch.manual_seed(0)
    for done in range(2, 9, 2):
        step, _, _ = next(stream)
        assert torch.equal(torch.rand(1), wanted[step - 3 : step - 2])
        assert len(calls) == done
    again, whole = calls.copy(), len(set(calls))
    calls.clear()
    next(drawn.stream(5))
    assert calls == again[4:6]
    assert whole == 8
