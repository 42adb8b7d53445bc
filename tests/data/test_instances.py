"""Masks that number objects: recognised by connected regions, counted as one class, kept apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from PIL import Image
from scipy import ndimage

from keepmap.data.instances import collapse, holds_objects, number_objects, number_their_objects, read_objects
from keepmap.data.values import COLOUR


def objects(count: int, scattered: int = 0, first: int = 1) -> np.ndarray:
    """A mask of `count` squares of 2 x 2 px with numbers of their own, the first few of them in two parts."""
    values = np.zeros((8, 4 * count + 1), np.int32)
    for number in range(count):
        values[1:3, 4 * number : 4 * number + 2] = first + number
        if number < scattered:
            values[6, 4 * number] = first + number
    return values


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (objects(20), True),
        (objects(60, first=9000), True),
        (objects(20, scattered=1), True),
        (objects(20, scattered=2), False),
        (objects(40, scattered=2), True),
        (objects(19), None),
        (objects(25, first=COLOUR), None),
        (objects(20).clip(0, 1), False),
        (objects(19).clip(0, 1), None),
    ],
)
def test_numbers_of_objects_are_connected_regions(values: np.ndarray, told: bool | None) -> None:
    assert holds_objects(values) is told


@given(st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_what_labelling_gives_is_recognised(seed: int) -> None:
    blobs = np.random.default_rng(seed).random((60, 60)) < 0.12
    numbered, count = ndimage.label(blobs, np.ones((3, 3)))
    assert count >= 20
    assert holds_objects(numbered) is True
    assert holds_objects(numbered % 25) is False


@given(drawn.arrays(np.int32, (5, 6), elements=st.sampled_from([0, 3, 8, 700])), st.sampled_from([None, 8]))
def test_objects_are_counted_or_numbered_and_nothing_else_moves(values: np.ndarray, ignored: int | None) -> None:
    one = collapse(values, ignored)
    numbers = number_objects(values, ignored)
    inside = (values > 0) & (values != ignored)
    assert np.array_equal(one == 1, inside)
    assert np.array_equal(one[~inside], values[~inside])
    assert np.array_equal(numbers > 0, inside)
    assert sorted(set(numbers[inside].tolist())) == list(range(1, len(set(values[inside].tolist())) + 1))
    for number in set(numbers[inside].tolist()):
        assert len(set(values[numbers == number].tolist())) == 1
    assert np.array_equal(numbers == -1, values == ignored if ignored else np.zeros_like(inside))


@pytest.mark.parametrize(
    ("instances", "named", "told", "decided"),
    [
        ("yes", True, {None}, True), ("no", False, {True}, False), ("auto", False, {True, None}, True),
        ("auto", True, {True}, False), ("auto", False, {True, False}, False), ("auto", False, {None}, False),
    ],
)  # fmt: skip
def test_one_mask_decides_and_none_may_object(
    instances: str, named: bool, told: set[bool | None], decided: bool
) -> None:
    assert number_their_objects(instances, named, told) is decided


def test_objects_of_a_file(tmp_path: Path) -> None:
    Image.fromarray(objects(3, first=500).astype(np.uint16)).save(tmp_path / "m.png")
    assert np.array_equal(read_objects(tmp_path / "m.png"), objects(3))
