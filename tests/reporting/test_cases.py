"""Which images are shown, and what their pictures hold."""

from __future__ import annotations

import base64
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepmap.data.labels import LabelSet
from keepmap.evaluation.looking import Look
from keepmap.metrics.regions import Region
from keepmap.protocols import Silent
from keepmap.reporting import cases
from keepmap.reporting.cases import make_gallery

LABELS = LabelSet((0, 1, 2), ("background", "cell", "dust"), 255, ((0, 0, 0), (200, 100, 0), (0, 90, 200)))


class Drawn:
    """Images that are predicted all background: 40 x 60 px, image n has n columns of cells."""

    labels = LABELS

    def __init__(self, bright: int = 250) -> None:
        self.seen: list[str] = []
        self.bright = bright

    def pixels(self, stem: str) -> int:
        return 2400

    def look(self, stem: str) -> Look:
        self.seen.append(stem)
        truth = np.zeros((40, 60), np.int16)
        truth[:, : int(stem)] = 1
        truth[:5, :5] = -1
        image, prediction = np.full((3, 40, 60), self.bright, np.uint8), np.zeros((40, 60), np.uint8)
        return Look(stem, image, truth, prediction, 0.5 / len(self.seen))


class Told(Silent):
    """A Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.tracked: list[tuple[str, float]] = []
        self.done = 0.0

    def track(self, name: str, total: float, unit: str) -> Silent:
        self.tracked.append((name, total))
        return self

    def advance(self, done: float = 1, **figures: float | str) -> None:
        self.done += done


def scores(count: int) -> Any:
    images = [
        SimpleNamespace(stem=str(count - n), mean_iou=n / count, worst_region=region if n else None)
        for n, region in enumerate(Region(8, 0, 32, 32, 5 + n) for n in range(count))
    ]
    return SimpleNamespace(images=(*images, SimpleNamespace(stem="ignored", mean_iou=None, worst_region=None)))


def opened(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))).convert("RGBA"))


@pytest.mark.parametrize(
    ("count", "kinds"),
    [
        (1, ["worst"]),
        (2, ["worst", "best"]),
        (3, ["worst", "median", "best"]),
        (20, ["worst", "worst", "worst", "median", "best", "best"]),
    ],
)
def test_worst_median_and_best_are_shown_once(count: int, kinds: list[str]) -> None:
    sight = Drawn()
    gallery = make_gallery(scores(count), sight, 10**9, regions=2)  # type: ignore[arg-type]
    assert [case.kind for case in gallery.cases] == kinds
    shown = [case.score.mean_iou for case in gallery.cases]
    assert shown == sorted(shown) and len(set(shown)) == len(shown)
    assert shown[0] == 0
    wrong = [case.score.worst_region.wrong for case in gallery.regions]  # type: ignore[union-attr]
    assert wrong == sorted(wrong, reverse=True)[: min(2, count - 1)]
    seconds = sum(0.5 / (n + 1) for n in range(len(sight.seen)))  # the first is the slowest, as a cold start is
    assert (gallery.speed, gallery.left_out) == (pytest.approx(len(sight.seen) * 2400 / 1e6 / seconds), 0)


def test_no_more_pixels_are_predicted_than_allowed() -> None:
    sight = Drawn()
    gallery = make_gallery(scores(20), sight, 3 * 2400, regions=4)  # type: ignore[arg-type]
    assert len(sight.seen) == 3
    assert [case.kind for case in gallery.cases] == ["worst", "median", "best"]
    assert gallery.left_out == 5


def test_layers_hold_classes_and_errors_and_nothing_else() -> None:
    case = make_gallery(scores(20), Drawn(), 2400, regions=0).cases[0]  # type: ignore[arg-type]
    truth, prediction, errors = map(opened, (case.truth, case.prediction, case.errors))
    assert truth.shape == (case.height, case.width, 4) == (40, 60, 4)
    assert truth[20, 10].tolist() == [200, 100, 0, 150]
    assert truth[20, 30, 3] == truth[2, 2, 3] == 0
    assert not prediction[..., 3].any()
    assert errors[20, 10].tolist() == [226, 40, 60, 215]
    assert errors[0, 0, 3] and not errors[20, 30, 3]
    assert opened(case.image or "").shape == (40, 60, 4)
    assert not case.brightened


def test_pictures_that_do_not_compress_are_smaller_and_every_image_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told()
    gallery = make_gallery(scores(3), Drawn(), 10**9, regions=1, progress=told)  # type: ignore[arg-type]
    assert (told.tracked, told.done) == ([("pictures", 3)], 3)
    assert {(case.width, case.height) for case in gallery.cases} == {(60, 40)}
    monkeypatch.setattr(cases, "_SIDES", (60, 30, 15))
    monkeypatch.setattr(cases, "_CHARACTERS", 0)
    small = make_gallery(scores(3), Drawn(), 10**9, regions=1)  # type: ignore[arg-type]
    assert {(case.width, case.height) for case in small.cases} == {(15, 10)}
    assert opened(small.cases[0].image or "").shape == (10, 15, 4)


def test_a_dark_image_is_brightened_and_says_so() -> None:
    case = make_gallery(scores(1), Drawn(bright=20), 10**9, regions=0).cases[0]  # type: ignore[arg-type]
    assert case.brightened
    assert abs(int(opened(case.image or "")[..., 0].mean()) - 200) < 4
