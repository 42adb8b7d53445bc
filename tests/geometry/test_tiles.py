"""The tiles of a cover: they partition the image, and each holds the context that its results need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.geometry.tiles import count_tiles, cover, equal_window, round_up


@st.composite
def covers(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]]:
    rank = draw(st.integers(1, 3))
    axes = []
    for _ in range(rank):
        stride = draw(st.sampled_from([1, 2, 4, 8]))
        halo = (stride * draw(st.integers(0, 3)), stride * draw(st.integers(0, 3)))
        extent = draw(st.integers(1, 70 if rank < 3 else 30))
        enough = draw(st.booleans())
        window = round_up(extent, stride) if enough else sum(halo) + stride * draw(st.integers(1, 5))
        axes.append((extent, window, halo, stride))
    shape, windows, halos, strides = zip(*axes, strict=True)
    return shape, windows, halos, strides


@given(covers())
@settings(max_examples=300, deadline=None)
def test_write_regions_partition_the_image(arguments) -> None:
    shape, _, _, _ = arguments
    written = np.zeros(shape, dtype=int)
    tiles = list(cover(*arguments))
    for tile in tiles:
        written[tile.write] += 1
    assert (written == 1).all()
    assert len(tiles) == count_tiles(*arguments)


@given(covers())
@settings(max_examples=300, deadline=None)
def test_each_tile_is_aligned_and_holds_its_context(arguments) -> None:
    shape, window, halo, stride = arguments
    for tile in cover(*arguments):
        for axis, (read, crop, write) in enumerate(zip(tile.read, tile.crop, tile.write, strict=True)):
            before, after = halo[axis]
            assert read.start % stride[axis] == 0
            assert 0 <= read.start < read.stop <= shape[axis]
            assert read.stop - read.start <= window[axis]
            assert (read.start + crop.start, read.start + crop.stop) == (write.start, write.stop)
            assert read.start <= max(write.start - before, 0)
            assert read.stop >= min(write.stop + after, shape[axis])


@given(covers())
@settings(max_examples=100, deadline=None)
def test_an_identity_computed_in_tiles_gives_the_image_back(arguments) -> None:
    shape, _, _, _ = arguments
    image = np.random.default_rng(0).integers(0, 9, shape)
    result = np.full(shape, -1)
    for tile in cover(*arguments):
        result[tile.write] = image[tile.read][tile.crop]
    assert np.array_equal(result, image)


@given(
    extent=st.integers(1, 5000), count=st.integers(1, 9), stride=st.sampled_from([1, 4, 16]),
    before=st.integers(0, 9), after=st.integers(0, 9),
)
@settings(max_examples=300, deadline=None)
def test_equal_window_is_the_shortest_that_needs_no_more_tiles(extent, count, stride, before, after) -> None:
    halo = (before * stride, after * stride)
    window = equal_window(extent, count, halo, stride)
    whole = round_up(extent, stride)
    if window == whole:
        shorter = window - stride
        assert shorter <= sum(halo) or count_tiles((extent,), (shorter,), (halo,), (stride,)) > count
        return
    assert count_tiles((extent,), (window,), (halo,), (stride,)) <= count or window == sum(halo) + stride
    if window - stride > sum(halo):
        assert count_tiles((extent,), (window - stride,), (halo,), (stride,)) > count


@pytest.mark.parametrize(
    ("extent", "window", "halo", "stride"),
    [
        (0, 8, (0, 0), 4),
        (9, 8, (4, 4), 4),
        (9, 10, (0, 0), 4),
        (9, 16, (2, 4), 4),
        (9, 16, (4, -4), 4),
        (9, 8, (0, 0), 0),
    ],
)
def test_impossible_covers_are_refused(extent, window, halo, stride) -> None:
    with pytest.raises(ValueError, match=str(window)):
        list(cover((extent,), (window,), (halo,), (stride,)))


def test_an_image_smaller_than_the_window_is_one_tile() -> None:
    (tile,) = cover((5, 7), (32, 32), ((8, 8), (8, 8)), (8, 8))
    assert tile.read == tile.write == tile.crop == (slice(0, 5), slice(0, 7))
