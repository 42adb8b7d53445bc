"""Scores of tallies: pooled and per image under their own names, intervals, worst first, and paired differences."""

from __future__ import annotations

import json

import numpy as np
import pytest

from keepmap.config import from_dict, to_dict
from keepmap.metrics import surfaces
from keepmap.metrics.calibration import Calibration
from keepmap.metrics.confusion import Scores
from keepmap.metrics.scoring import choose_resampling, differences, score
from keepmap.metrics.tally import Extra, Judging, Tally

NAMES = ("ground", "cell", "dust")


def draw(seed: int, wrong: float, shape: tuple[int, int] = (12, 14)):
    """Truth of two of three classes, and a prediction of which about the share `wrong` is wrong."""
    random = np.random.default_rng(seed)
    truth = np.kron(random.integers(0, 2, (6, 7)), np.ones((2, 2), int))
    return truth, np.where(random.random(shape) < wrong, 1 - truth, truth)


def tally_of(count: int, wrong: float = 0.2, shapes: bool = True) -> Tally:
    tally = Tally(NAMES, Judging(shapes))
    for index in range(count):
        tally.add(f"{index}", *draw(index, wrong * (index + 1) / count))
    return tally


def alone(tally: Tally):
    return choose_resampling(tally.stems, {stem: stem for stem in tally.stems}, asked=False)


@pytest.fixture(scope="module")
def scores() -> Scores:
    tally = tally_of(8)
    return score(tally, alone(tally))


def test_one_name_means_one_thing(scores: Scores) -> None:
    own = np.array([image.mean_iou for image in scores.images])
    assert scores.figure("mean IoU").value == pytest.approx(scores.mean_iou)
    assert scores.figure("mean IoU", "image").value == pytest.approx(own.mean())
    assert scores.figure("mean IoU").value != pytest.approx(own.mean(), abs=1e-6)
    assert scores.figure("frequency-weighted IoU").value == pytest.approx(scores.frequency_weighted_iou)
    assert scores.figure("count error", "image").unit == "objects"
    with pytest.raises(KeyError, match="mean IoU \\(image\\)"):
        scores.figure("mean Iou")


def test_every_number_has_an_interval_around_it_and_the_same_again(scores: Scores) -> None:
    for figure in scores.figures:
        assert figure.value is not None and figure.interval is not None, figure
        assert figure.interval[0] < figure.value < figure.interval[1], figure
    assert scores.classes[1].iou_interval is not None and scores.classes[2].iou_interval is None
    tally = tally_of(8)
    assert score(tally, alone(tally)) == scores


def test_absent_classes_are_not_available(scores: Scores) -> None:
    dust = to_dict(scores["dust"])
    assert {name for name, value in dust.items() if value is None} == set(dust) - {"name", "pixels"}


def test_worst_images_come_first_and_json_keeps_all(scores: Scores) -> None:
    found = [image.mean_iou or 0 for image in scores.images]
    assert found == sorted(found) and {image.stem for image in scores.images} == set("01234567")
    assert from_dict(Scores, json.loads(json.dumps(to_dict(scores), allow_nan=False)), "scores") == scores


def test_one_image_has_no_interval_and_says_so() -> None:
    tally = tally_of(1)
    found = score(tally, alone(tally))
    assert found.resampled == "one image only: no intervals"
    assert {figure.interval for figure in found.figures} == {None}
    assert found.figure("mean IoU").value == found.figure("mean IoU", "image").value


def test_all_ignored_is_not_available_and_said() -> None:
    tally = Tally(NAMES, Judging())
    for stem in "ab":
        tally.add(stem, np.full((4, 4), -1), np.zeros((4, 4), int))
    found = score(tally, alone(tally))
    assert {figure.value for figure in found.figures} == {None}
    assert found.remarks == ("2 of 2 images have no pixel that is not ignored; they have no scores",)
    tally.add("c", *draw(0, 0.1))
    found = score(tally, alone(tally))
    assert [image.stem for image in found.images] == ["c", "a", "b"]
    assert found.figure("mean IoU", "image").images == 1


def test_size_without_distances_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surfaces, "DISTANCE_PIXELS", 10)
    tally = tally_of(2)
    found = score(tally, alone(tally))
    assert found.figure("Hausdorff 95 %", "image").value is None
    assert "leave out 2 of 2 images, which have more than 10 pixels" in found.remarks[0]


@pytest.mark.parametrize(
    ("groups", "asked", "text"),
    [
        ("aabbccddee", False, "over 5 groups"),
        ("aaaaabbbbb", False, "over 10 images, which are of 2 groups only: they may be too narrow"),
        ("aaaaabbbbb", True, "over 2 groups"),
        ("aaaaaaaaaa", True, "one group only: no intervals"),
        ("abcdefghij", False, "over 10 images"),
    ],
)
def test_what_is_resampled(groups: str, asked: bool, text: str) -> None:
    stems = [str(index) for index in range(10)]
    found = choose_resampling(stems, dict(zip(stems, groups, strict=True)), asked)
    assert found.text.removeprefix("95 % intervals ") == text
    assert found.possible == ("no" not in text.split())


