"""A queue of rows against one tensor that is cut and put together anew."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.runtime import rows
from keepmap.runtime.rows import Queue, joined, pieces, stacked


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
            assert torch.equal(stacked(*queue.first(count)), plain[:, :, :count])
        gone = min(gone, queue.count)
        queue.drop(gone)
        plain = plain[:, :, gone:]


def test_a_small_rest_lets_go_of_the_memory_of_its_part() -> None:
    queue = Queue()
    queue.put(torch.zeros(1, 2, 64, 3))
    queue.drop(62)
    (rest,) = queue.first(2)
    assert rest.untyped_storage().nbytes() == 2 * 2 * 3 * 4
    queue.put(torch.zeros(1, 2, 64, 3))
    queue.drop(12)
    assert queue.count == 54


@given(
    heights=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=3),
    span=st.integers(1, 5), step=st.integers(1, 3), large=st.integers(1, 200),
)  # fmt: skip
@settings(deadline=None)
def test_the_windows_of_all_pieces_are_those_of_the_whole(
    heights: list[list[int]], span: int, step: int, large: int
) -> None:
    values = [[torch.randn(1, 2, height, 3) for height in each] for each in heights]
    wholes = [torch.cat(parts, 2) for parts in values]
    count = (min(whole.shape[2] for whole in wholes) - span) // step + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_LARGE", large)
        cut = list(pieces(values, max(0, count), span, step))
    seen = [torch.cat([piece[i].unfold(2, span, step) for piece in cut], 2) for i in range(len(values) * bool(cut))]
    assert (len(cut) > 0) == (count > 0)
    for windows, whole in zip(seen, wholes, strict=False):
        assert torch.equal(windows, whole.unfold(2, span, step)[:, :, :count])


def test_rows_within_a_large_part_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_LARGE", 10 * 2 * 3 * 4)
    before, after = torch.randn(1, 2, 2, 3), torch.randn(1, 2, 64, 3)
    seam, rest = (piece[0] for piece in pieces([[before, after]], 64, span=3))
    assert torch.equal(seam, torch.cat([before, after[:, :, :2]], 2))
    assert rest.data_ptr() == after.data_ptr()
    assert rest.shape[2] == 64


def test_parts_are_put_together_with_their_channels_last() -> None:
    a, b = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 4, 3)
    assert torch.equal(stacked(a, None, b), torch.cat([a, b], 2))
    assert torch.equal(joined(a, b), torch.cat([a, b], 1))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in (stacked(a, b), joined(a, b)))
