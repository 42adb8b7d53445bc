"""Augmentation: image and mask move together, nothing leaves its range, upright stays upright."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.augment import Augmentation, pixel_of, training_crop
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
ALWAYS = {
    "rotation": (1.0, 40.0),
    "shear": (1.0, 10.0),
    "elastic": (1.0, 4.0),
    "colour": (1.0, 0.2),
    "contrast": (1.0, 0.5),
    "gamma": (1.0, 2.0),
    "noise": (1.0, 20.0),
    "blur": (1.0, 2.0),
    "coarse": (1.0, 3.0),
}
GEOMETRY = ("rotation", "shear", "elastic")
SOMETIMES = {name: (0.5, most) for name, (_, most) in ALWAYS.items()}
"""Every change that is off by default, half of the time."""


@given(
    height=st.integers(1, 90), width=st.integers(1, 90), channels=st.sampled_from([1, 3, 5]), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_shape_type_range_and_finite_for_any_image(height: int, width: int, channels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (channels, height, width), dtype=np.uint8)
    classes = random.integers(0, 3, (height, width)).astype(np.int16)
    x, y = training_crop(image, classes, 64, replace(WILD, **SOMETIMES), random)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((channels, 64, 64), np.float32, (64, 64), np.int16)
    assert x.min() >= 0 and x.max() <= 255
    assert set(np.unique(y)) <= {IGNORE_INDEX, 0, 1, 2}
    assert (y != IGNORE_INDEX).any() or min(height, width) < 64  # a turn may take a small one out of sight


@given(seed=st.integers(0, 200))
@settings(deadline=None, max_examples=60)
def test_image_and_mask_move_together(seed: int) -> None:
    """A mask that equals the image's bright part still does after any geometry, but for pixels at its border."""
    rows, columns = np.mgrid[:120, :100]
    disc = (rows - 50) ** 2 + (columns - 55) ** 2 < 30**2
    image = np.where(disc, 200, 20).astype(np.uint8)[None]
    how = replace(WILD, invert=0.0, gain=0.0, shift=0.0, **{name: SOMETIMES[name] for name in GEOMETRY})
    x, y = training_crop(image, disc.astype(np.int16), 96, how, np.random.default_rng(seed))
    known = y != IGNORE_INDEX
    assert (x[0][~known] == 9).all()
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
        training_crop(image, image[0].astype(np.int16), 32, replace(WILD, **ALWAYS), np.random.default_rng(3), 7)
        for _ in range(2)
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


NOISE = np.random.default_rng(0).integers(0, 256, (3, 90, 100), dtype=np.uint8)
QUARTERS = (NOISE[0] // 64).astype(np.int16)


@pytest.mark.parametrize("name", ALWAYS)
def test_a_change_happens_to_its_share_of_the_crops_and_only_to_what_it_is_about(name: str) -> None:
    """The window is drawn first, so that a crop without the change is the same one, flipped or not."""
    most, crops, changed = ALWAYS[name][1], 150, [0, 0]
    for seed in range(crops):
        before = training_crop(NOISE, QUARTERS, 16, STILL, np.random.default_rng(seed))
        never, often = (
            training_crop(
                NOISE, QUARTERS, 16, replace(STILL, **{name: (share, most)}), np.random.default_rng(seed)
            )
            for share in (0.0, 0.3)
        )  # fmt: skip
        for i in range(2):
            np.testing.assert_array_equal(never[i], before[i])
            changed[i] += not any(np.array_equal(often[i], side) for side in (before[i], before[i][..., ::-1]))
    assert abs(changed[0] - 0.3 * crops) < 4 * (0.21 * crops) ** 0.5
    assert changed[1] > changed[0] / 2 if name in GEOMETRY else not changed[1]


def test_a_warp_that_hardly_turns_is_the_window_that_does_not() -> None:
    """The two ways to resample meet, whatever the scale."""
    rows, columns = np.mgrid[:110, :130]
    image = (120 + 60 * np.sin(rows / 7) + 50 * np.cos(columns / 5)).astype(np.uint8)[None]
    classes = (image[0] // 32).astype(np.int16)
    how = replace(WILD, upright=True, invert=0.0, gain=0.0, shift=0.0, padding=0)
    for seed in range(20):
        x, y = training_crop(image, classes, 48, how, np.random.default_rng(seed))
        turned = training_crop(image, classes, 48, replace(how, shear=(1.0, 1e-9)), np.random.default_rng(seed))
        flipped = [side[..., ::-1] for side in turned]
        z, w = min(turned, flipped, key=lambda crop: np.mean(crop[1] != y))
        assert np.mean(y != w) < 0.02
        assert np.abs(x - z)[:, y == w].max() < 8


@pytest.mark.parametrize("shape", [(90, 100), (20, 300), (9, 9), (2000, 1500)])
def test_a_crop_is_drawn_around_a_pixel_of_the_class(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(2)
    classes = np.zeros(shape, np.int16)
    classes[random.integers(shape[0]), random.integers(shape[1])] = 3
    image = np.zeros((1, *shape), np.uint8)
    how = replace(WILD, rotation=(0.5, 180.0), padding=0)
    for _ in range(6):
        _, y = training_crop(image, (classes * 2).astype(np.int16), 32, replace(how, scale=(1.0, 1.5)), random, 6)
        assert (y == 6).any()


def test_every_pixel_of_a_class_is_as_likely() -> None:
    """Also where a mask is so large that only a part of it is searched."""
    classes = np.zeros((1200, 1000), np.int16)
    classes[100:120] = classes[1100:1110] = 4
    random = np.random.default_rng(0)
    rows = [pixel_of(classes, 4, random)[0] for _ in range(300)]
    assert abs(np.mean([row > 1000 for row in rows]) - 1 / 3) < 0.1
    assert set(rows) == {*range(100, 120), *range(1100, 1110)}
    assert all(classes[pixel_of(classes, 4, random)] == 4 for _ in range(20))
    with pytest.raises(ValueError, match="no pixel is of the class 9"):
        pixel_of(classes, 9, random)
