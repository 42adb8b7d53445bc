"""The split partitions, depends on names and seed alone, and changes little when a file is added."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmap.data.split import hold_out
from keepmap.errors import DataError

STEMS = st.lists(st.text(max_size=5), min_size=2, max_size=60, unique=True)


def of_one_class(stems: list[str]) -> dict[str, list[int]]:
    return {stem: [0] for stem in stems}


@given(STEMS, st.integers(0, 2**31), st.randoms(use_true_random=False))
def test_a_partition_that_file_order_does_not_change(stems: list[str], seed: int, random: object) -> None:
    train, validation = hold_out(of_one_class(stems), seed=seed)
    assert sorted([*train, *validation]) == sorted(stems)
    assert train
    assert len(validation) == max(1, round(0.15 * len(stems)))
    shuffled = list(stems)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hold_out(of_one_class(shuffled), seed=seed) == (train, validation)


def test_share_and_limit() -> None:
    stems = [str(number) for number in range(1000)]
    assert len(hold_out(of_one_class(stems), seed=0)[1]) == 40
    assert len(hold_out(of_one_class(stems), seed=0, share=0.5, most=1000)[1]) == 500
    assert [len(part) for part in hold_out(of_one_class(stems[:2]), seed=0, share=1.0)] == [1, 1]


def test_seeds_differ_and_one_more_file_moves_at_most_one() -> None:
    stems = [f"image {number}" for number in range(100)]
    held = set(hold_out(of_one_class(stems), seed=0)[1])
    assert held != set(hold_out(of_one_class(stems), seed=1)[1])
    assert len(held - set(hold_out(of_one_class([*stems, "new"]), seed=0)[1])) <= 1


def test_the_split_of_a_seed_is_fixed_for_good() -> None:
    assert hold_out(of_one_class(list("abcdefghijkl")), seed=0)[1] == ("f", "h")


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"One image cannot be split\."):
        hold_out({"a": [0]}, seed=0)


@given(st.integers(0, 1000))
def test_rare_classes_are_in_both_parts_where_they_can_be(seed: int) -> None:
    classes = {f"i{n}": [0, 1] for n in range(30)} | {"r1": [0, 2], "r2": [0, 2], "lonely": [0, 3]}
    train, validation = hold_out(classes, seed=seed, share=0.1)
    assert len(validation) == 3
    for kind in (0, 1, 2):
        assert any(kind in classes[stem] for stem in train)
        assert any(kind in classes[stem] for stem in validation)


def test_an_empty_image_is_not_the_only_one_held_out() -> None:
    classes = {"empty": [0], "a": [0, 1], "b": [0, 1]}
    for seed in range(20):
        assert hold_out(classes, seed=seed)[1] in (("a",), ("b",))
