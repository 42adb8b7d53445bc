"""One pass or tiles: the choice keeps to the memory, wastes little and gives its reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.errors import OptionError
from keepmap.geometry.tiles import cover
from keepmap.inference.blending import blend_bytes
from keepmap.inference.way import Limits, Way, plan_way
from keepmap.options import WantedWay


def limits(
    memory: int, *, stride: int = 16, reach: tuple[int, int] = (107, 122), local: bool = True,
    wanted: WantedWay = "tiles", unstreamable: str = "",
) -> Limits:  # fmt: skip
    """Ten bytes a pixel, a thousand for each column of bands; tiles where it is too much for one pass."""
    return Limits(
        stride, reach, local, memory, lambda height, width: 10 * height * width,
        lambda band, width: (1000 + 20 * band) * width, unstreamable, wanted,
    )  # fmt: skip


def tiles_or_pass(size: tuple[int, int], given: Limits) -> Way:
    """What is done where there are no bands."""
    return plan_way(size, replace(given, wanted="auto", unstreamable="it is so"))


def test_one_pass_where_it_fits_and_tiles_one_byte_below() -> None:
    size, padded = (1000, 1500), 1008 * 1504
    way = tiles_or_pass(size, limits(10 * padded))
    assert (way.kind, way.window, way.halo, way.exact) == ("one pass", (1008, 1504), ((0, 0), (0, 0)), True)
    assert way.overhead(size) == padded / (1000 * 1500)
    tiles = tiles_or_pass(size, limits(10 * padded - 1))
    assert tiles.kind == "tiles"
    assert tiles.overhead(size) == tiles.tiles * tiles.window[0] * tiles.window[1] / (1000 * 1500)


@pytest.mark.parametrize(("quick_pass", "unstreamable", "wanted", "kind"), [
    (10 * 960 * 960, "", "auto", "one pass"), (10 * 960 * 960 - 1, "", "auto", "bands"),
    (0, "it is so", "auto", "one pass"), (0, "", "pass", "one pass"),
])  # fmt: skip
def test_a_pass_that_fits_gives_way_to_bands_that_are_quicker(quick_pass, unstreamable, wanted, kind) -> None:
    allowed = limits(10 * 960 * 960, wanted=wanted, unstreamable=unstreamable)
    way = plan_way((960, 960), replace(allowed, quick_pass=quick_pass))
    assert (way.kind, way.exact, way.overhead((960, 960))) == (kind, True, 1.0)
    assert (way.because == "one pass would take 8.8 MiB, and more time") == (kind == "bands")


def test_no_columns_where_a_pass_fits() -> None:
    exact = limits(10 * 320 * 3200, wanted="auto")
    few = replace(exact, quick_pass=0, band_bytes=lambda band, width: 10 * 330 * (width + 100))
    assert plan_way((320, 3200), few).kind == "one pass"
    assert plan_way((320, 3200), replace(few, wanted="bands")).tiles > 1


@given(
    height=st.integers(1, 900), width=st.integers(1, 900), memory=st.integers(1, 2**20),
    stride=st.sampled_from([1, 8, 32]), before=st.integers(0, 20), after=st.integers(0, 20),
)
@settings(max_examples=150, deadline=None)
def test_a_tile_fits_the_memory_or_is_the_smallest(height, width, memory, stride, before, after) -> None:
    allowed = limits(memory, stride=stride, reach=(before, after))
    way = tiles_or_pass((height, width), allowed)
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
    way = tiles_or_pass((1, 100_000), limits(16 * 2000 * 10))
    assert way.window[0] == 16
    assert way.window[1] <= 2000
    way = tiles_or_pass((100_000, 30), limits(32 * 2000 * 10))
    assert way.window[1] == 32


def test_the_arithmetic_of_tiles_stays_low() -> None:
    size = (6000, 6000)
    way = tiles_or_pass(size, limits(10 * 4_200_000))
    read = way.tiles * way.window[0] * way.window[1]
    assert read < 1.35 * size[0] * size[1]
    assert way.window[0] * way.window[1] <= 4_200_000


def test_the_reason_names_the_bytes() -> None:
    assert "19.2 MiB of the 1.0 GiB" in tiles_or_pass((1000, 2000), limits(2**30)).because
    assert "would take 19.2 MiB, it may take 10.0 MiB" in tiles_or_pass((1000, 2000), limits(10 * 2**20)).because


@given(
    height=st.integers(1, 900), width=st.integers(1, 900), memory=st.integers(1, 2**20),
    stride=st.sampled_from([1, 8, 32]), reach=st.integers(0, 20), classes=st.integers(2, 30),
)
@settings(max_examples=100, deadline=None)
def test_blended_tiles_and_their_band_fit_the_memory_or_are_the_smallest(*_, **drawn) -> None:
    size, memory, stride = (drawn["height"], drawn["width"]), drawn["memory"], drawn["stride"]
    given = replace(limits(memory, stride=stride, reach=(drawn["reach"], 0), local=False), classes=drawn["classes"])
    way = tiles_or_pass(size, given)
    if way.kind == "one pass":
        return
    assert way.kind == "blended tiles"
    assert len(list(cover(size, way.window, way.halo, (stride, stride)))) == way.tiles
    for extent, side, (_, overlap) in zip(size, way.window, way.halo, strict=True):
        assert side % stride == overlap % stride == 0
        assert 4 * overlap >= side and (side >= 2 * overlap or side >= extent)
    if 10 * way.window[0] * way.window[1] + blend_bytes(given.classes, way.window, size[1]) > memory:
        least = 2 * max(-(-drawn["reach"] // stride) * stride, stride)
        assert max(way.window) <= least and "the smallest tile takes" in way.because


def test_tiles_of_a_network_that_sees_everything_are_blended_and_said_not_to_be_exact() -> None:
    way = tiles_or_pass((3000, 3000), limits(10 * 2**20, local=False))
    assert (way.kind, way.exact) == ("blended tiles", False)
    assert "not exact and are blended" in way.because
    rows, columns = way.window
    assert str(way) == f"{way.tiles} blended tiles of {rows} x {columns} px"
    assert tiles_or_pass((30, 30), limits(2**30, local=False)).exact
    alone = plan_way((30, 30), limits(2**30, local=False, wanted="tiles"))
    assert (alone.kind, alone.tiles, alone.exact, alone.because) == ("blended tiles", 1, True, "--way tiles")


@pytest.mark.parametrize("side", [6000, 100_000])
def test_planning_is_fast_for_large_images(side) -> None:
    calls = 0

    def count(height: int, width: int) -> int:
        nonlocal calls
        calls += 1
        return 10 * height * width

    tiles_or_pass((side, side), Limits(16, (107, 107), True, 2**27, count, count, ""))
    assert calls < 20_000


@given(
    height=st.integers(1, 9000), width=st.integers(1, 9000), memory=st.integers(10 * 2**20, 200 * 2**20),
    stride=st.sampled_from([8, 32]), before=st.integers(0, 500), after=st.integers(0, 500),
)
@settings(max_examples=100, deadline=None)
def test_bands_fit_the_memory_and_cost_no_more_than_tiles(height, width, memory, stride, before, after) -> None:
    given = limits(memory, stride=stride, reach=(before, after), wanted="auto")
    way = plan_way((height, width), given)
    if way.kind != "bands":
        return
    assert given.band_bytes(way.band, way.window[1]) <= memory
    assert way.band % stride == 0 and way.window[0] == -(-height // stride) * stride
    assert way.halo[0] == (0, 0)
    parts = list(cover((height, width), way.window, way.halo, (stride, stride)))
    assert len(parts) == way.tiles
    tiles = plan_way((height, width), replace(given, wanted="tiles"))
    assert way.tiles * way.window[1] * way.window[0] <= tiles.tiles * tiles.window[0] * tiles.window[1]


def test_large_images_go_in_bands_of_full_width_and_wider_ones_in_columns() -> None:
    way = plan_way((6000, 6000), limits(100 * 2**20, wanted="auto"))
    assert (way.kind, way.tiles, way.window, way.halo) == ("bands", 1, (6000, 6000), ((0, 0), (0, 0)))
    assert str(way) == "bands of 256 rows"
    heavy = replace(limits(100 * 2**20, wanted="auto"), peak_bytes=lambda h, w: 200 * h * w)
    band = plan_way((6000, 6000), heavy).band
    assert heavy.peak_bytes(band, 6000) <= 256 * 2**20 < heavy.peak_bytes(band + heavy.stride, 6000)
    wide = plan_way((6000, 60_000), limits(20 * 2**20, wanted="auto"))
    assert wide.kind == "bands" and wide.tiles > 1 and wide.halo == ((0, 0), (112, 128))
    assert f"in {wide.tiles} columns of {wide.window[1]} px" in str(wide)


def test_the_way_that_is_wanted_is_taken() -> None:
    ways = [plan_way((3000, 3000), limits(2**20, wanted=wanted)) for wanted in ("pass", "bands", "tiles")]
    assert [way.kind for way in ways] == ["one pass", "bands", "tiles"]
    assert all(f"--way {wanted}" in way.because for way, wanted in zip(ways[1:], ("bands", "tiles"), strict=True))
    small = [plan_way((300, 300), limits(2**30, wanted=wanted)).kind for wanted in ("auto", "bands", "tiles")]
    assert small == ["one pass", "bands", "tiles"]


def test_where_there_can_be_no_bands_the_reason_is_given() -> None:
    given = limits(2**20, wanted="bands", unstreamable="up (Pixelation) cannot be computed in bands")
    with pytest.raises(OptionError, match="cannot be computed in bands") as caught:
        plan_way((3000, 3000), given)
    assert "Pixelation" in str(caught.value)
    assert "no bands: up (Pixelation)" in plan_way((3000, 3000), replace(given, wanted="auto")).because
