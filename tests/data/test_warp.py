"""The one resampling: an image of coordinates says where each pixel came from, and its mask says the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keepmap.data.warp import Warp, bicubic, linear, warped

HEIGHT, WIDTH, SIZE = 150, 200, 48
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
COORDINATES = np.stack([ROWS + 0.5, COLUMNS + 0.5]).astype(np.float32)
NUMBERS = (ROWS * WIDTH + COLUMNS).astype(np.int16)
"""Every pixel as a class of its own."""
UNTURNED = linear(0, 0, (1, 1))


@st.composite
def warps(draw: st.DrawFn) -> Warp:
    scale = draw(st.floats(0.3, 4.0))
    moves = None
    if draw(st.booleans()):
        moves = np.random.default_rng(draw(st.integers(0, 99))).normal(0, 3, (2, 3, 3))
    image = (draw(st.floats(0, HEIGHT)), draw(st.floats(0, WIDTH)))
    matrix = linear(draw(st.floats(-180, 180)), draw(st.floats(-30, 30)), (scale, scale * draw(st.floats(0.7, 1.4))))
    return Warp((SIZE / 2, draw(st.floats(10, 40))), image, matrix, moves)


def places(warp: Warp) -> np.ndarray:
    """(2, SIZE, SIZE): where each pixel comes from, computed pixel by pixel in double precision."""
    found = np.empty((2, SIZE, SIZE))
    weights = bicubic(SIZE).astype(float)
    for row, column in np.ndindex(SIZE, SIZE):
        at = np.array([row, column]) + 0.5 - warp.crop
        if warp.moves is not None:
            at = at + np.einsum("kij,i,j->k", warp.moves, weights[row], weights[column])
        found[:, row, column] = np.asarray(warp.matrix) @ at + warp.image
    return found


@given(warp=warps())
@settings(deadline=None, max_examples=25)
def test_image_mask_and_inside_agree_with_the_map(warp: Warp) -> None:
    x, y, inside = warped(COORDINATES, NUMBERS, warp, SIZE)
    rows, columns = wanted = places(warp)
    sure = np.abs(wanted - wanted.round()).min(axis=0) > 1e-3
    lies = (rows >= 0) & (rows < HEIGHT) & (columns >= 0) & (columns < WIDTH)
    np.testing.assert_array_equal(inside[sure], lies[sure])
    number = np.floor(rows) * WIDTH + np.floor(columns)
    np.testing.assert_array_equal(y[sure & lies], number[sure & lies])
    margin = 2 + 2 * np.abs(warp.matrix).sum()
    deep = (np.minimum(rows, HEIGHT - rows) > margin) & (np.minimum(columns, WIDTH - columns) > margin)
    np.testing.assert_allclose(x[:, deep], wanted[:, deep], atol=0.02)


@given(warp=warps())
@settings(deadline=None, max_examples=15)
def test_classes_are_never_mixed_and_values_never_leave_their_range(warp: Warp) -> None:
    classes = np.where((ROWS // 7 + COLUMNS // 5) % 2, 1000, -1).astype(np.int16)
    image = (classes > 0).astype(np.uint8)[None] * 255
    x, y, _ = warped(image, classes, warp, SIZE)
    assert set(np.unique(y)) <= {-1, 1000}
    assert x.min() >= 0
    assert x.max() <= 255.001


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_the_identity_is_a_window(dtype: type, channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, HEIGHT, WIDTH)).astype(dtype)
    warp = Warp((SIZE / 2, SIZE / 2), (31 + SIZE / 2, 70 + SIZE / 2), UNTURNED)
    x, y, inside = warped(image, NUMBERS, warp, SIZE)
    assert (x.dtype, y.dtype) == (np.float32, np.int16)
    np.testing.assert_allclose(x, image[:, 31 : 31 + SIZE, 70 : 70 + SIZE], atol=0.05)
    np.testing.assert_array_equal(y, NUMBERS[31 : 31 + SIZE, 70 : 70 + SIZE])
    assert inside.all()


def test_a_quarter_turn_is_anti_clockwise() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE), dtype=np.uint8)
    middle = (SIZE / 2, SIZE / 2)
    x, y, _ = warped(image, image[0].astype(np.int16), Warp(middle, middle, linear(90, 0, (1, 1))), SIZE)
    np.testing.assert_array_equal(y, np.rot90(image[0]))
    np.testing.assert_allclose(x[0], np.rot90(image[0]), atol=0.05)


def test_shearing_leans_upright_lines_and_keeps_rows() -> None:
    matrix = np.array(linear(0, 45, (1, 1)))
    np.testing.assert_allclose(matrix @ [0, 1], [0, 1], atol=1e-12)
    np.testing.assert_allclose(matrix @ [1, 0], [1, 1], atol=1e-12)
    assert np.linalg.det(linear(33, 20, (1, 1))) == pytest.approx(1)


@given(degrees=st.floats(-60, 60), shear=st.floats(-20, 20), scale=st.floats(0.6, 1.0))
@settings(deadline=None, max_examples=10)
def test_a_map_and_its_inverse_give_the_image_back(degrees: float, shear: float, scale: float) -> None:
    smooth = (100 + 50 * np.sin(ROWS / 9) + 50 * np.cos(COLUMNS / 11)).astype(np.float32)[None, :SIZE, :SIZE]
    matrix = np.array(linear(degrees, shear, (scale, scale)))
    middle, none = (SIZE / 2, SIZE / 2), np.zeros((SIZE, SIZE), np.int16)
    there, _, seen = warped(smooth, none, Warp(middle, middle, tuple(map(tuple, matrix))), SIZE)
    inverse = np.linalg.inv(matrix)
    back, _, inside = warped(there, seen.astype(np.int16), Warp(middle, middle, tuple(map(tuple, inverse))), SIZE)
    centre = (np.hypot(ROWS - SIZE / 2, COLUMNS - SIZE / 2) < 8)[:SIZE, :SIZE]
    assert inside[centre].all()
    np.testing.assert_allclose(back[0][centre], smooth[0][centre], atol=1.5)


@pytest.mark.parametrize("size", [1, 2, 31, 64])
def test_the_elastic_grid_interpolates_its_nodes(size: int) -> None:
    weights = bicubic(size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights[::-1, ::-1], weights, atol=1e-6)
    if size % 2:
        np.testing.assert_allclose(weights[size // 2], [0, 1, 0], atol=1e-6)
    if size == 64:
        lines = weights @ [-1.0, 0.0, 1.0]
        np.testing.assert_allclose(lines[16:48], (np.arange(16, 48) + 0.5) / 32 - 1, atol=0.1)
        assert (np.diff(lines) > 0).all()


@pytest.mark.parametrize("shrink", [1.05, 1.4, 2.0, 2.9])
def test_shrinking_is_close_to_a_resize_with_antialiasing(shrink: float) -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (1, HEIGHT, HEIGHT), dtype=np.uint8)
    middle = (HEIGHT / 2, HEIGHT / 2)
    warp = Warp((SIZE / 2, SIZE / 2), middle, linear(0, 0, (shrink, shrink)))
    x, _, _ = warped(image, image[0].astype(np.int16), warp, SIZE)
    half = SIZE / 2 * shrink
    box = (75 - half, 75 - half, 75 + half, 75 + half)
    resized = np.asarray(Image.fromarray(image[0]).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box), float)
    assert x.std() == pytest.approx(resized.std(), rel=0.2)
    assert np.corrcoef(x.ravel(), resized.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 2)])
def test_the_smallest_images(shape: tuple[int, int]) -> None:
    image = np.full((2, *shape), 9, np.uint16)
    warp = Warp((4, 4), (shape[0] / 2, shape[1] / 2), linear(20, 5, (1.7, 3.0)), np.ones((2, 3, 3)))
    x, y, inside = warped(image, np.full(shape, 3, np.int16), warp, 8)
    assert (x == 9).all()
    assert (y == 3).all()
    assert not inside.all()
