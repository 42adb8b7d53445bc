"""What is kept and what is read again are equal, the limit holds, and threads do no harm."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from keepmap.data.labels import IGNORE_INDEX
from keepmap.data.scan import DataReport, scan
from keepmap.data.store import SampleStore
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Silent

PAIR_BYTES = 8 * 10 * (3 + 2)


@pytest.fixture
def report(tmp_path: Path) -> DataReport:
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for stem in "abcd":
        image, mask = random.integers(0, 256, (8, 10, 3)), random.choice([0, 1, 255], (8, 10))
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / f"{stem}.png")
        Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "masks" / f"{stem}.png")
    return scan(tmp_path / "images", tmp_path / "masks", class_names=None, ignore="auto", progress=Silent())


def store_of(report: DataReport, limit: int, scratch: Path | None = None, sharing: int = 1) -> SampleStore:
    assert report.labels is not None
    return SampleStore(report.facts, report.labels, limit, scratch=scratch, sharing=sharing)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("limit", [0, 2 * PAIR_BYTES, 100 * PAIR_BYTES])
def test_samples_are_the_files_whatever_is_kept(report: DataReport, limit: int, on_disk: bool, tmp_path: Path) -> None:
    store = store_of(report, limit, tmp_path if on_disk else None)
    assert store.file_bytes == on_disk * max(0, 4 * PAIR_BYTES - limit)
    assert len(store) == 4
    for index in [0, 1, 2, 3] * 2:
        image, classes = store.get(index)
        stored = np.array(Image.open(report.facts[index].image))
        values = np.array(Image.open(report.facts[index].mask)).astype(int)
        assert image.dtype == np.uint8
        assert np.array_equal(image, stored.transpose(2, 0, 1))
        assert classes.dtype == np.int16
        assert np.array_equal(classes, np.where(values == 255, IGNORE_INDEX, values))
    assert store.used_bytes == min(limit, 4 * PAIR_BYTES)


def test_what_is_kept_is_not_read_again(report: DataReport) -> None:
    store = store_of(report, PAIR_BYTES)
    first, second = store.get(0), store.get(1)
    assert store.get(0)[0] is first[0]
    assert store.get(1)[0] is not second[0]


def test_beyond_the_memory_pairs_are_decoded_once(
    report: DataReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(report, PAIR_BYTES, tmp_path)
    before = [store.get(index) for index in range(4)]
    for fact in report.facts:
        fact.image.unlink()
    for index, (image, classes) in enumerate(before):
        assert np.array_equal(store.get(index)[0], image)
        assert np.array_equal(store.get(index)[1], classes)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 5 * PAIR_BYTES))
    assert store_of(report, PAIR_BYTES, tmp_path).file_bytes == 2 * PAIR_BYTES
    assert store_of(report, PAIR_BYTES, tmp_path, sharing=2).file_bytes == PAIR_BYTES


def test_threads_share_one_store(report: DataReport) -> None:
    store = store_of(report, 3 * PAIR_BYTES)
    with ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(store.get, [0, 1, 2, 3] * 50))
    for index, (image, classes) in enumerate(samples):
        assert np.array_equal(image, samples[index % 4][0])
        assert np.array_equal(classes, samples[index % 4][1])
    assert store.used_bytes == 3 * PAIR_BYTES


@pytest.mark.parametrize(("folder", "value"), [("images", "image"), ("masks", "mask")])
def test_a_file_of_another_size_has_changed(report: DataReport, folder: str, value: str) -> None:
    path: Path = getattr(report.facts[2], value)
    Image.open(path).resize((5, 5)).save(path)
    with pytest.raises(DataError, match=rf"{folder}/c\.png has changed since it was checked"):
        store_of(report, 0).get(2)


def test_a_mask_with_a_new_value_is_named(report: DataReport) -> None:
    Image.fromarray(np.full((8, 10), 9, np.uint8)).save(report.facts[1].mask)
    with pytest.raises(DataError, match=r"(?s)masks/b\.png contains value 9.*9 \(100 %\)"):
        store_of(report, 0).get(1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_was_never_measured_is_ignored_and_has_the_mean(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for stem in "ab":
        image = random.integers(1, 200, (8, 10, 3)).astype(dtype)
        image[:3, :4] = 0
        extra = [(42113, "s", 0, "0", True)]
        tifffile.imwrite(tmp_path / "images" / f"{stem}.tif", image, photometric="rgb", extratags=extra)
        Image.fromarray(random.choice([0, 1], (8, 10)).astype(np.uint8)).save(tmp_path / "masks" / f"{stem}.png")
    report = scan(tmp_path / "images", tmp_path / "masks", class_names=None, ignore="auto", progress=Silent())
    found, classes = store_of(report, 0).get(1)
    empty = np.zeros((8, 10), bool)
    empty[:3, :4] = True
    assert (classes[empty] == IGNORE_INDEX).all()
    assert (classes[~empty] >= 0).all()
    assert found.dtype == dtype
    assert np.array_equal(found[:, ~empty], image[~empty].T)
    mean = image[~empty].mean(axis=0, dtype=float)
    tolerance = 0.51 if dtype == "uint8" else 1e-4
    np.testing.assert_allclose(found[:, empty], np.repeat(mean[:, None], 12, axis=1), atol=tolerance)


def test_files_are_read_as_they_were_checked(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    stack = np.random.default_rng(0).integers(0, 200, (3, 8, 10)).astype(np.uint8)
    for stem in "ab":
        tifffile.imwrite(tmp_path / "images" / f"{stem}.tif", stack, photometric="minisblack")
        Image.fromarray(stack[0] % 2).save(tmp_path / "masks" / f"{stem}.png")
    how = ImageOptions(frame=2)
    report = scan(
        tmp_path / "images", tmp_path / "masks", class_names=None, ignore="auto", reading=how, progress=Silent()
    )
    assert report.labels is not None
    assert np.array_equal(SampleStore(report.facts, report.labels, 0, how).get(0)[0], stack[2:])


def test_the_objects_of_instance_masks_stay_available(report: DataReport, tmp_path: Path) -> None:
    mask = np.zeros((8, 10), np.uint8)
    mask[1:3, 1:3], mask[5:7, 4:9], mask[0, 9] = 40, 30, 255
    for fact in report.facts:
        Image.fromarray(mask).save(fact.mask)
    whole = scan(
        tmp_path / "images", tmp_path / "masks", class_names=None, ignore="255", progress=Silent(), instances="yes"
    )
    store = store_of(whole, 10_000)
    objects = store.objects(0)
    assert objects is not None
    assert np.array_equal(objects, np.select([mask == 30, mask == 40, mask == 255], [1, 2, -1]))
    assert np.array_equal(store.get(0)[1], np.sign(objects))
    assert store_of(report, 0).objects(0) is None
