"""One thread on which a network computes what several threads ask for: in order, or together where that is the same.

Knows arrays and a Runtime; not what the requests are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from keepmap.errors import OutOfMemory
from keepmap.protocols import Array, Output, Runtime
from keepmap.resources import Stopwatch
from keepmap.runtime.stopping import CURRENT, Cancelled, Stop, computing_for

SIZES = ((256, 256), (512, 512))
"""Heights and widths in pixels that the start-up check tries together."""
TOGETHER = 4
"""Images that are tried, and computed, at once."""
_GAIN = 1.05
"""A batch has to be so many times as fast."""

Key = tuple[Any, ...]


class _Call:
    """One computation that waits. key: what may be computed together has the same one; None: nothing."""

    def __init__(self, work: Callable[[], Any], key: Key | None, x: Array | None) -> None:
        self.work, self.key, self.x = work, key, x
        self.stop: Stop | None = CURRENT.get()
        self.future: Future[Any] = Future()


class InTurn:
    """A Runtime that computes on one thread of its own, whoever asks; what a cancelled request waits for is dropped,
    and a pass that runs for it ends between two layers.

    together: keys (see `key_of`) that `check_together` found to be computed at once with the same bits, and faster.
    The thread ends with `close`.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.channels, self.classes, self.mean = runtime.channels, runtime.classes, runtime.mean
        self.stride, self.reach, self.local = runtime.stride, runtime.reach, runtime.local
        self.unstreamable, self.quick_pass = runtime.unstreamable, runtime.quick_pass
        self.label_dtype = runtime.label_dtype
        self.together: frozenset[Key] = frozenset()
        self._waiting: deque[_Call] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._serve, name="keepmap-compute", daemon=True)
        self._thread.start()

    def peak_bytes(self, height: int, width: int) -> int:
        """As the runtime says."""
        return self._runtime.peak_bytes(height, width)

    def band_bytes(self, band: int, width: int) -> int:
        """As the runtime says; computed in turn, since it runs the network once."""
        return int(self._ask(lambda: self._runtime.band_bytes(band, width)))

    def free_memory(self) -> int:
        """As the runtime says."""
        return self._runtime.free_memory()

    def check_scores(self) -> object:
        """As the runtime says."""
        return self._runtime.check_scores()

    def run(self, x: Array, output: Output = "labels") -> Array:
        """One pass, when its turn comes. Raises Cancelled."""
        key = key_of(x, output)
        together = key if len(x) == 1 and key in self.together else None
        result: Array = self._ask(lambda: self._runtime.run(x, output), together, x)
        return result

    def stream(
        self, size: tuple[int, int], band: int, read: Callable[[slice], Array], output: Output = "labels"
    ) -> Iterator[Array]:
        """Band by band; others have their turn between two bands. Raises Cancelled."""
        bands = self._runtime.stream(size, band, read, output)
        while (part := self._ask(lambda: next(bands, None))) is not None:
            yield part

    def scores(self, x: Array) -> Array:
        """As the runtime computes them, when the turn comes."""
        result: Array = self._ask(lambda: self._runtime.scores(x))
        return result

    @property
    def waiting(self) -> int:
        """Computations that have not begun."""
        return len(self._waiting)

    def close(self) -> None:
        """End the thread after what waits."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _ask(self, work: Callable[[], Any], key: Key | None = None, x: Array | None = None) -> Any:
        call = _Call(work, key, x)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify()
        return call.future.result()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._waiting:
                    return
                calls = self._next()
            self._compute(calls)

    def _next(self) -> list[_Call]:
        """The first that waits, and those of its key."""
        first = self._waiting.popleft()
        if first.key is None:
            return [first]
        others = [call for call in self._waiting if call.key == first.key][: TOGETHER - 1]
        for call in others:
            self._waiting.remove(call)
        return [first, *others]

    def _compute(self, calls: Sequence[_Call]) -> None:
        calls = [call for call in calls if not _dropped(call)]
        try:
            with computing_for([call.stop for call in calls]):
                results = self._results(calls)
        except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to those who asked)
            if isinstance(error, OutOfMemory) and len(calls) > 1:
                self.together = frozenset(key for key in self.together if key != calls[0].key)
                for call in calls:
                    self._compute([call])
                return
            for call in calls:
                call.future.set_exception(error)
        else:
            for call, result in zip(calls, results, strict=True):
                call.future.set_result(result)

    def _results(self, calls: Sequence[_Call]) -> Sequence[Any]:
        """One for each; those of several come of one batch."""
        if len(calls) < 2 or calls[0].key is None:
            return [call.work() for call in calls]
        x = np.concatenate([call.x for call in calls if call.x is not None])
        return [part[np.newaxis] for part in self._runtime.run(x, calls[0].key[0])]


def _dropped(call: _Call) -> bool:
    if call.stop is None or not call.stop.cancelled:
        return False
    call.future.set_exception(Cancelled())
    return True


def key_of(x: Array, output: Output) -> Key:
    """What computations have in common that may be one: output, channels, size, type."""
    return (output, *x.shape[1:], x.dtype.name)


def check_together(runtime: Runtime, dtype: str, sizes: Sequence[tuple[int, int]] = SIZES) -> Mapping[Key, str]:
    """For each size: "" where batches of noise have the bits of single images and are faster, else why none is used.

    dtype: of the images. A size too large for four at once is not tried.
    """
    found: dict[Key, str] = {}
    for size in sizes:
        noise = np.random.default_rng(0).integers(0, 256, (TOGETHER, runtime.channels, *size)).astype(dtype)
        key = key_of(noise, "labels")
        if TOGETHER * runtime.peak_bytes(*size) > runtime.free_memory() // 4:
            found[key] = "four at once do not fit the memory"
            continue
        alone, one_by_one = _timed(runtime, np.split(noise, TOGETHER))
        at_once, together = _timed(runtime, [noise])
        fewer = (runtime.run(noise[:count], "logits") for count in range(2, TOGETHER))
        if not all(np.array_equal(alone[: len(some)], some) for some in (at_once, *fewer)):
            found[key] = "a batch has other bits than single images"
        else:
            gain = one_by_one / max(together, 1e-9)
            found[key] = "" if gain >= _GAIN else f"a batch takes {1 / gain:.2f} times as long"
    return found


def _timed(runtime: Runtime, parts: Sequence[Array]) -> tuple[Array, float]:
    """The logits of all `parts`, and the seconds of the second of two tries."""
    for _ in range(2):
        watch = Stopwatch()
        logits = np.concatenate([runtime.run(part, "logits") for part in parts])
        seconds = watch.seconds
    return logits, seconds
