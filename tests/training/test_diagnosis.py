"""Remarks on trainings that go wrong, and none on one that goes well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import keepmap
from keepmap.data.drawn import draw_dataset
from keepmap.metrics.confusion import ConfusionMatrix, Scores
from keepmap.training.diagnosis import History

NAMES = ("background", "cell", "dust")
STEPS, WARM_UP = 200, 10
FALLING = [2.0 * 0.99**step for step in range(200)]


def scores(truth: list[int], found: list[int]) -> Scores:
    """Of an image whose pixels are those of three classes, in so many pixels each; what is wrong goes to the last."""
    matrix = ConfusionMatrix(3)
    one, other = (np.repeat(np.arange(3), counts)[None] for counts in (truth, found))
    matrix.add(one, other)
    return matrix.scores(NAMES)


GOOD = scores([600, 300, 100], [600, 300, 100])


def history(losses: list[float], *validations: Scores) -> History:
    placed = [(STEPS * (n + 1) // len(validations), each) for n, each in enumerate(validations)]
    return History(losses, placed)


def kinds(what: History) -> list[str]:
    return [remark.kind for remark in what.remarks(STEPS, WARM_UP)]


def test_nothing_is_said_of_a_good_training_nor_before_a_validation() -> None:
    assert kinds(history(FALLING, GOOD, GOOD, GOOD)) == []
    assert kinds(history([2.0] * 200)) == []


@pytest.mark.parametrize(
    ("truth", "losses", "word"),
    [
        ([990, 6, 4], FALLING, "class_rate"),
        ([600, 300, 100], FALLING, "more time"),
        ([600, 300, 100], [2.0] * 200, "--preview"),
    ],
)
def test_one_class_everywhere_has_a_cause(truth: list[int], losses: list[float], word: str) -> None:
    found = {remark.kind: remark for remark in history(losses, scores(truth, [1000, 0, 0])).remarks(STEPS, WARM_UP)}
    assert "background is predicted everywhere" in found["one class everywhere"].found
    assert word in found["one class everywhere"].do
    assert "class never predicted" not in found


def test_an_image_of_one_class_may_be_predicted_as_such() -> None:
    assert kinds(history(FALLING, scores([1000, 0, 0], [1000, 0, 0]))) == []


@pytest.mark.parametrize(
    ("last", "kind"), [(2.0, "loss does not move"), (1.9, "loss does not move"), (3.5, "loss grows"), (1.0, None)]
)
def test_a_loss_that_does_not_fall(last: float, kind: str | None) -> None:
    losses = [2.0] * 100 + [last] * 100
    poor = scores([600, 300, 100], [300, 600, 100])
    assert kinds(history(losses, poor)) == ([kind] if kind else [])
    assert kinds(history(losses[-29:], poor)) == []  # too few to tell
    assert kinds(history(losses, GOOD)) == []


def test_a_class_that_is_never_predicted_is_named_in_the_second_half() -> None:
    blind = scores([600, 300, 100], [650, 350, 0])
    (remark,) = history(FALLING, blind).remarks(STEPS, WARM_UP)
    assert remark.kind == "class never predicted"
    assert "dust (10.00% of the pixels)" in remark.found
    assert kinds(History(FALLING, [(99, blind)])) == []


def test_held_out_images_that_fall_behind() -> None:
    worse = [scores([600, 300, 100], [600 - lost, 300, 100 + lost]) for lost in (0, 200, 250)]
    assert kinds(history(FALLING, *worse)) == ["held-out images fall behind"]
    assert kinds(history(FALLING, *worse[::-1])) == []
    assert kinds(history([1.0] * 5, *worse)) == []


def speckled(folder: Path) -> None:
    """Noise, in which a few pixels are said to be something."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for name in "abcd":
        mask = np.zeros((48, 48), np.uint8)
        mask.flat[random.choice(mask.size, 12, replace=False)] = 1
        Image.fromarray(random.integers(0, 256, mask.shape, dtype=np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")


@pytest.mark.parametrize(
    ("data", "provoked", "said"),
    [
        (lambda folder: draw_dataset(folder, count=4, seed=0), {"learning_rate": 1e-9}, "the loss does not move"),
        (speckled, {"learning_rate": 1e-2, "dice": 0.0}, "background is predicted everywhere; 0.5% of the pixels"),
    ],
    ids=["no learning", "specks"],
)
def test_a_training_that_is_made_to_fail_says_why(
    tmp_path: Path, data: Callable[[Path], None], provoked: dict[str, float], said: str, lines: Any
) -> None:
    data(tmp_path)
    keepmap.train(
        tmp_path / "images", tmp_path / "masks", tmp_path / "run", model="unet", steps=30, crop=32, batch=2,
        precision="float32", set={"widths": (4, 8), **provoked}, progress=lines,
    )  # fmt: skip
    assert [line for line in lines.said if line.startswith(f"note    {said}")]
    assert f'"found": "{said}' in (tmp_path / "run" / "metrics.jsonl").read_text()


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=60),
    st.lists(st.tuples(*[st.integers(0, 9)] * 9), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=40)
def test_any_history_can_be_looked_at(losses: list[float], cells: list[tuple[int, ...]]) -> None:
    validations = []
    for counts in cells:
        matrix = ConfusionMatrix(3)
        pairs = np.repeat(np.arange(9), counts)[None]
        if pairs.size:
            matrix.add(pairs // 3, pairs % 3)
        validations.append(matrix.scores(NAMES))
    for remark in history(losses, *validations).remarks(STEPS, WARM_UP):
        assert remark.found and remark.do
