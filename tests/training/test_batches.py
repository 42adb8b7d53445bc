"""Batches depend on the step alone, whatever was drawn before, and whoever draws it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from keepmap.data.augment import Augmentation, training_crop
from keepmap.data.pipeline import Own
from keepmap.data.sampling import Focus, Sampler
from keepmap.data.weight_map import weight_map
from keepmap.errors import TrainingError
from keepmap.protocols import Silent
from keepmap.runs import RunFolder
from keepmap.training.batches import Batches
from keepmap.training.lock import locked

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

    facts = tuple(SimpleNamespace(image=Path(f"{name}.png")) for name in "abc")

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(index)
        return random.integers(0, 256, (3, 50, 60), dtype=np.uint8), random.integers(0, 2, (50, 60)).astype(np.int16)


class Deadly(Drawn):
    """Its workers die, of the image `b`: each time, or while there is a file that the first takes away."""

    def __init__(self, once: Path | None = None) -> None:
        self.once = once

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index == 1 and (self.once is None or self.once.exists()):
            if self.once is not None:
                self.once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().get(index)


def batches(store: Drawn | None = None, workers: int = 0) -> Batches:
    return Batches(store or Drawn(), Sampler(3, 2, 0), 32, HOW, workers=workers)  # type: ignore[arg-type]


def forking(test: object) -> object:
    """For tests with worker processes."""
    here = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")
    return here(pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")(test))


WORKERS = [0, pytest.param(2, marks=[pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")])]


def test_shapes_and_types() -> None:
    _, x, y = next(batches().stream(0, Silent()))
    assert (tuple(x.shape), x.dtype, tuple(y.shape), y.dtype) == (
        (2, 3, 32, 32),
        torch.float32,
        (2, 32, 32),
        torch.int64,
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_a_stream_gives_every_step_once_and_the_same_from_anywhere(workers: int) -> None:
    whole = list(islice(batches(workers=workers).stream(0, Silent()), 7))
    assert [step for step, _, _ in whole] == list(range(7))
    for step, x, y in islice(batches().stream(4, Silent()), 3):
        assert torch.equal(x, whole[step][1])
        assert torch.equal(y, whole[step][2])
        assert np.array_equal(x.numpy(), batches().draw(step)[0])


@pytest.mark.parametrize("workers", WORKERS)
def test_a_stream_can_be_left(workers: int) -> None:
    for step, _, _ in batches(workers=workers).stream(0, Silent()):
        if step == 1:
            break


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_in_a_worker_arrives_with_the_name_of_the_file(workers: int) -> None:
    class Broken(Drawn):
        def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            raise ZeroDivisionError("by nothing")

    with pytest.raises(TrainingError, match=r"[abc]\.png cannot be made a crop of") as caught:
        next(batches(Broken(), workers).stream(0, Silent()))
    assert caught.value.found == "ZeroDivisionError: by nothing"


@forking
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost(tmp_path: Path, lines: Any) -> None:
    (tmp_path / "once").touch()
    drawn = list(islice(batches(Deadly(tmp_path / "once"), 2).stream(0, lines), 6))
    assert [step for step, _, _ in drawn] == list(range(6))
    assert all(np.array_equal(x.numpy(), batches().draw(step)[0]) for step, x, _ in drawn)
    assert len(lines.said) == 1 and "died at step" in lines.said[0]


@forking
def test_workers_that_keep_dying_end_the_training(lines: Any) -> None:
    with pytest.raises(TrainingError, match="died 4 times") as caught:
        list(islice(batches(Deadly(), 1).stream(0, lines), 6))
    assert len(lines.said) == 3
    assert "b.png" in caught.value.found
    assert "--workers 0" in caught.value.do


ORPHAN = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_batches import batches
from keepmap.protocols import Silent
from keepmap.runs import RunFolder
from keepmap.training.lock import locked
with locked(RunFolder(Path(sys.argv[2])), Silent()):
    stream = batches(workers=2).stream(0, Silent())
    next(stream)
    print(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(), flush=True)
    sys.stdin.read()
"""


@forking
def test_workers_end_with_a_parent_that_is_killed_and_do_not_hold_its_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
    with locked(RunFolder(tmp_path), Silent()):
        pass
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_batch_that_does_not_come_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said, lines = threading.Event(), []

    class Slow(Drawn):
        def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            said.wait()
            return super().get(index)

    class Heard(Silent):
        def say(self, text: str) -> None:
            lines.append(text)
            said.set()

    monkeypatch.setattr("keepmap.training.batches._SLOW_SECONDS", 0.01)
    next(batches(Slow()).stream(0, Heard()))
    assert len(lines) == 1
    assert "still waiting for the batch of step 0" in lines[0] and ".png" in lines[0]


