"""The difference hash survives what a copy goes through, and near hashes are found without comparing all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.drawn import draw_pair
from keepmap.data.likeness import alike_groups, difference_hash, distance, edges


def hash_of(image: np.ndarray) -> int:
    grey = np.atleast_3d(image).astype(float).mean(axis=2)
    return difference_hash(np.add.reduceat(grey, edges(grey.shape[1]), axis=1), grey.shape[1])


def test_hash_is_that_of_the_mean_fields() -> None:
    random = np.random.default_rng(0)
    fields = random.random((8, 9))
    image = fields.repeat(5, axis=0).repeat(7, axis=1)
    bits = "".join("1" if right > left else "0" for row in fields for left, right in itertools.pairwise(row))
    assert hash_of(image) == int(bits, 2)


def test_gain_offset_and_size_do_not_matter() -> None:
    image, _ = draw_pair(seed=0, index=0)
    small = image[:180, :180].astype(float)
    for other in (small * 0.4 + 30, small.repeat(2, axis=0).repeat(2, axis=1)):
        assert distance(hash_of(small), hash_of(other)) <= 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 5)])
def test_any_size_has_a_hash(shape: tuple[int, int]) -> None:
    assert 0 <= hash_of(np.ones(shape)) < 2**64


def test_drawn_images_that_differ_have_hashes_that_differ() -> None:
    hashes = [hash_of(draw_pair(seed=0, index=index)[0]) for index in range(8)]
    assert min(distance(a, b) for a, b in itertools.combinations(hashes, 2)) > 4
    assert not alike_groups(hashes, most=4)


def plain_groups(hashes: list[int], most: int) -> set[frozenset[int]]:
    """All pairs compared, then joined."""
    group = list(range(len(hashes)))
    for a, b in itertools.combinations(range(len(hashes)), 2):
        if distance(hashes[a], hashes[b]) <= most:
            old, new = group[b], group[a]
            group = [new if g == old else g for g in group]
    found = {frozenset(i for i, g in enumerate(group) if g == chosen) for chosen in group}
    return {members for members in found if len(members) > 1}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 4))
def test_groups_are_those_of_comparing_all(seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    hashes = [int(h) for h in random.integers(0, 2**63, 8)]
    for _ in range(30):
        bits = random.choice(64, random.integers(0, 7), replace=False)
        hashes.append(hashes[random.integers(len(hashes))] ^ sum(1 << int(bit) for bit in bits))
    assert {frozenset(group) for group in alike_groups(hashes, most=most)} == plain_groups(hashes, most)


def test_a_crowd_of_equal_hashes_is_one_group() -> None:
    groups = alike_groups([5] * 1000 + [2**60 - 1] * 3, most=4)
    assert groups == [list(range(1000)), [1000, 1001, 1002]]
    assert alike_groups([], most=4) == []
