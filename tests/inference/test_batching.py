"""Together only where it was tried, gave the same bits and took less time."""

from __future__ import annotations

import numpy as np
import pytest

from keepmap.errors import OutOfMemory
from keepmap.inference import batching
from keepmap.inference.batching import Batches


class Clock:
    """A runtime whose passes take what they are told to, by a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, one: float, several: float, error: float = 0.0) -> None:
        self.now, self.calls = 0.0, []
        self.one, self.several, self.error = one, several, error
        monkeypatch.setattr(batching.time, "perf_counter", lambda: self.now)

    def peak_bytes(self, height: int, width: int) -> int:
        return height * width * 100

    def run(self, x: np.ndarray, output: str) -> np.ndarray:
        self.calls.append(len(x))
        self.now += self.one if len(x) == 1 else self.several
        return x[:, 0] * 2.0 + (self.error if len(x) > 1 else 0.0)


IMAGES = [np.full((3, 4, 5), n, np.float32) for n in range(4)]


@pytest.mark.parametrize(
    ("several", "error", "calls"), [(3.0, 0.0, [4]), (5.0, 0.0, [1, 1, 1, 1]), (3.0, 1e-7, [1, 1, 1, 1])]
)
def test_several_go_together_if_that_is_sooner_and_the_same(monkeypatch, several, error, calls) -> None:
    runtime = Clock(monkeypatch, one=1.0, several=several, error=error)
    monkeypatch.setattr(batching, "_MOST", 4)
    batches = Batches(runtime, "labels", 10**9)
    for _ in range(2):
        runtime.calls.clear()
        found = batches.run(IMAGES)
        assert [float(each[0, 0]) for each in found] == [0.0, 2.0, 4.0, 6.0]
    assert runtime.calls == calls
    runtime.calls.clear()
    batches.run(IMAGES[:3])
    assert runtime.calls == [1, 1, 1]


def test_what_did_not_fit_together_is_not_tried_again(monkeypatch) -> None:
    runtime = Clock(monkeypatch, one=1.0, several=1.0)
    batches = Batches(runtime, "labels", 10**9)
    monkeypatch.setattr(batching, "_MOST", 4)
    monkeypatch.setattr(batches, "_at_once", lambda images: (_ for _ in ()).throw(OutOfMemory("too much")))
    with pytest.raises(OutOfMemory):
        batches.run(IMAGES)
    runtime.calls.clear()
    assert len(batches.run(IMAGES)) == 4
    assert runtime.calls == [1, 1, 1, 1]


def test_how_many(monkeypatch) -> None:
    batches = Batches(Clock(monkeypatch, one=1, several=1), "labels", 10**7)
    assert batches.most(64, 64) == 24
    assert batches.most(8, 8) == 32
    assert batches.most(512, 512) == batches.most(5000, 5000) == 1
