"""The split partitions, depends on names and seed alone, and changes little when a file is added."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmap.data.split import hold_out
from keepmap.errors import DataError

STEMS = st.lists(st.text(max_size=5), min_size=2, max_size=60, unique=True)


@given(STEMS, st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_a_partition_that_file_order_does_not_change(stems: list[str], seed: int, random: object) -> None:
    train, validation = hold_out(stems, seed=seed)
    assert sorted([*train, *validation]) == sorted(stems)
    assert train
    assert len(validation) == max(1, round(0.15 * len(stems)))
    shuffled = list(stems)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hold_out(shuffled, seed=seed) == (train, validation)


def test_share_and_limit() -> None:
    stems = [str(number) for number in range(1000)]
    assert len(hold_out(stems, seed=0)[1]) == 40
    assert len(hold_out(stems, seed=0, share=0.5, most=1000)[1]) == 500
    assert [len(part) for part in hold_out(stems[:2], seed=0, share=1.0)] == [1, 1]


def test_seeds_differ_and_one_more_file_moves_at_most_one() -> None:
    stems = [f"image {number}" for number in range(100)]
    held = set(hold_out(stems, seed=0)[1])
    assert held != set(hold_out(stems, seed=1)[1])
    assert len(held - set(hold_out([*stems, "new"], seed=0)[1])) <= 1


def test_the_split_of_a_seed_is_fixed_for_good() -> None:
    assert hold_out(list("abcdefghijkl"), seed=0)[1] == ("f", "h")


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"One image cannot be split\."):
        hold_out(["a"], seed=0)
