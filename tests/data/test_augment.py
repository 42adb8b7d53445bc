"""Augmentation: image and mask move together, nothing leaves its range, upright stays upright."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.augment import Augmentation, training_crop
from keepmap.data.labels import IGNORE_INDEX

STILL = Augmentation(
    scale=(1.0, 1.0),
    upright=True,
    invert=0.0,
    gain=0.0,
    shift=0.0,
    value_range=(0.0, 255.0),
    fill=(9.0,),
    padding=0,
)
WILD = Augmentation(
    scale=(0.5, 2.0),
    upright=False,
    invert=0.5,
    gain=0.3,
    shift=25.0,
    value_range=(0.0, 255.0),
    fill=(9.0,),
    padding=31,
)


@given(
    height=st.integers(1, 90), width=st.integers(1, 90), channels=st.sampled_from([1, 3, 5]), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_shape_type_range_and_finite_for_any_image(height: int, width: int, channels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (channels, height, width), dtype=np.uint8)
    classes = random.integers(0, 3, (height, width)).astype(np.int16)
    x, y = training_crop(image, classes, 64, WILD, random)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((channels, 64, 64), np.float32, (64, 64), np.int16)
    assert x.min() >= 0 and x.max() <= 255
    assert set(np.unique(y)) <= {IGNORE_INDEX, 0, 1, 2}
    assert (y != IGNORE_INDEX).any()


@given(seed=st.integers(0, 200))
@settings(deadline=None, max_examples=60)
def test_image_and_mask_move_together(seed: int) -> None:
    """A mask that equals the image's bright part still does after any geometry, but for pixels at its border."""
    rows, columns = np.mgrid[:120, :100]
    disc = (rows - 50) ** 2 + (columns - 55) ** 2 < 30**2
    image = np.where(disc, 200, 20).astype(np.uint8)[None]
    how = replace(WILD, invert=0.0, gain=0.0, shift=0.0)
    x, y = training_crop(image, disc.astype(np.int16), 96, how, np.random.default_rng(seed))
    known = y != IGNORE_INDEX
    assert np.mean((x[0] > 110)[known] != (y == 1)[known]) < 0.02


def test_without_change_a_crop_is_a_window_of_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    classes = image[0].astype(np.int16)
    x, y = training_crop(image, classes, 64, STILL, np.random.default_rng(5))
    flipped = not np.array_equal(y, classes)
    expected = image[..., ::-1] if flipped else image
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(y, expected[0])


def test_upright_never_turns_top_and_bottom() -> None:
    image = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, axis=2)
    classes = image[0].astype(np.int16)
    turned = 0
    for seed in range(40):
        _, upright = training_crop(image, classes, 64, STILL, np.random.default_rng(seed))
        assert (np.diff(upright[:, 0]) >= 0).all()
        _, free = training_crop(image, classes, 64, replace(STILL, upright=False), np.random.default_rng(seed))
        turned += not (np.diff(free[:, 0]) >= 0).all() or free[0, 0] == free[-1, 0]
    assert turned > 5


def test_a_side_too_short_is_stretched_a_little_and_then_ignored() -> None:
    image = np.full((1, 64, 10), 9, np.uint8)
    _, y = training_crop(image, np.zeros((64, 10), np.int16), 64, STILL, np.random.default_rng(0))
    assert (y != IGNORE_INDEX).any(axis=0).sum() == 15


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_images_keep_their_values(dtype: type) -> None:
    image = (np.arange(64 * 64).reshape(1, 64, 64) * 16).astype(dtype)
    how = replace(STILL, value_range=(0.0, 65535.0))
    x, _ = training_crop(image, np.zeros((64, 64), np.int16), 64, how, np.random.default_rng(1))
    assert sorted(x.ravel()) == sorted(image.ravel().astype(np.float32))


def test_the_same_generator_gives_the_same_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 80, 90), dtype=np.uint8)
    first, second = (
        training_crop(image, image[0].astype(np.int16), 32, WILD, np.random.default_rng(3)) for _ in range(2)
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_a_quarter_of_the_crops_ends_in_padding_at_the_bottom_and_right() -> None:
    image = np.full((2, 64, 64), 100, np.uint8)
    how = replace(STILL, padding=16, fill=(5.0, 7.0))
    cut = 0
    for seed in range(80):
        x, y = training_crop(image, np.ones((64, 64), np.int16), 64, how, np.random.default_rng(seed))
        inside = y == 1
        rows, columns = inside.any(1).sum(), inside.any(0).sum()
        assert inside[:rows, :columns].all()
        assert min(rows, columns) >= 48
        assert (x[:, inside] == 100).all()
        assert (x[0][~inside] == 5).all()
        assert (x[1][~inside] == 7).all()
        cut += not inside.all()
    assert 8 < cut < 32
