"""Workers: answers in order, errors as they were raised, and a death at any moment is seen at once."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from keepmap.errors import DataError, OptionError
from keepmap.training.workers import WorkerDied, Workers, check_workers, most_workers

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
forking = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")


@forking
@pytest.mark.parametrize("number", [1, 2, 3])
def test_answers_come_in_order_whoever_gives_them(number: int) -> None:
    workers = Workers(lambda step: step * step, 5, number)
    assert [workers.answer(step) for step in range(5, 15)] == [step * step for step in range(5, 15)]
    workers.close()


@forking
def test_an_error_comes_whole() -> None:
    def draw(step: int) -> int:
        raise DataError("a.png is empty.", found="0 bytes", do="delete it")

    workers = Workers(draw, 0, 1)
    with pytest.raises(DataError) as caught:
        workers.answer(0)
    assert (caught.value.found, caught.value.do) == ("0 bytes", "delete it")
    workers.close()


@forking
def test_a_death_in_the_middle_of_an_answer_is_seen() -> None:
    """What is larger than a pipe is cut off in it; waiting for the rest would take for ever."""
    workers = Workers(lambda step: np.zeros(10**6), 0, 2)
    assert workers._ends[0].poll(60)
    workers._processes[0].kill()
    with pytest.raises(WorkerDied):
        workers.answer(0)
    assert workers.answer(1).shape == (10**6,)
    workers.close()


def test_how_many_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepmap.training.workers.thread_count", lambda: 6)
    monkeypatch.setattr(sys, "platform", "linux")
    assert [most_workers(processes) for processes in (1, 2, 7)] == [6, 3, 1]
    for wanted in (None, 0, 3, 256):
        check_workers(wanted)
    for absurd in (-1, 257):
        with pytest.raises(OptionError, match=f"--workers {absurd} cannot be"):
            check_workers(absurd)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert most_workers(1) == 0
    check_workers(0)
    with pytest.raises(OptionError, match="needs Linux"):
        check_workers(2)
