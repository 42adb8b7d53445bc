"""What is counted of a run on images, and of folders of predicted masks."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from keepmap.data.classes import ClassNames
from keepmap.data.labels import LabelSet, default_colours
from keepmap.errors import DataError
from keepmap.evaluation.counting import count_folders, count_run
from keepmap.inference.files import predict_files
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import Scores
from keepmap.metrics.scoring import choose_resampling, score
from keepmap.metrics.tally import Tally
from keepmap.networks.catalogue import build_network
from keepmap.options import PredictOptions
from keepmap.protocols import Silent
from keepmap.runtime.torch_runtime import TorchRuntime


def write(path: Path, values) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def random(*shape: int, high: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, high, shape)


def evaluate_run(*arguments, **options) -> Scores:
    return whole(count_run(*arguments, **options))


def evaluate_folders(*arguments, **options) -> Scores:
    return whole(count_folders(*arguments, **options))


def whole(tally: Tally) -> Scores:
    return score(tally, choose_resampling(tally.stems, {stem: stem for stem in tally.stems}, asked=False))


def of_masks(scores: Scores) -> Scores:
    """Without what probabilities say."""
    figures = tuple(f for f in scores.figures if f.name not in ("calibration error", "Brier score"))
    images = tuple(replace(image, expected_dice=None) for image in scores.images)
    return replace(scores, figures=figures, images=images, reliability=(), quality_correlation=None)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
    network.set_normalisation([127.0] * 3, [70.0] * 3)
    labels = LabelSet((0, 255), ("background", "cell"), 7, default_colours(2))
    return Predictor(TorchRuntime(network, device="cpu", precision="float32"), labels, memory_bytes=2**30)


@pytest.fixture
def dataset(tmp_path) -> tuple[Path, Path]:
    for index, size in enumerate([(21, 30), (1, 1), (40, 17)]):
        write(tmp_path / "images" / "sub" / f"{index}.png", random(*size, 3, seed=index))
        mask = random(*size, high=2, seed=9 + index) * 255
        mask[0, 0] = 7
        write(tmp_path / "masks" / "sub" / f"{index}_mask.png", mask)
    return tmp_path / "images", tmp_path / "masks"


def test_a_run_and_its_own_predictions_have_the_same_scores(predictor, dataset, tmp_path) -> None:
    images, masks = dataset
    scores = evaluate_run(predictor, images, masks)
    assert [row.name for row in scores.classes] == ["background", "cell"]
    assert np.sum(scores.matrix) == 21 * 30 + 40 * 17 - 2
    predict_files(predictor, [images], tmp_path / "out", PredictOptions(overlay=True, probabilities=True))
    again = evaluate_folders(tmp_path / "out", masks, class_names=ClassNames(("background", "cell")), ignore="7")
    assert again == of_masks(scores)
    assert sum(place.pixels for place in scores.reliability) == np.sum(scores.matrix)


def test_masks_against_themselves_are_perfect_and_the_labels_are_said(tmp_path) -> None:
    for index in range(3):
        write(tmp_path / "masks" / f"{index}.png", np.where(random(9, 9, seed=index) > 250, 255, random(9, 9, high=3)))
    said: list[str] = []

    class Told(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    scores = evaluate_folders(tmp_path / "masks", tmp_path / "masks", progress=Told())
    assert scores.mean_iou == scores.mean_dice == scores.pixel_accuracy == 1
    assert len(scores.classes) == 3
    assert "255 is ignored" in said[0]


def test_scores_of_folders_equal_plain_loops(tmp_path) -> None:
    truths, predictions = [], []
    for index in range(4):
        truths.append(random(11, 7, high=4, seed=index))
        predictions.append(random(11, 7, high=4, seed=50 + index))
        write(tmp_path / "masks" / f"{index}.png", truths[-1])
        write(tmp_path / "predictions" / f"{index}.png", predictions[-1])
    write(tmp_path / "predictions" / "extra.png", random(3, 3, high=4))
    scores = evaluate_folders(tmp_path / "predictions", tmp_path / "masks")
    assert scores.remarks == ("1 prediction without a mask: not scored",)
    truth, prediction = np.concatenate(truths), np.concatenate(predictions)
    for k, row in enumerate(scores.classes):
        both, either = ((truth == k) & (prediction == k)).sum(), ((truth == k) | (prediction == k)).sum()
        assert row.iou == pytest.approx(both / either)
        assert row.pixels == (truth == k).sum()
    assert scores.pixel_accuracy == pytest.approx((truth == prediction).mean())


@pytest.mark.parametrize(
    ("prediction", "mask", "message"),
    [
        (np.zeros((4, 5)), [[0, 255]] * 4, r"differ in size(.|\n)*4 x 5 px(.|\n)*4 x 2 px(.|\n)*predict the image"),
        ([[0, 1]], [[0, 255]], r"predictions/x\.png contains value 1"),
        ([[0, 255, 0]], [[0, 255, 3]], "fit no rule"),
        ([[0, 1, 255]], [[0, 1, 2]], "contains value 255"),
        ([[0, 1, 255, 255]], [[0, 1, 2, 255]], r"predicts the ignored value 255(.|\n)*1 px"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, prediction, mask, message) -> None:
    write(tmp_path / "predictions" / "x.png", prediction)
    write(tmp_path / "masks" / "x.png", mask)
    with pytest.raises(DataError, match=message):
        evaluate_folders(tmp_path / "predictions", tmp_path / "masks")


@pytest.mark.parametrize("which", ["images", "masks"])
def test_empty_folders_are_refused(predictor, dataset, tmp_path, which) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        evaluate_folders(dataset[0], tmp_path / "empty")
    with pytest.raises(DataError):
        evaluate_run(predictor, tmp_path / "empty", dataset[1])


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((4, 5, 3)), np.zeros((5, 4)), "differ in size"),
        (np.zeros((4, 5)), np.zeros((4, 5)), "has 1 channel"),
        (np.zeros((4, 5, 3)), np.full((4, 5), 128), "contains value 128"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(predictor, dataset, image, mask, message) -> None:
    write(dataset[0] / "zz.png", image)
    write(dataset[1] / "zz.png", mask)
    with pytest.raises(DataError, match=message):
        evaluate_run(predictor, *dataset)


def test_what_was_never_measured_is_not_scored(predictor, tmp_path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    pixels = random(20, 30, 3, seed=1).astype(np.uint8)
    pixels[:6] = 0
    write(masks / "a.png", random(20, 30, high=2) * 255)
    images.mkdir()
    tifffile.imwrite(images / "a.tif", pixels, photometric="rgb", extratags=[(42113, "s", 0, "0", True)])
    measured = int((pixels != 0).any(axis=2).sum())
    assert measured < 20 * 30 - 6 * 29
    scores = evaluate_run(predictor, images, masks)
    assert np.sum(scores.matrix) == measured
    predict_files(predictor, [images], tmp_path / "out")
    again = evaluate_folders(tmp_path / "out", masks, class_names=ClassNames(("background", "cell")))
    said = f"{600 - measured} px that have a truth are not scored: predictions declare them nodata"
    assert again.remarks == (said,)
    assert replace(again, remarks=()) == of_masks(scores)
    sums = [float(line["expected_dice"]) for line in csv.DictReader(reviewed(predictor, images, tmp_path))]
    assert [round(image.expected_dice or 0, 4) for image in scores.images] == sums


def reviewed(predictor, images: Path, folder: Path) -> list[str]:
    """The lines of review_first.csv."""
    predict_files(predictor, [images], folder / "reviewed", PredictOptions(review=True))
    return (folder / "reviewed" / "review_first.csv").read_text().splitlines()


def test_a_class_is_no_nodata(tmp_path) -> None:
    """Else missed objects would leave the counts, and the recall would be 1."""
    truth, missed = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    truth[2:4, 2:4] = truth[5:7, 5:7] = missed[5:7, 5:7] = 1
    write(tmp_path / "masks" / "a.png", truth)
    (tmp_path / "found").mkdir()
    for nodata in ("0", "9"):
        tags = [(42113, "s", 0, nodata, True)]
        tifffile.imwrite(tmp_path / "found" / "a.tif", missed, extratags=tags)
        if nodata == "0":
            with pytest.raises(DataError, match=r"the value 0 to be nodata(.|\n)*60 px"):
                evaluate_folders(tmp_path / "found", tmp_path / "masks")
    scores = evaluate_folders(tmp_path / "found", tmp_path / "masks")
    assert (scores.classes[1].recall, scores.remarks) == (0.5, ())


def test_numbered_objects_are_told_apart_where_both_number_them(tmp_path) -> None:
    truth = np.pad(np.arange(24).reshape(4, 6).repeat(3, 0).repeat(3, 1) + 1, 2)
    write(tmp_path / "masks" / "a.png", truth)
    gap = (truth > 0) & (np.arange(truth.shape[1]) != 7)
    for name, prediction in (("numbered", truth), ("joined", gap), ("white", 255 * gap)):
        write(tmp_path / name / "a.png", prediction)
        counts = count_folders(tmp_path / name, tmp_path / "masks").counts()["objects"]
        assert counts[0].tolist() == [[0, 0, 0], [24, 24, 24] if name == "numbered" else [24, 2, 0]]


def test_pixel_size_comes_from_the_truth_and_else_from_the_prediction(tmp_path) -> None:
    plane = np.zeros((12, 12), np.uint8)
    plane[3:7, 3:7] = 1
    for name, size in (("masks", None), ("predictions", 0.5), ("told", 2.0)):
        (tmp_path / name).mkdir()
        said = {} if size is None else {"resolution": (1e4 / size, 1e4 / size), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(tmp_path / name / "a.tif", np.roll(plane, 2 * (name != "masks"), 1), **said)
    for truth, prediction, size in (("masks", "predictions", 0.5), ("told", "masks", 2.0)):
        scores = evaluate_folders(tmp_path / prediction, tmp_path / truth)
        figures = [scores.figure(name, "image") for name in ("Hausdorff 95 %", "Hausdorff 95 %, in units")]
        assert figures[1].unit == "centimeter"
        assert figures[1].value == pytest.approx(figures[0].value * size * 1e-4)
        assert (scores.area_unit, scores.classes[1].pixels) == ("centimeter^2", 16)
        assert scores.classes[1].area == pytest.approx(16 * (size * 1e-4) ** 2)
        assert scores.classes[1].predicted_area == pytest.approx(scores.classes[1].area)
    tifffile.imwrite(tmp_path / "told" / "a.tif", plane, resolution=(72, 72), resolutionunit="INCH")
    assert evaluate_folders(tmp_path / "told", tmp_path / "masks").area_unit == ""
    without = evaluate_folders(tmp_path / "masks", tmp_path / "masks").figures
    assert "Hausdorff 95 %, in units" not in {figure.name for figure in without}
    assert evaluate_folders(tmp_path / "masks", tmp_path / "masks").area_unit == ""


def test_a_geotiff_in_metres_has_distances_and_areas_in_metres(tmp_path) -> None:
    plane = np.zeros((12, 12), np.uint8)
    plane[3:7, 3:7] = 1
    geo = [
        (33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 9.0, 50.0, 0.0), True),
        (34735, "H", 12, (1, 1, 0, 2, 3072, 0, 1, 32632, 3076, 0, 1, 9001), True),
    ]  # fmt: skip
    for name, shift in (("masks", 0), ("predictions", 2)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", np.roll(plane, shift, 1), extratags=geo)
    scores = evaluate_folders(tmp_path / "predictions", tmp_path / "masks")
    figures = [scores.figure(name, "image") for name in ("surface distance", "surface distance, in units")]
    assert (figures[1].unit, figures[1].value) == ("meter", pytest.approx(figures[0].value / 2))
    assert (scores.area_unit, scores.classes[1].area) == ("meter^2", 4.0)