def test_groups_that_are_alike_widen_the_interval() -> None:
    tally = Tally(NAMES, Judging(shapes=False))
    for index in range(40):
        tally.add(f"{index}", *draw(index, 0.1 + 0.3 * (index % 5 == 0)))
    widths = []
    for groups in ({s: s for s in tally.stems}, {s: str(int(s) % 5) for s in tally.stems}):
        low, high = score(tally, choose_resampling(tally.stems, groups, False)).figure("mean IoU").interval or (0, 0)
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_calibration_and_expected_dice_are_there_where_probabilities_are() -> None:
    tally = Tally(NAMES, Judging())
    for index in range(5):
        truth, prediction = draw(index, 0.05 + 0.1 * index)
        sure = 0.9 - 0.1 * index
        probabilities = np.where(np.arange(3)[:, None, None] == prediction, sure, (1 - sure) / 2)
        calibration = Calibration(3)
        calibration.add(probabilities, truth)
        tally.add(str(index), truth, prediction, Extra(calibration=calibration))
    found = score(tally, alone(tally))
    right = found.figure("pixel accuracy").value or 0
    assert found.figure("calibration error").value == pytest.approx(abs(right - 0.7), abs=0.08)
    assert sum(place.pixels for place in found.reliability) == 5 * 12 * 14
    assert found.quality_correlation == pytest.approx(1)
    assert all(image.expected_dice is not None for image in found.images)


def test_differences_are_paired() -> None:
    good, bad = tally_of(12, 0.3, shapes=False), Tally(NAMES, Judging(shapes=False))
    for index in range(12):
        truth, prediction = draw(index, 0.3 * (index + 1) / 12)
        prediction = prediction.copy()
        prediction[0] = 1 - truth[0]
        bad.add(str(index), truth, prediction)
    found = {(one.name, one.of): one for one in differences(good, bad, alone(good))}
    iou = found["mean IoU", "data set"]
    assert iou.interval is not None and iou.interval[1] < 0 and iou.share == 0
    apart = [score(tally, alone(tally)).figure("mean IoU") for tally in (good, bad)]
    assert (iou.first, iou.second) == tuple(figure.value for figure in apart)
    assert iou.interval[1] - iou.interval[0] < 0.5 * min(f.interval[1] - f.interval[0] for f in apart if f.interval)
    assert found["dust", "class"].difference is None is found["dust", "class"].interval


def test_images_and_classes_that_one_side_lacks_are_in_neither_mean() -> None:
    """The first misses the object of image 2, and the second class of image 3: it has no distances there."""
    planes = np.zeros((4, 20, 20), np.int16)
    planes[:, 3:8, 3:8], planes[3, 12:17, 12:17] = 1, 2
    first, second = (Tally(NAMES, Judging()) for _ in range(2))
    for place, plane in enumerate(planes):
        second.add(str(place), plane, np.roll(plane, 1 + place, axis=1))
        first.add(str(place), plane, np.where((plane == 2) | (place == 2), 0, plane))
    of = {(one.name, one.of): one for one in differences(first, second, alone(first))}
    distance = of["surface distance", "image"]
    both = [surface_of(np.roll(planes[p], 1 + p, axis=1), planes[p], 3 if p < 3 else 2) for p in (0, 1, 3)]
    assert (distance.images, of["mean IoU", "image"].images, of["mean IoU", "data set"].images) == (3, 4, 4)
    assert distance.second == pytest.approx(np.mean(both))
    assert distance.first is not None and 0 < distance.first < 1  # the ground around the object that is missed
    assert distance.difference == pytest.approx(distance.second - distance.first)


def surface_of(prediction, truth, classes: int) -> float:
    """The mean surface distance of the first `classes` classes."""
    pairs = surfaces.outline_distances(truth, prediction, 3)[:classes]
    return float(np.nanmean([surfaces.surface_distance(pair) for pair in pairs]))


def test_units_that_differ_are_not_subtracted() -> None:
    tallies = []
    for unit in ("millimeter", "meter"):
        tally = Tally(NAMES, Judging())
        for index in range(3):
            tally.add(str(index), *draw(index, 0.2), Extra(spacing=(1.0, 1.0), unit=unit))
        tallies.append(tally)
    found = [{one.name for one in differences(tallies[0], other, alone(tallies[0]))} for other in tallies]
    assert found[0] - found[1] == {"Hausdorff 95 %, in units", "surface distance, in units"}
    tallies[0].add("plain", *draw(3, 0.2))
    remark = "the files tell several units (millimeter, none), so distances are in pixels and there are no areas"
    assert score(tallies[0], alone(tallies[0])).remarks == (remark,)


def test_equals_do_not_differ() -> None:
    tally = tally_of(6)
    for one in differences(tally, tally, alone(tally)):
        assert one.difference in (0, None)
        assert one.interval in ((0, 0), None) and one.share in (0.5, None)
    single = tally_of(1)
    assert {one.interval for one in differences(single, single, alone(single))} == {None}
