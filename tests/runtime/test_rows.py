"""A queue of rows against one tensor that is cut and put together anew."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.runtime.rows import Queue, joined, stacked


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 3)), max_size=12))
@settings(max_examples=50, deadline=None)
def test_a_queue_is_what_has_come_and_not_gone(moves: list[tuple[int, int, int]]) -> None:
    queue, plain = Queue(), torch.zeros(1, 2, 0, 3)
    for number, (come, gone, filled) in enumerate(moves):
        rows = torch.arange(come * 6.0).reshape(1, 2, come, 3) + 100 * number
        queue.put(rows, None)
        plain = torch.cat([plain, rows], 2)
        if plain.shape[2]:
            queue.fill(filled, -1.0)
            plain = torch.cat([plain, torch.full((1, 2, filled, 3), -1.0)], 2)
        assert queue.count == plain.shape[2]
        assert queue.nbytes == plain.nbytes
        for count in range(1, queue.count + 1):
            assert torch.equal(queue.first(count), plain[:, :, :count])
        gone = min(gone, queue.count)
        queue.drop(gone)
        plain = plain[:, :, gone:]


def test_a_small_rest_lets_go_of_the_memory_of_its_part() -> None:
    queue = Queue()
    queue.put(torch.zeros(1, 2, 64, 3))
    queue.drop(62)
    assert queue.first(2).untyped_storage().nbytes() == 2 * 2 * 3 * 4
    queue.put(torch.zeros(1, 2, 64, 3))
    queue.drop(12)
    assert queue.count == 54


def test_parts_are_put_together_with_their_channels_last() -> None:
    a, b = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 4, 3)
    assert torch.equal(stacked(a, None, b), torch.cat([a, b], 2))
    assert torch.equal(joined(a, b), torch.cat([a, b], 1))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (stacked(a, b), joined(a, b)))
