"""Percentiles and object sizes of some pairs against those of all pixels and of scipy's labelling."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy import ndimage

from keepmap.data import glance as module
from keepmap.data.glance import areas_of, glance
from keepmap.data.scan import scan
from keepmap.protocols import Silent


@given(arrays.arrays(np.int16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-1, 2)))
@settings(deadline=None, max_examples=60)
def test_objects_are_those_of_a_labelling_class_by_class(classes: np.ndarray) -> None:
    for k, found in enumerate(areas_of(classes, classes, 3)):
        areas = np.bincount(ndimage.label(classes == k)[0].ravel())[1:]
        assert sorted(found) == sorted(areas[areas >= 4])


def write(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for kind, array in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(exist_ok=True)
        Image.fromarray(array.astype(np.uint8)).save(folder / kind / f"{name}.png")


def looked_at(folder: Path) -> module.Glance:
    report = scan(folder / "images", folder / "masks", class_names=None, ignore="auto", progress=Silent())
    assert report.labels is not None
    return glance(report.facts, report.labels)


def test_a_small_data_set_is_seen_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 200, (40, 50)) for _ in range(3)]
    mask = np.zeros((40, 50))
    mask[5:15, 5:15] = mask[20:24, 20:24] = 1
    mask[30, 1:3] = 1
    for n, image in enumerate(images):
        write(tmp_path, str(n), image, mask)
    seen = looked_at(tmp_path)
    assert seen.pairs == 3
    np.testing.assert_allclose(seen.percentiles, [np.percentile(images, module.PERCENTILES)])
    small, large = 2 * np.sqrt(16 / np.pi), 2 * np.sqrt(100 / np.pi)
    np.testing.assert_allclose(seen.diameters[1], np.percentile([small, large] * 3, module.SIZES), atol=1e-3)


def test_touching_objects_with_numbers_are_apart(tmp_path: Path) -> None:
    mask = np.zeros((40, 40))
    mask[8:, :] = np.kron(np.arange(1, 33).reshape(4, 8), np.ones((8, 5)))
    for name in "ab":
        write(tmp_path, name, np.arange(1600).reshape(40, 40) % 251, mask)
    np.testing.assert_allclose(looked_at(tmp_path).diameters[1], [2 * np.sqrt(40 / np.pi)] * 3, atol=1e-3)


def test_of_many_and_large_pairs_a_part_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAIRS", 2)
    monkeypatch.setattr(module, "_SIDE", 20)
    for n in range(5):
        image = np.full((60, 60), n)
        image[20:40, 20:40] = 100 + n
        mask = np.zeros((60, 60))
        mask[25:35, 0:60] = 1
        write(tmp_path, str(n), image, mask)
    seen = looked_at(tmp_path)
    assert seen.pairs == 2
    assert seen.percentiles == ((100.0, 102.0, 104.0),)
    np.testing.assert_allclose(seen.diameters[1], [2 * np.sqrt(200 / np.pi)] * 3, atol=1e-3)
