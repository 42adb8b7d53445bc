"""Which pixels are inside: against a crossing test of every centre, and run lengths against what was encoded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from keepmap.data.regions import (
    Drawing,
    Inside,
    Region,
    decode_runs,
    fill_disc,
    fill_polygon,
    fill_runs,
    fill_stamp,
    paint,
)
from keepmap.errors import DataError

SIZE = (7, 9)
HALVES = st.integers(-6, 24).map(lambda n: n / 2)
ANY = st.floats(-3, 12, allow_nan=False)


def whole(inside: Inside, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The pixels of a part, in the whole image."""
    image = np.zeros(size, bool)
    window, pixels = inside
    assert pixels.shape == image[window].shape
    image[window] = pixels
    return image


def by_crossings(points: list[tuple[float, float]]) -> np.ndarray:
    """For each centre: is the number of edges to its left odd? An edge on the centre counts, an upper end does."""
    image = np.zeros(SIZE, bool)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            x, y = column + 0.5, row + 0.5
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
                if y0 > y1:
                    x0, y0, x1, y1 = x1, y1, x0, y0
                if y0 <= y < y1 and x0 + (y - y0) * ((x1 - x0) / (y1 - y0)) <= x:
                    image[row, column] ^= True
    return image


@given(st.sampled_from([HALVES, ANY]).flatmap(lambda kind: st.lists(st.tuples(kind, kind), min_size=3, max_size=7)))
@settings(max_examples=150, deadline=None)
def test_a_polygon_holds_the_centres_inside(points: list[tuple[float, float]]) -> None:
    assert np.array_equal(whole(fill_polygon(np.array(points), SIZE)), by_crossings(points))


@given(st.tuples(ANY, ANY))
def test_polygons_that_share_edges_share_no_pixel_and_leave_none_out(middle: tuple[float, float]) -> None:
    corners = [(0.0, 0.0), (9.0, 0.0), (9.0, 7.0), (0.0, 7.0)]
    if 0 <= middle[0] <= 9 and 0 <= middle[1] <= 7:
        edges = zip(corners, corners[1:] + corners[:1], strict=True)
        parts = [whole(fill_polygon(np.array([one, two, middle]), SIZE)) for one, two in edges]
        assert np.array_equal(np.sum(parts, axis=0), np.ones(SIZE, int))


def test_a_rectangle_of_whole_pixels_is_those_pixels() -> None:
    expected = np.zeros(SIZE, bool)
    expected[1:4, 2:6] = True
    assert np.array_equal(whole(fill_polygon(np.array([(2, 1), (6, 1), (6, 4), (2, 4)]), SIZE)), expected)


@given(st.tuples(ANY, ANY), st.floats(0, 8))
def test_a_disc_holds_the_centres_within_its_radius(centre: tuple[float, float], radius: float) -> None:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 <= radius**2
    assert np.array_equal(whole(fill_disc(centre, radius, SIZE)), expected)


@given(drawn.arrays(bool, (3, 4)), st.integers(-5, 12), st.integers(-5, 12))
def test_a_stamp_is_cut_at_the_border(stamp: np.ndarray, left: int, top: int) -> None:
    room = np.zeros((40, 40), bool)
    room[10 + top : 13 + top, 10 + left : 14 + left] = stamp
    assert np.array_equal(whole(fill_stamp(stamp, (left, top), SIZE)), room[10:17, 10:19])


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, outside first."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    stops = [*edges, len(flat)]
    return np.diff([0, *stops]).tolist()


def encode(runs: list[int]) -> str:
    """The compressed string, by the definition: signed groups of five bits, differences to the number two before."""
    text = ""
    for place, number in enumerate(runs):
        left = number - (runs[place - 2] if place > 2 else 0)
        while True:
            bits, left = left & 31, left >> 5
            last = left == (-1 if bits & 16 else 0)
            text += chr(48 + bits + (0 if last else 32))
            if last:
                break
    return text


@given(drawn.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
@settings(max_examples=60, deadline=None)
def test_run_lengths_come_back(mask: np.ndarray) -> None:
    runs = runs_of(mask)
    assert decode_runs(encode(runs), "x") == runs
    assert np.array_equal(whole(fill_runs(runs, mask.shape, "x"), mask.shape), mask)


@given(st.lists(st.integers(0, 10**7), max_size=9))
def test_large_run_lengths_come_back(runs: list[int]) -> None:
    assert decode_runs(encode(runs), "x") == runs


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", []),
        ("5", [5]),
        ("0?", [0, 15]),  # 15 = 01111: one group, sign bit clear
        ("`0", [16]),  # 16 = 10000, whose sign bit asks for a second group
        ("523L", [5, 2, 3, -2]),  # the fourth is the difference -4 to the second
        ("523O1", [5, 2, 3, 1, 4]),
    ],
)
def test_strings_worked_out_by_hand(text: str, runs: list[int]) -> None:
    assert decode_runs(text, "x") == runs


@pytest.mark.parametrize(
    ("text", "message"), [("5`", "end in the middle"), ("5 ", "cannot be read"), ("é", "cannot be read")]
)
def test_strings_that_are_none(text: str, message: str) -> None:
    with pytest.raises(DataError, match=f"a.json: annotation 3 has run lengths that {message}"):
        decode_runs(text, "a.json: annotation 3")


@pytest.mark.parametrize("runs", [[62], [3, -1, 61], [64], []])
def test_runs_that_do_not_fill_the_image(runs: list[int]) -> None:
    with pytest.raises(DataError, match=r"(?s)do not fill the image.*63 px"):
        fill_runs(runs, SIZE, "x")


def test_later_regions_win_and_what_two_classes_claim_is_counted() -> None:
    def box(label: str, top: int, left: int, bottom: int, right: int) -> Region:
        window = (slice(top, bottom), slice(left, right))
        return Region(label, lambda size: [(window, np.ones((bottom - top, right - left), bool))])

    regions = (box("a", 0, 0, 3, 3), box("a", 2, 2, 5, 5), box("b", 1, 1, 3, 4), box("ground", 0, 0, 1, 1))
    painted, disputed = paint(Drawing("x", SIZE, regions), {"a": 1, "b": 2, "ground": 0})
    assert disputed == 5 + 1
    assert painted[:5, :5].tolist() == [
        [0, 1, 1, 0, 0], [1, 2, 2, 2, 0], [1, 2, 2, 2, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1],
    ]  # fmt: skip
