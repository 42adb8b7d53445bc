"""One thread computes for many: in order, together where the bits are those of one by one, and nothing for who left."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import keepmap
from keepmap.errors import OutOfMemory
from keepmap.protocols import Array
from keepmap.runtime.stopping import CURRENT, Cancelled, check
from keepmap.serving import turns
from keepmap.serving.tickets import Ticket
from keepmap.serving.turns import InTurn, check_together, key_of


@pytest.fixture(scope="module")
def runtime(run: Any) -> Any:
    return keepmap.load(run, precision="float32").runtime


class Counting:
    """The runtime, which remembers how many images each pass had, and waits for `go` before the first."""

    def __init__(self, runtime: Any) -> None:
        self.real, self.sizes, self.go, self.begun = runtime, [], threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(self, x: Array, output: Any = "labels") -> Array:
        self.begun.set()
        self.go.wait(10)
        self.sizes.append(len(x))
        return self.real.run(x, output)


def noise(number: int, side: int = 24) -> Array:
    return np.random.default_rng(number).integers(0, 256, (1, 3, side, side), np.uint8)


@pytest.mark.parametrize("together", [True, False])
def test_results_are_those_of_each_alone(runtime: Any, together: bool) -> None:
    counting = Counting(runtime)
    queue = InTurn(counting)
    if together:
        queue.together = frozenset([key_of(noise(0), "labels")])
    images = [noise(n, 24 if n % 3 else 30) for n in range(9)]
    with ThreadPoolExecutor(9) as threads:
        results = [threads.submit(queue.run, image) for image in images[:1]]
        counting.begun.wait(10)
        results += [threads.submit(queue.run, image) for image in images[1:]]
        while queue.waiting < 8:
            pass
        counting.go.set()
        for image, result in zip(images, results, strict=True):
            np.testing.assert_array_equal(result.result(), runtime.run(image))
    queue.close()
    assert (max(counting.sizes) > 1) == together and sum(counting.sizes) == 9


def test_who_left_is_not_computed_for(runtime: Any) -> None:
    counting, ticket = Counting(runtime), Ticket()
    queue = InTurn(counting)

    def ask(image: Array) -> Array:
        CURRENT.set(ticket)
        return queue.run(image)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(queue.run, noise(0))
        counting.begun.wait(10)
        second = threads.submit(ask, noise(1))
        while not queue.waiting:
            pass
        ticket.cancel()
        counting.go.set()
        first.result()
        with pytest.raises(Cancelled):
            second.result()
    queue.close()
    assert counting.sizes == [1]


def test_bands_come_in_turn_and_errors_go_to_who_asked(runtime: Any) -> None:
    queue = InTurn(runtime)
    image = noise(0, 96)[0]
    bands = list(queue.stream((96, 96), 32, lambda rows: image[:, rows], "labels"))
    np.testing.assert_array_equal(np.concatenate(bands), runtime.run(image[None])[0])
    with pytest.raises(Exception, match="channels"):
        queue.run(np.zeros((1, 5, 8, 8), np.uint8))
    np.testing.assert_array_equal(queue.run(image[None]), runtime.run(image[None]))
    queue.close()


def test_a_batch_that_does_not_fit_the_memory_is_computed_one_by_one(runtime: Any) -> None:
    class Small(Counting):
        """Without the memory for two images."""

        def run(self, x: Array, output: Any = "labels") -> Array:
            result = super().run(x, output)
            if len(x) > 1:
                raise OutOfMemory("The memory does not suffice.")
            return result

    small = Small(runtime)
    queue = InTurn(small)
    queue.together = frozenset([key_of(noise(0), "labels")])
    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(queue.run, noise(0))]
        small.begun.wait(10)
        results += [threads.submit(queue.run, noise(n)) for n in range(1, 4)]
        while queue.waiting < 3:
            pass
        small.go.set()
        for number, result in enumerate(results):
            np.testing.assert_array_equal(result.result(), runtime.run(noise(number)))
    assert not queue.together  # it is not tried again
    queue.close()
    assert sorted(small.sizes) == [1, 1, 1, 1, 3]


def test_a_pass_that_runs_ends_when_nobody_waits_for_it(runtime: Any) -> None:
    class Layers(Counting):
        """A pass of many layers, which looks between them as the runtime does."""

        def run(self, x: Array, output: Any = "labels") -> Array:
            self.begun.set()
            for _ in range(1000):
                check()
                time.sleep(0.01)
            return self.real.run(x, output)

    layers, ticket = Layers(runtime), Ticket()
    queue = InTurn(layers)

    def ask() -> Array:
        CURRENT.set(ticket)
        return queue.run(noise(0))

    with ThreadPoolExecutor(1) as threads:
        waited = threads.submit(ask)
        layers.begun.wait(10)
        ticket.cancel()
        with pytest.raises(Cancelled):
            waited.result(10)
    queue.close()


def test_a_batch_is_used_only_if_equal_and_faster(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Other:
        """Computes one by one, with other bits in batches of `odd` images."""

        odd: int

        def __getattr__(self, name: str) -> Any:
            return getattr(runtime, name)

        def run(self, x: Array, output: Any = "labels") -> Array:
            return np.concatenate([runtime.run(one, output) for one in np.split(x, len(x))]) + (len(x) == self.odd)

    monkeypatch.setattr(turns, "_GAIN", 0.0)
    for odd in (2, 3, 4):
        assert list(check_together(Other(odd), "uint8", [(16, 16)]).values()) == [
            "a batch has other bits than single images"
        ]
    equal = next(iter(check_together(Other(5), "uint8", [(16, 16)]).values()))
    monkeypatch.setattr(turns, "_GAIN", 1e9)
    slow = next(iter(check_together(runtime, "uint8", [(16, 16)]).values()))
    assert not equal and slow