def test_crops_around_a_class_have_it() -> None:
    sampler = Sampler(3, 4, 0, Focus(0.5, (0.0, 1.0), ((), (0, 2))))
    drawn = Batches(Drawn(), sampler, 32, HOW)  # type: ignore[arg-type]
    for step in range(3):
        y = drawn.draw(step)[1]
        assert (np.asarray(y[1::2]) == 1).any(axis=(1, 2)).all()


class Numbered(Drawn):
    """Two objects of one class with a gap of 3 px in which they have the numbers 7 and 300; a corner is ignored."""

    def get(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        classes = np.minimum(self.objects(index), 1).astype(np.int16)
        classes[:9, :9] = -1
        return super().get(index)[0], classes

    def objects(self, index: int) -> np.ndarray:
        numbers = np.zeros((50, 60), np.int32)
        numbers[4:40, 5:30], numbers[8:46, 33:55] = 7, 300
        numbers[20:24, 28:35] = 300
        return numbers


BENT = replace(HOW, rotation=(1.0, 60.0), shear=(0.5, 10.0), elastic=(0.5, 2.0))


@pytest.mark.parametrize("how", [HOW, BENT])
def test_a_weight_map_is_that_of_the_crop_whatever_was_done_to_it(how: Augmentation) -> None:
    """Of objects that touch but have two numbers, too; x and y are those without the map."""
    weigh = partial(weight_map, w0=10.0, sigma=3.0, class_weights=(1.0, 2.0))
    sampler, store = Sampler(3, 2, 0), Numbered()
    drawn = Batches(store, sampler, 32, how, weigh=weigh)  # type: ignore[arg-type]
    plain = Batches(store, sampler, 32, how)  # type: ignore[arg-type]
    split = 0
    for step in range(4):
        x, y, weights = drawn.draw(step)
        assert np.array_equal(x, plain.draw(step)[0]) and np.array_equal(y, plain.draw(step)[1])
        assert y.dtype == np.int16 and weights.dtype == np.float32
        for i in range(2):
            image, classes = store.get(0)
            numbers = np.where(classes < 0, -1, store.objects(0)).astype(np.int16)
            _, ids = training_crop(image, numbers, 32, how, sampler.generator(step, i))
            assert np.array_equal(np.minimum(ids, 1), y[i])
            assert np.array_equal(weights[i], weigh(y[i], ids))
            split += not np.array_equal(weights[i], weigh(y[i], None))
    assert split, "the two are one region, which has no gap"


def test_without_numbers_a_weight_map_is_that_of_connected_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where a callable returned the crop, which sees classes only."""
    weigh = partial(weight_map, w0=10.0, sigma=3.0)
    plain = Own(lambda *, image, mask: {"image": image, "mask": mask}, 2)
    for own in (None, plain):
        if own is None:
            monkeypatch.setattr(Numbered, "objects", lambda self, index: None)
            monkeypatch.setattr(Numbered, "get", Drawn.get)
        drawn = Batches(Numbered(), Sampler(3, 2, 0), 32, HOW, own=own, weigh=weigh)  # type: ignore[arg-type]
        step, _, y, weights = next(drawn.stream(2, Silent()))
        assert step == 2 and weights.dtype == torch.float32 and (weights > 1).any()
        for classes, found in zip(y.numpy(), weights.numpy(), strict=True):
            assert np.array_equal(found, weigh(classes))


def test_an_own_augmentation_is_called_between_the_steps_and_leaves_what_they_draw_alone() -> None:
    calls: list[float] = []

    def own(*, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
        calls.append(float(torch.rand(())))
        return {"image": image, "mask": mask}

    drawn = Batches(Drawn(), Sampler(3, 2, 0), 32, HOW, own=Own(own, 2))  # type: ignore[arg-type]
    stream = drawn.stream(3, Silent())
    torch.manual_seed(0)
    wanted = torch.rand(4)
    torch.manual_seed(0)
    for done in range(2, 9, 2):
        step, _, _ = next(stream)
        assert torch.equal(torch.rand(1), wanted[step - 3 : step - 2])
        assert len(calls) == done
    again, whole = calls.copy(), len(set(calls))
    calls.clear()
    next(drawn.stream(5, Silent()))
    assert calls == again[4:6]
    assert whole == 8
