"""The images of a RUN: found by split.json, cut for calibration and comparison, and missed when they are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.artefacts.pictures import Pictures, calibration, crops_of, pictures_of, samples
from keepmap.config import write_json
from keepmap.errors import DataError, OptionError
from keepmap.options import ImageOptions
from keepmap.runs import FORMAT, RunFolder

MEAN, DEVIATION = np.array([100.0, 50.0, 0.0]), np.array([30.0, 500.0, 1.0])


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.create()
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        for number, stem in enumerate("abc"):
            array = np.full((20 + 10 * number, 30, 3)[: 3 if part == "images" else 2], number, np.uint8)
            Image.fromarray(array).save(tmp_path / part / f"{stem}.png")
    split = {
        "images": str(tmp_path / "images"), "masks": str(tmp_path / "masks"), "train": ["a", "c", "lost"],
        "validation": ["b"], "options": {"frame": None, "max_pixels": 9999},
    }  # fmt: skip
    write_json(made.split_file, split, format=FORMAT)
    return made


def test_both_parts_are_found(run: RunFolder) -> None:
    found = pictures_of(run)
    assert [path.stem for path in found.files] == ["a", "c"]
    assert [pair.stem for pair in found.pairs] == ["b"]
    assert (found.reading.max_pixels, found.gone) == (9999, "")
    assert calibration(run, found, None) == found


def test_crops_take_each_image_in_its_turn_and_fit_into_it(run: RunFolder) -> None:
    crops = crops_of(pictures_of(run), MEAN, count=4, side=25)
    assert all(crop.dtype == np.float32 and crop.flags.c_contiguous for crop in crops)
    assert sorted(crop.shape for crop in crops) == [(1, 3, 20, 25)] * 2 + [(1, 3, 25, 25)] * 2
    assert [float(crop.max()) for crop in crops[:2]] in ([0.0, 2.0], [2.0, 0.0])


def test_samples_have_the_sizes_that_are_asked_for_with_and_without_images(run: RunFolder) -> None:
    sizes = ((1, 1), (97, 41), (33, 70))
    for pictures in (pictures_of(run), Pictures((), (), ImageOptions())):
        drawn = samples(pictures, sizes, MEAN, DEVIATION, "uint8")
        assert [x.shape for x in drawn] == [(1, 3, *size) for size in sizes]
        assert all(x.dtype == np.float32 and x.min() >= 0 and x.max() <= 255 for x in drawn)


def test_gone_images_are_said_and_can_be_replaced(run: RunFolder, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "images")
    gone = pictures_of(run)
    assert not gone.files and not gone.pairs
    with pytest.raises(OptionError, match="--calibration FOLDER") as caught:
        calibration(run, gone, None)
    assert "images does not exist" in caught.value.found
    assert len(calibration(run, gone, tmp_path / "masks").files) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        calibration(run, gone, tmp_path / "empty")
    run.split_file.unlink()
    assert "was not trained here" in pictures_of(run).gone
