"""Which files belong together, by their names alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.errors import DataError
from keepmap.evaluation.pairs import pair_images, pair_predictions


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / name)
    return folder


def test_missing_predictions_are_listed(tmp_path) -> None:
    masks = write(tmp_path / "masks", *(f"{index}.png" for index in range(8)))
    with pytest.raises(DataError, match=r"7 of 8 masks(.|\n)*0\.png.*1\.png.*2\.png.*4\.png.*5\.png and 2 more"):
        pair_predictions(write(tmp_path / "predictions", "3.png"), masks)


def test_a_prediction_that_cannot_be_used_is_told_as_it_is(tmp_path) -> None:
    masks, predictions = write(tmp_path / "masks", "x.png", "y.png"), write(tmp_path / "predictions", "x.png")
    (predictions / "y.png").symlink_to(write(tmp_path / "far", "y.png") / "y.png")
    with pytest.raises(DataError, match=r"y\.png is a link that leads out"):
        pair_predictions(predictions, masks)
    assert len(pair_predictions(predictions, masks, follow_links=True)[0]) == 2
    write(predictions, "other.png").joinpath("other.png").rename(predictions / "other.jp2")
    (predictions / "x.png").rename(predictions / "z.png")
    (predictions / "y.png").unlink()
    (predictions / "y.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"y\.png cannot be opened(.|\n)*mend or remove the link"):
        pair_predictions(predictions, masks)


def test_two_files_of_one_stem_are_refused(tmp_path) -> None:
    predictions, masks = write(tmp_path / "predictions", "x.png", "x.tif"), write(tmp_path / "masks", "x.png")
    with pytest.raises(DataError, match=r"x\.png and .*x\.tif have one stem"):
        pair_predictions(predictions, masks)
    both = write(tmp_path / "both", "y.png", "y_mask.png")
    with pytest.raises(DataError, match=r"both belong to .*y\.png"):
        pair_predictions(write(tmp_path / "other", "y.png"), both)


def test_endings_of_masks_and_what_else_lies_there(tmp_path) -> None:
    predictions = write(tmp_path / "predictions" / "sub", "a.png", "extra.png").parent
    np.save(predictions / "sub" / "a.npy", np.zeros((2, 2)))
    write(predictions / "sub", "a_overlay.png")
    pairs, alone = pair_predictions(predictions, write(tmp_path / "masks" / "sub", "a_mask.png").parent)
    assert alone == 1
    assert [(pair.stem, pair.image.name, pair.mask.name) for pair in pairs] == [("sub/a", "a.png", "a_mask.png")]


def test_everything_alone_is_named(tmp_path) -> None:
    images, masks = write(tmp_path / "images", "a.png", "lonely.png"), write(tmp_path / "masks", "a.png")
    with pytest.raises(DataError, match=r"lonely\.png"):
        pair_images(images, masks)
    write(masks, "single.png")
    with pytest.raises(DataError, match=r"2 files cannot be used(.|\n)*single\.png(.|\n)*lonely\.png"):
        pair_images(images, masks)


def test_empty_folders_are_refused(tmp_path) -> None:
    full, empty = write(tmp_path / "full", "a.png"), write(tmp_path / "empty")
    with pytest.raises(DataError, match="holds no images"):
        pair_predictions(full, empty)
    with pytest.raises(DataError, match=r"1 of 1 masks in .* have no prediction"):
        pair_predictions(empty, full)
    for pair in ((full, empty), (empty, full)):
        with pytest.raises(DataError, match="holds no"):
            pair_images(*pair)
