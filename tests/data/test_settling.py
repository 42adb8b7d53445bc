"""Labels keep their values where these fit a rule; else they are numbered."""

from __future__ import annotations

import pytest

from keepmap.data.classes import ClassNames
from keepmap.data.settling import Key, Look, settle
from keepmap.data.values import COLOUR
from keepmap.errors import DataError

RED, GREEN, PALE = COLOUR | 0xFF0000, COLOUR | 0x00FF00, COLOUR | 0xFE0000


def exact(*values: int, coloured: bool | None = False, thin: tuple[int, ...] = (), objects: bool | None = None) -> Look:
    counts = {**dict.fromkeys(values, 100), **dict.fromkeys(thin, 3)}
    return Look(coloured, False, counts, dict.fromkeys(values, 50), values, objects)


def lossy(*values: int, coloured: bool = False) -> Look:
    counts = {**dict.fromkeys(values, 100), 77: 3, 78: 3}
    return Look(coloured, True, counts, dict.fromkeys(values, 50), values)


def settled(looks: list[Look], names: ClassNames | None = None, ignore: str = "auto") -> Key:
    return settle(looks, class_names=names, ignore=ignore, instances="auto")


@pytest.mark.parametrize(
    ("looks", "mains", "values"),
    [
        ([exact(0, 255), exact(0)], (0, 255), (0, 255)),
        ([exact(0, 1, 2, 255)], (0, 1, 2, 255), (0, 1, 2, 255)),
        ([exact(0, 255), lossy(1, 254)], (0, 255), (0, 255)),
        ([lossy(1, 254), lossy(0, 255)], (0, 254), (0, 255)),
        ([lossy(0, 254)], (0, 254), (0, 255)),
        ([exact(0, 90, 7)], (0, 7, 90), (0, 1, 2)),
        ([exact(0, 255, thin=(128,)) for _ in range(4)], (0, 255), (0, 255)),
        ([exact(0, 255), exact(0, 255, 7), exact(0, 255)], (0, 255), (0, 255)),
        ([exact(0, RED, coloured=True), exact(GREEN, RED, coloured=True)], (0, GREEN, RED), (0, 1, 2)),
        ([lossy(0, PALE, coloured=True), lossy(0, PALE + 1, coloured=True)], (0, PALE), (0, 1)),
        ([exact(RED, 0, coloured=True)] * 2 + [exact(0, 1), exact(0, coloured=None)], (0, RED), (0, 1)),
        ([exact(0, 5, 9, objects=True), exact(0, 3)], (), ()),
    ],
)
def test_labels(looks: list[Look], mains: tuple[int, ...], values: tuple[int, ...]) -> None:
    key = settled(looks)
    assert (key.mains, key.values) == (mains, values)
    assert key.renumbered == (mains != values)


def test_a_table_of_classes_settles_colours_and_numbers() -> None:
    table = ClassNames(("car", "ground", "void"), (RED, 0, GREEN))
    key = settled([exact(0, RED, coloured=True)], table, "0,255,0")
    assert (key.mains, key.values, key.classes) == ((RED, 0, GREEN), (0, 1, 255), [("car", 0), ("ground", 1)])
    numbers = ClassNames(("ground", "car"), (3, 90))
    assert settled([exact(3, 90), lossy(3, 90)], numbers).values == (3, 90)
    assert settled([lossy(2, 91)], numbers).values == (3, 90)
    with pytest.raises(DataError, match="colour-coded, and --classes names no colours"):
        settled([exact(0, RED, coloured=True)], ClassNames(("a", "b")))


def test_what_cannot_be_told_is_an_error() -> None:
    with pytest.raises(DataError, match="No mask can be read"):
        settled([])
    with pytest.raises(DataError, match="cannot be told from the damage"):
        settled([lossy(0, 1, 2)])
