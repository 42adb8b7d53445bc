"""One pass or tiles: the choice keeps to the memory, wastes little and gives its reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.geometry.tiles import cover
from keepmap.inference.way import Limits, plan_way


def limits(memory: int, *, stride: int = 16, reach: tuple[int, int] = (107, 122), local: bool = True) -> Limits:
    """Ten bytes a pixel."""
    return Limits(stride, reach, local, memory, lambda height, width: 10 * height * width)


def test_one_pass_where_it_fits_and_tiles_one_byte_below() -> None:
    size, padded = (1000, 1500), 1008 * 1504
    way = plan_way(size, limits(10 * padded))
    assert (way.kind, way.window, way.halo, way.exact) == ("one pass", (1008, 1504), ((0, 0), (0, 0)), True)
    assert plan_way(size, limits(10 * padded - 1)).kind == "tiles"


@given(
    height=st.integers(1, 9000), width=st.integers(1, 9000), memory=st.integers(1, 100 * 2**20),
    stride=st.sampled_from([1, 8, 32]), before=st.integers(0, 200), after=st.integers(0, 200),
)
@settings(max_examples=150, deadline=None)
def test_a_tile_fits_the_memory_or_is_the_smallest(height, width, memory, stride, before, after) -> None:
    allowed = limits(memory, stride=stride, reach=(before, after))
    way = plan_way((height, width), allowed)
    tiles = list(cover((height, width), way.window, way.halo, (stride, stride)))
    assert len(tiles) == way.tiles
    if way.kind == "one pass":
        return
    rounded = [-(-side // stride) * stride for side in (before, after)]
    assert way.halo == (tuple(rounded), tuple(rounded))
    smallest = 2 * max(sum(rounded), stride)
    if allowed.peak_bytes(*way.window) > memory:
        assert way.window[0] <= smallest
        assert way.window[1] <= smallest
        assert "the smallest tile takes" in way.because


def test_strips_are_cut_along_their_length_only() -> None:
    way = plan_way((1, 100_000), limits(16 * 2000 * 10))
    assert way.window[0] == 16
    assert way.window[1] <= 2000
    way = plan_way((100_000, 30), limits(32 * 2000 * 10))
    assert way.window[1] == 32


def test_the_arithmetic_of_tiles_stays_low() -> None:
    size = (6000, 6000)
    way = plan_way(size, limits(10 * 4_200_000))
    read = way.tiles * way.window[0] * way.window[1]
    assert read < 1.35 * size[0] * size[1]
    assert way.window[0] * way.window[1] <= 4_200_000


def test_the_reason_names_the_bytes() -> None:
    assert "19.2 MiB of the 1.0 GiB" in plan_way((1000, 2000), limits(2**30)).because
    assert "would take 19.2 MiB, it may take 10.0 MiB" in plan_way((1000, 2000), limits(10 * 2**20)).because


def test_tiles_of_a_network_that_sees_everything_are_said_not_to_be_exact() -> None:
    way = plan_way((3000, 3000), limits(10 * 2**20, local=False))
    assert (way.kind, way.exact) == ("tiles", False)
    assert "not exact" in way.because
    assert plan_way((30, 30), limits(2**30, local=False)).exact


@pytest.mark.parametrize("side", [6000, 100_000])
def test_planning_is_fast_for_large_images(side) -> None:
    calls = 0

    def count(height: int, width: int) -> int:
        nonlocal calls
        calls += 1
        return 10 * height * width

    plan_way((side, side), Limits(16, (107, 107), True, 2**27, count))
    assert calls < 20_000
