"""Order, bounds and failures of reading ahead and writing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from keepmap.errors import DataError, OutputError
from keepmap.inference.pipeline import Stages, overlapped


class Factory:
    """Items are numbers; 100 and up fail in reading, 200 and up in computing, 300 and up in writing."""

    def __init__(self, most: int = 1, error: type[BaseException] = DataError) -> None:
        self.most, self.error = most, error
        self.written: list[int] = []
        self.groups: list[list[int]] = []
        self.read_ahead = self.largest = 0
        self.threads: set[str] = set()

    def fail(self, item: int, step: int) -> None:
        if item // 100 == step:
            raise self.error(f"{item}")

    def read(self, item: int) -> int:
        self.threads.add(threading.current_thread().name.split("_")[0])
        self.fail(item, 1)
        self.read_ahead += 1
        return item

    def compute(self, several: Sequence[int]) -> Iterator[int | DataError]:
        self.largest = max(self.largest, self.read_ahead - sum(map(len, self.groups)))
        self.groups.append(list(several))
        for item in several:
            try:
                self.fail(item, 2)
            except DataError as error:
                yield error
            else:
                yield -item

    def write(self, item: int) -> int:
        self.threads.add(threading.current_thread().name.split("_")[0])
        self.fail(-item, 3)
        self.written.append(-item)
        return -item

    def run(self, items: Sequence[int], allowed: int = 100) -> list[tuple[int, object]]:
        stages = Stages(self.read, self.compute, self.write, lambda item: (item % 2, self.most), lambda item: 10)
        return list(overlapped(items, stages, allowed))


def test_all_is_done_in_order_in_three_threads() -> None:
    factory = Factory()
    assert factory.run(range(20)) == [(n, n) for n in range(20)]
    assert factory.written == list(range(20))
    assert factory.threads == {"keepmap-read", "keepmap-write"}
    assert factory.largest <= 3
    assert Factory().run([]) == []


def test_those_of_one_kind_go_together_in_bounds() -> None:
    factory = Factory(most=3)
    items = [0, 2, 4, 6, 1, 8, 10, 3, 5, 7]
    assert factory.run(items) == [(n, n) for n in items]
    assert factory.groups == [[0, 2, 4], [6], [1], [8, 10], [3, 5, 7]]
    few = Factory(most=5)
    few.run(range(0, 40, 2), allowed=20)
    assert max(map(len, few.groups)) == 2


@pytest.mark.parametrize("step", [100, 200, 300])
def test_a_failure_is_about_its_item_alone(step: int) -> None:
    factory = Factory()
    outcome = factory.run([1, 2, step, 3, 4])
    assert sorted(item for item, _ in outcome) == [1, 2, 3, 4, step]
    assert isinstance(dict(outcome)[step], DataError)
    assert factory.written == [1, 2, 3, 4]
    together = Factory(most=4)
    assert len(together.run([2, step, 4])) == 3
    assert together.written == [2, 4]


@pytest.mark.parametrize("error", [OutputError, KeyboardInterrupt])
@pytest.mark.parametrize("step", [100, 200, 300])
def test_another_error_ends_all_when_what_was_computed_is_written(step: int, error: type[BaseException]) -> None:
    factory = Factory(error=error)
    with pytest.raises(error):
        factory.run([1, 2, step, *range(3, 30)])
    assert factory.written[:2] == [1, 2]
    assert len(factory.written) < 8
    if step == 200:
        several = Factory(most=4, error=error)
        with pytest.raises(error):
            several.run([2, 4, step, 6])
        assert several.written == [2, 4]
    assert not [t for t in threading.enumerate() if t.name.startswith("keepmap-")]
