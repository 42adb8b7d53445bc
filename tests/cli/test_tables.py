"""The score table holds every number that the scores hold, and n/a where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from keepmap.cli.tables import figure_table, pairing_parts, score, score_notes, score_table
from keepmap.evaluation.sources import Pairing
from keepmap.metrics.confusion import ConfusionMatrix, Scores
from keepmap.metrics.scoring import choose_resampling, differences
from keepmap.metrics.scoring import score as evaluated
from keepmap.metrics.tally import Extra, Judging, Tally


def _scores(truth: list[int], prediction: list[int], names: list[str]) -> Scores:
    matrix = ConfusionMatrix(len(names))
    matrix.add(np.array(truth), np.array(prediction))
    return matrix.scores(names)


def _printed(*tables: Table) -> list[str]:
    console = Console(width=80, color_system=None, _environ={})
    with console.capture() as captured:
        console.print(*tables)
    return captured.get().splitlines()


def _lines(scores: Scores) -> list[str]:
    return _printed(score_table(scores))


def test_a_row_per_class_and_the_means() -> None:
    lines = _lines(_scores([0, 0, 0, 1], [0, 0, 1, 1], ["background", "cell [x]", "dust"]))
    assert lines[0].split() == ["class", "pixels", "IoU", "Dice", "precision", "recall"]
    assert lines[2].split() == ["background", "3", "0.6667", "0.8000", "1.0000", "0.6667"]
    assert lines[3].split() == ["cell", "[x]", "1", "0.5000", "0.6667", "0.5000", "1.0000"]
    assert lines[4].split() == ["dust", "0", "n/a", "n/a", "n/a", "n/a"]
    assert lines[-2].split() == ["mean", "0.5833", "0.7333"]
    assert lines[-1].split() == ["pixel", "accuracy", "0.7500"]


def test_all_ignored_is_all_not_available() -> None:
    assert "".join(_lines(_scores([-1], [0], ["a", "b"]))).count("n/a") == 11


def test_the_worst_classes_come_in_their_order_where_they_are_equal() -> None:
    scores = _scores([0, 1, 2, 3], [0, 3, 3, 3], ["a", "class 2", "class 10", "d"])
    assert "Worst classes by IoU: class 2 0.000, class 10 0.000, d 0.333." in score_notes(scores)


def test_everything_fits_in_80_columns_and_keeps_its_parts() -> None:
    tally = Tally(("background", "a class of many words"), Judging())
    random = np.random.default_rng(0)
    for index in range(6):
        truth = np.kron(random.integers(0, 2, (4, 5)), np.ones((3, 3), int))
        wrong = np.where(random.random(truth.shape) < 0.1 * index, 1 - truth, truth)
        tally.add(f"{index}", truth, wrong, Extra(spacing=(1000.0, 1000.0), unit="micrometer"))
    scores = evaluated(tally, choose_resampling(tally.stems, {s: s for s in tally.stems}, asked=False))
    lines = _printed(score_table(scores), figure_table(scores))
    assert all(len(line) <= 80 for line in lines) and "\u2026" not in "".join(lines)
    assert {line.split("  ")[0] for line in lines} >= {"mean IoU", "boundary F", "Hausdorff 95 %, micrometer"}
    assert next(line for line in lines if line.startswith("count error, objects")).count("to") == 1


def test_means_over_some_of_the_images_say_how_many() -> None:
    tallies = [Tally(("background", "cell"), Judging()) for _ in range(2)]
    for index in range(3):
        truth = np.zeros((9, 9), int)
        truth[2:6, 2:6] = 1
        for place, tally in enumerate(tallies):
            tally.add(str(index), truth, truth if place or index else np.zeros_like(truth))
    resampling = choose_resampling(tallies[0].stems, {s: s for s in tallies[0].stems}, asked=False)
    lines = _printed(figure_table(evaluated(tallies[0], resampling)))
    assert sum("images)" in line for line in lines) == sum("(2" in line for line in lines) == 2  # a name may fold
    pairing = Pairing("a", "b", tuple(differences(*tallies, resampling)), (), ())
    table = _printed(*(part for part in pairing_parts(pairing) if isinstance(part, Table)))
    assert [line.split("  ")[0] for line in table if "2 of 3 images" in line] == [
        "Hausdorff 95 %, px", "surface distance, px"
    ]  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=90),
        min_size=2,
        max_size=4,
    )
)
@example(["x" * 90, "y"])
def test_long_names_fold_and_nothing_is_cut(names: list[str]) -> None:
    truth = list(range(len(names)))
    lines = _lines(_scores(truth, truth, names))
    assert all(len(line) <= 80 for line in lines)
    assert "".join(lines).count("1.0000") == 4 * len(names) + 3
    assert "\u2026" not in "".join(lines)


@pytest.mark.parametrize(("value", "text"), [(None, "n/a"), (0.0, "0.0000"), (1.0, "1.0000"), (2 / 3, "0.6667")])
def test_score(value: float | None, text: str) -> None:
    assert score(value) == text
