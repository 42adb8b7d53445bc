"""What goes with what in evaluate and compare, and what a comparison says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import keepmap
from keepmap.config import from_dict, to_dict
from keepmap.data.labels import LabelSet, default_colours
from keepmap.errors import DataError, OptionError
from keepmap.evaluation.sources import Comparison
from keepmap.networks.catalogue import build_network, network_recipe
from keepmap.runs import RunConfig, RunFolder, write_tensors


def write(path: Path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of 2 classes for 6 images of 3 sites, and predictions that miss more (good, bad) of class 1."""
    folder = tmp_path_factory.mktemp("desk")
    random = np.random.default_rng(0)
    for index in range(6):
        mask = np.kron(random.integers(0, 2, (6, 7)), np.ones((3, 3), int))
        write(folder / "masks" / f"site{index // 2}_tile_{index}.png", mask)
        write(folder / "images" / f"site{index // 2}_tile_{index}.png", random.integers(0, 256, (18, 21, 3)))
        for name, missed in (("good", 0.05), ("bad", 0.05 + 0.1 * index)):
            wrong = random.random(mask.shape) < missed
            write(folder / name / f"site{index // 2}_tile_{index}.png", np.where(wrong, 0, mask))
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
        network.set_normalisation([127.0] * 3, [70.0] * 3)
        name, options = network_recipe(network)
        labels = LabelSet((0, 1), ("background", "cell"), None, default_colours(2))
        run = RunFolder(folder / f"run{seed}")
        run.path.mkdir()
        run.write_config(RunConfig(name, options, 3, "uint8", labels, keepmap.__version__))
        write_tensors(run.model_file, network.state_dict())
    return folder


def test_comparison_says_where_the_second_lost(desk: Path) -> None:
    found = keepmap.compare(desk / "good", desk / "bad", masks=desk / "masks")
    pairing = found.pairings[0]
    numbers = {(one.name, one.of): one for one in pairing.numbers}
    iou = numbers["mean IoU", "data set"]
    assert iou.difference is not None and iou.interval is not None
    assert iou.interval[0] < iou.difference < iou.interval[1] < 0
    assert iou.second == found.scores[1].mean_iou
    assert pairing.worst_classes == ("foreground", "background")
    assert pairing.worst_images[0].stem.startswith("site2")
    assert {place.stem for place in pairing.worst_regions} <= {change.stem for change in pairing.worst_images}
    assert [place.region.wrong for place in pairing.worst_regions] == sorted(
        (image.worst_region.wrong for image in found.scores[1].images if image.worst_region and image.stem in
         {change.stem for change in pairing.worst_images}), reverse=True,
    )  # fmt: skip
    assert pairing.worst_regions
    assert all(change.second < change.first for change in pairing.worst_images)
    assert found.resampled == "95 % intervals over 6 images, which are of 3 groups only: they may be too narrow"
    assert from_dict(Comparison, json.loads(json.dumps(to_dict(found))), "comparison") == found


def test_nothing_is_lost_against_itself_and_every_other_is_compared_with_the_first(desk: Path) -> None:
    found = keepmap.compare(desk / "bad", desk / "bad", desk / "good", masks=desk / "masks", metrics="region")
    same, better = found.pairings
    assert (same.worst_classes, same.worst_images, better.worst_images) == ((), (), ())
    assert {one.difference for one in same.numbers} == {0}
    assert {one.name for one in same.numbers if one.of == "image"} == {
        "mean IoU", "mean Dice", "mean precision", "mean recall", "pixel accuracy",
    }  # fmt: skip


def test_runs_are_compared_on_images(desk: Path) -> None:
    found = keepmap.compare(
        desk / "run0", desk / "run1", masks=desk / "masks", images=str(desk / "images"), group_by="folder"
    )
    assert {"calibration error", "Brier score"} <= {one.name for one in found.pairings[0].numbers}
    assert found.resampled == "one group only: no intervals"
    alone = keepmap.evaluate(desk / "run1", desk / "images", desk / "masks", group_by="folder")
    assert found.scores[1] == alone


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        (["good"], {}, "two sources or more"),
        (["run0", "good"], {}, r"run0 is a trained network: it needs images"),
        (["good", "bad"], {"device": "cpu"}, "--images IMAGES"),
        (["run0", "run1"], {"images": "images", "ignore": "255"}, "brings its own classes"),
        (["good", "bad"], {"group_by": "("}, "no regular expression"),
        (["good", "bad"], {"surface_tolerance": -1.0}, "pixels, 0 or more"),
        (["good", "bad"], {"metrics": "reigon"}, "region"),
        (["good", "bad"], {"max_pixels": 0}, "at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(desk: Path, monkeypatch, sources, options, message) -> None:
    monkeypatch.chdir(desk)
    with pytest.raises(OptionError, match=message):
        keepmap.compare(*sources, masks="masks", **options)


def test_sources_of_other_masks_are_refused(desk: Path, tmp_path: Path) -> None:
    for path in (desk / "good").iterdir():
        write(tmp_path / "good" / path.name, np.array(Image.open(path)))
    next((tmp_path / "good").iterdir()).unlink()
    with pytest.raises(DataError, match="1 of 6 masks"):
        keepmap.compare(desk / "good", tmp_path / "good", masks=desk / "masks")


def test_classes_of_two_runs_must_agree(desk: Path, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other")
    other.path.mkdir()
    text = RunFolder(desk / "run0").config_file.read_text(encoding="utf-8").replace('"cell"', '"nucleus"')
    other.config_file.write_text(text, encoding="utf-8")
    other.model_file.write_bytes(RunFolder(desk / "run0").model_file.read_bytes())
    with pytest.raises(DataError, match=r"different classes(.|\n)*background, nucleus(.|\n)*background, cell"):
        keepmap.compare(desk / "run0", other.path, masks=desk / "masks", images=str(desk / "images"))
