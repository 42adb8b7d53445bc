"""Reading, computing and writing at the same time, in order and within bounds.

Knows neither files nor images, only three functions and how much may wait between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from keepmap.errors import DataError

Item = TypeVar("Item")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Result = TypeVar("Result")

_BEHIND = 2
"""Items that were computed and are not yet written."""


@dataclass(frozen=True)
class Stages(Generic[Item, Read, Computed, Result]):
    """What is done with items, in three steps; a DataError in one of them is about the item that it works on.

    read:    in a thread, ahead. write: in another thread, behind.
    compute: here, on one item, or on several of one kind: for each, in order, what was computed or the DataError.
    kind:    of an item, and how many of that kind may be computed together. weight: bytes of an item that was read.
    """

    read: Callable[[Item], Read]
    compute: Callable[[Sequence[Read]], Iterable[Computed | DataError]]
    write: Callable[[Computed], Result]
    kind: Callable[[Item], tuple[Hashable, int]]
    weight: Callable[[Item], int]


def overlapped(
    items: Sequence[Item], stages: Stages[Item, Read, Computed, Result], allowed: int
) -> Iterator[tuple[Item, Result | DataError]]:
    """Each item with what became of it. allowed: bytes of items that are read ahead, though one always is.

    Another error, a KeyboardInterrupt too, ends all when what was computed has been written.
    """
    todo, ahead = deque(items), deque[tuple[Item, Future[Read]]]()
    behind = deque[tuple[Item, Future[Result]]]()
    reader, writer = ThreadPoolExecutor(1, "keepmap-read"), ThreadPoolExecutor(1, "keepmap-write")

    def read_ahead() -> None:
        held = sum(stages.weight(item) for item, _ in ahead)
        while todo and (not ahead or (len(ahead) <= stages.kind(todo[0])[1] and held < allowed)):
            item = todo.popleft()
            held += stages.weight(item)
            ahead.append((item, reader.submit(stages.read, item)))

    def written(left: int) -> Iterator[tuple[Item, Result | DataError]]:
        while len(behind) > left:
            item, future = behind.popleft()
            try:
                result: Result | DataError = future.result()
            except DataError as error:
                result = error
            yield item, result

    try:
        while todo or ahead:
            read_ahead()
            together, failed = _next_group(ahead, stages)
            yield from failed
            read_ahead()
            computed = stages.compute([read for _, read in together]) if together else ()
            for (item, _), one in zip(together, computed, strict=True):
                if isinstance(one, DataError):
                    yield item, one
                else:
                    behind.append((item, writer.submit(stages.write, one)))
            yield from written(_BEHIND)
        yield from written(0)
    finally:
        reader.shutdown(cancel_futures=True)
        writer.shutdown()


def _next_group(
    ahead: deque[tuple[Item, Future[Read]]], stages: Stages[Item, Read, Computed, Result]
) -> tuple[list[tuple[Item, Read]], list[tuple[Item, DataError]]]:
    """The next item and those of its kind that follow it, as they were read, and those that could not be."""
    kind, most = stages.kind(ahead[0][0])
    taken = [ahead.popleft()]
    while ahead and len(taken) < most and stages.kind(ahead[0][0])[0] == kind:
        taken.append(ahead.popleft())
    read, failed = [], []
    for item, future in taken:
        try:
            read.append((item, future.result()))
        except DataError as error:
            failed.append((item, error))
    return read, failed
