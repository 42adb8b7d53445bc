"""Pictures have the promised size and colours; how beautiful they are is for the eye."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data import overlay
from keepmap.data.classes import ClassNames
from keepmap.data.label_rules import find_labels
from keepmap.data.labels import IGNORE_INDEX, LabelSet, default_colours
from keepmap.data.overlay import comparison, contact_sheet, draw_differences, draw_overlay, to_rgb

RNG = np.random.default_rng(0)
GROUND = find_labels({0: 1, 255: 1}, class_names=None, ignore="auto")[0]
ROADS = find_labels({0: 1, 1: 1, 2: 1}, class_names=ClassNames(("sky", "road", "car")), ignore="auto")[0]


@given(st.sampled_from([np.uint8, np.uint16, np.float32]), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_any_image_becomes_an_rgb_picture(dtype: type, channels: int, height: int, width: int) -> None:
    image = (RNG.random((channels, height, width)) * 200).astype(dtype)
    picture = to_rgb(image)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    if channels < 3:
        assert (picture == picture[..., :1]).all()
    if dtype is np.uint8 and channels >= 3:
        assert np.array_equal(picture, image[:3].transpose(1, 2, 0))


def test_dark_16_bit_images_are_stretched_between_percentiles() -> None:
    image = np.linspace(100, 300, 10_000).reshape(1, 100, 100).astype(np.uint16)
    image[0, 0, 0] = 65535
    picture = to_rgb(image)
    low, high = np.percentile(image, (1, 99))
    expected = np.clip((image[0] - low) / (high - low) * 255, 0, 255).round()
    assert np.abs(picture[..., 0] - expected).max() <= 1
    assert (picture.min(), picture.max()) == (0, 255)


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_a_constant_image_and_one_without_numbers_are_drawn(value: float) -> None:
    assert to_rgb(np.full((1, 4, 4), value, np.float32)).shape == (4, 4, 3)


def test_a_background_stays_and_a_class_is_tinted_with_a_line_around_it() -> None:
    image = np.full((3, 11, 11), 100, np.uint8)
    indices = np.zeros((11, 11), np.int16)
    indices[3:8, 3:8] = 1
    picture = draw_overlay(image, indices, GROUND, opacity=0.5)
    assert (picture[indices == 0] == 100).all()
    assert np.array_equal(picture[5, 5], np.round(50 + np.array(GROUND.colours[1]) / 2))
    ring = indices.copy()
    ring[4:7, 4:7] = 0
    assert len(np.unique(picture[ring == 1], axis=0)) == 1
    assert not np.array_equal(picture[3, 3], picture[5, 5])


def test_a_named_first_class_is_tinted_and_opacity_counts() -> None:
    image, indices = np.full((3, 4, 4), 100, np.uint8), np.zeros((4, 4), np.int16)
    assert (draw_overlay(image, indices, ROADS, opacity=1.0) == ROADS.colours[0]).all()
    assert (draw_overlay(image, indices, ROADS, opacity=0.0) == 100).all()


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 30), (np.uint16, 90)])
def test_a_picture_is_drawn_in_bands_without_a_seam_and_without_floats_of_all_of_it(
    monkeypatch: pytest.MonkeyPatch, dtype: type, most: int
) -> None:
    random = np.random.default_rng(0)
    labels = LabelSet((0, 1, 2), ("background", "a", "b"), None, default_colours(3))
    image, indices = random.integers(0, 255, (3, 1000, 700)).astype(dtype), random.integers(-1, 3, (1000, 700))
    tracemalloc.start()
    whole = draw_overlay(image, indices, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most * indices.size
    for rows in (7, 10**6):
        monkeypatch.setattr(overlay, "_ROWS", rows)
        assert np.array_equal(draw_overlay(image, indices, labels), whole)


def test_ignored_pixels_are_grey_whatever_the_class_colours() -> None:
    image, indices = np.zeros((3, 4, 4), np.uint8), np.full((4, 4), IGNORE_INDEX, np.int16)
    assert (np.ptp(draw_overlay(image, indices, ROADS), axis=2) == 0).all()


def test_right_is_grey_wrong_is_red_ignored_is_neither() -> None:
    image = RNG.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    truth, prediction = np.zeros((8, 8), np.int16), np.zeros((8, 8), np.int16)
    prediction[:2], truth[4:] = 1, IGNORE_INDEX
    picture = draw_differences(to_rgb(image), truth, prediction).astype(int)
    red = picture[..., 0] - picture[..., 1] > 80
    assert red[:2].all()
    assert not red[2:].any()
    assert (np.ptp(picture[2:], axis=2) <= 1).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (30, 30), (480, 360), (900, 2100), (4000, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_comparison_fits_a_page(size: tuple[int, int], dtype: type) -> None:
    image = RNG.integers(0, 256, (3, *size)).astype(dtype)
    truth = RNG.integers(-1, 3, size)
    sheet = comparison(image, truth, RNG.integers(0, 3, size), ROADS)
    assert sheet.dtype == np.uint8
    assert sheet.shape[2] == 3
    assert 400 < sheet.shape[1] < 3000
    assert sheet.shape[0] < 1500


def test_all_classes_fit_the_legend() -> None:
    names = tuple(f"a class with a long name {i}" for i in range(60))
    labels = LabelSet(tuple(range(60)), names, None, default_colours(60))
    classes = np.arange(3600).reshape(60, 60) % 60
    few = LabelSet((0, 1), ("a", "b"), None, default_colours(2))
    image = np.zeros((1, 60, 60), np.uint8)
    tall, low = comparison(image, classes, classes, labels), comparison(image, classes % 2, classes % 2, few)
    assert tall.shape[0] > low.shape[0]
    assert tall.shape[1] == low.shape[1]


def test_a_truth_that_is_all_ignored_is_drawn() -> None:
    image, truth = np.zeros((3, 20, 20), np.uint8), np.full((20, 20), IGNORE_INDEX)
    assert comparison(image, truth, np.zeros((20, 20), int), GROUND).ndim == 3


@pytest.mark.parametrize(("size", "channels", "dtype"), [(32, 1, np.uint16), (96, 3, np.uint8), (400, 5, np.float32)])
def test_a_contact_sheet_shows_every_crop_and_names_what_occurs(size: int, channels: int, dtype: type) -> None:
    images = [(RNG.random((channels, size, size)) * 200 + 20 * i).astype(dtype) for i in range(5)]
    classes = [np.full((size, size), i % 2, np.int16) for i in range(5)]
    notes = [("name", "around road")] * 5
    sheet = contact_sheet(images, classes, notes, ROADS)
    assert 300 < sheet.shape[1] <= 2200
    assert sheet.shape[0] < 1500
    one = contact_sheet(images[:1], classes[:1], notes[:1], ROADS)
    assert one.size < sheet.size
    ignored = contact_sheet(images, [np.full_like(y, IGNORE_INDEX) for y in classes], notes, ROADS)
    assert not np.array_equal(ignored[-40:], sheet[-40:])


def test_the_crops_of_a_contact_sheet_are_shown_on_one_scale() -> None:
    dark, light = (np.full((1, 160, 160), value, np.uint16) for value in (100, 60_000))
    sheet = contact_sheet([dark, light], [np.zeros((160, 160), np.int16)] * 2, [("", "")] * 2, GROUND)
    middle = sheet[100, :, 0]
    assert {0, 255} <= set(middle.tolist())
