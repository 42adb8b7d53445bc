"""Colours as values and back; thin lines and mixtures told by plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from keepmap.data.values import (
    COLOUR,
    colour_value,
    colours_between,
    pack_colours,
    parse_value,
    solid_colours,
    unpack_colours,
    value_text,
)


@given(drawn.arrays(np.uint8, (3, 4, 3), elements=st.integers(0, 2) | st.integers(253, 255)))
def test_a_colour_is_its_value_and_a_grey_its_number(colours: np.ndarray) -> None:
    values = pack_colours(colours)
    assert np.array_equal(unpack_colours(values), colours)
    for value, colour in zip(values.ravel().tolist(), colours.reshape(-1, 3).tolist(), strict=True):
        grey = len(set(colour)) == 1
        assert value == (colour[0] if grey else COLOUR + int(bytes(colour).hex(), 16))
        text = value_text(value, coloured=True)
        assert text == "rgb {},{},{}".format(*colour)
        assert parse_value(text.removeprefix("rgb ")) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "1,2", "1,2,256", "1,2,3,4", "1.0", "²", " 1"])
def test_what_is_no_value(text: str) -> None:
    assert parse_value(text) is None


@given(drawn.arrays(np.int32, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 1)))
@settings(max_examples=60, deadline=None)
def test_solid_colours_have_a_block_of_nine(values: np.ndarray) -> None:
    height, width = values.shape
    blocks = [values[r : r + 3, c : c + 3] for r in range(height - 2) for c in range(width - 2)]
    assert solid_colours(values) == {int(block[0, 0]) for block in blocks if len(np.unique(block)) == 1}


@pytest.mark.parametrize(
    ("colour", "mixed"),
    [
        ((50, 0, 0), True),  # on the line from black to red
        ((128, 128, 0), True),  # on the line from red to green
        ((250, 3, 4), True),  # beside red
        ((60, 90, 0), False),
        ((0, 0, 255), False),
        ((255, 255, 255), False),
    ],
)
def test_mixtures_lie_between_more_frequent_colours(colour: tuple[int, int, int], mixed: bool) -> None:
    solid = [colour_value(c) for c in ((0, 0, 0), (255, 0, 0), (0, 255, 0))]
    value = colour_value(colour)
    counts = dict.fromkeys(solid, 1000) | {value: 10}
    assert colours_between(counts, solid) == ({value} if mixed else set())
    assert colours_between(counts, [*solid, value]) == set()
    assert colours_between(counts | {value: 2000}, solid) == set()
