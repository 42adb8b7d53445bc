"""Which values are classes: the rules one by one, for numbers, colours and objects."""

from __future__ import annotations

import re

import pytest

from keepmap.data.classes import ClassNames
from keepmap.data.label_rules import find_labels, instance_labels
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.values import COLOUR, parse_value
from keepmap.errors import DataError, OptionError


def spelt(values: str) -> list[int]:
    """The numbers in words such as "0-11 255"."""
    ranges = [word.partition("-") for word in values.split()]
    return [value for first, _, last in ranges for value in range(int(first), int(last or first) + 1)]


def find(values: str, classes: str = "", ignore: str = "auto") -> tuple[LabelSet, str]:
    """`find_labels` for spelt values, 100 pixels each."""
    names = ClassNames(tuple(classes.split())) if classes else None
    return find_labels(dict.fromkeys(spelt(values), 100), class_names=names, ignore=ignore)


@pytest.mark.parametrize(
    ("values", "classes", "ignore", "expected", "left_out"),
    [
        ("0 255", "", "auto", "0 255", None),
        ("0 255", "", "none", "0 255", None),
        ("0 255", "ground cell", "auto", "0 255", None),
        ("0 1", "", "auto", "0 1", None),
        ("0-4", "", "auto", "0-4", None),
        ("0-4 255", "", "auto", "0-4", 255),
        ("0 1 255", "", "auto", "0 1", 255),
        ("0-4 255", "", "255", "0-4", 255),
        ("0-4", "", "255", "0-4", 255),
        ("0-11", "", "11", "0-10", 11),
        ("0-4", "", "0", "1-4", 0),
        ("1-4", "", "0", "1-4", 0),
        ("0-4", "", "2", "0 1 3 4", 2),
        ("0 128 255", "", "128", "0 255", 128),
        ("0-255", "", "none", "0-255", None),
        ("0 2", "a b c", "auto", "0-2", None),
        ("0 2 255", "a b c", "auto", "0-2", 255),
        ("0-3", "a b c", "3", "0-2", 3),
        ("0-2", "a b void", "2", "0 1", 2),
        ("0 255", "a b void", "2", "0 255", 2),
    ],
)
def test_rules(values: str, classes: str, ignore: str, expected: str, left_out: int | None) -> None:
    labels, _ = find(values, classes, ignore)
    assert labels.values == tuple(spelt(expected))
    assert labels.ignore == left_out
    assert len(labels.names) == len(labels.colours) == len(set(labels.colours)) == labels.count


@pytest.mark.parametrize(
    ("values", "classes", "ignore", "message"),
    [
        ("0 255", "", "255", r"(?s)fewer than two classes after leaving out 255.*drop --ignore"),
        ("0", "", "auto", r"(?s)fewer than two classes.*0 \(100 %\).*label what the network is to find"),
        ("0-1 3", "", "auto", r"(?s)fit no rule.*the ids 2 do not occur: pass --classes"),
        ("0-4 255", "", "none", r"(?s)fit no rule.*drop --ignore none"),
        ("17 200", "", "auto", r"(?s)fit no rule.*number the classes 0\.\.K-1"),
        ("0-5", "a b c", "auto", r"(?s)no name.*3 \(17 %\).*0\.\.2: a, b, c.*add the missing names"),
        ("0-2 255", "a b c", "none", r"(?s)values for which --classes has no name.*255"),
    ],
)
def test_values_without_a_rule_are_refused_with_a_remedy(
    values: str, classes: str, ignore: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find(values, classes, ignore)


@pytest.mark.parametrize("greys", [range(1, 255), range(40, 90)])
def test_grey_borders_are_recognised(greys: range) -> None:
    counts = {0: 10_000, 255: 9_000} | dict.fromkeys(greys, 3)
    with pytest.raises(DataError, match=rf"(?s)and {len(greys) - 6} other values.*without smoothing or JPEG"):
        find_labels(counts, class_names=None, ignore="auto")


@pytest.mark.parametrize("ignore", ["void", "-1", "70000", "1.5", "²"])
def test_an_ignore_that_is_no_value_is_refused(ignore: str) -> None:
    with pytest.raises(OptionError, match=f"--ignore {re.escape(ignore)} is no label value"):
        find("0 255", ignore=ignore)


def test_one_class_name_is_refused() -> None:
    with pytest.raises(OptionError, match="--classes leaves fewer than two classes"):
        find("0 1", "a b", "1")


@pytest.mark.parametrize(
    ("values", "classes", "ignore", "sentence"),
    [
        ("0 255", "", "auto", "0 and 255 are taken for background and foreground."),
        ("0-3", "", "auto", "values 0 to 3 are taken for the ids of 4 classes."),
        ("0-3 255", "", "auto",
         "values 0 to 3 are taken for the ids of 4 classes; 255 is ignored (20 % of the pixels)."),
        ("0 2", "sky road car", "7",
         "values 0 to 2 are taken for the ids of 3 classes; 7 is ignored; no pixel has 1 road."),
    ],
)  # fmt: skip
def test_what_the_values_are_taken_for_is_said(values: str, classes: str, ignore: str, sentence: str) -> None:
    assert find(values, classes, ignore)[1] == sentence


def test_names() -> None:
    assert find("0 255")[0].names == ("background", "foreground")
    assert find("0-2")[0].names == ("class 0", "class 1", "class 2")
    assert find("0-2", "a b c", "0")[0].names == ("b", "c")
    assert find("0 2 255", "a b c")[0].describe() == "0 a, 1 b, 2 c, 255 ignored"
    assert find("0-99")[0].describe().endswith("7 class 7, ..., 99 class 99")


def test_a_first_class_that_is_no_background_is_not_dark() -> None:
    assert find("0 255")[0].colours[0] == find("0-2")[0].colours[0] == default_colours(1)[0]
    assert find("0 1", "sky road")[0].colours[0] == default_colours(2)[1]


def colours(*texts: str) -> list[int]:
    """The label values of colours such as "0,0,0"."""
    return [value for value in map(parse_value, texts) if value is not None]


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (("0,0,0", "255,0,0"), ("background", "foreground")),
        (("0,0,0", "128,0,0", "0,128,0"), ("rgb 0,0,0", "rgb 0,128,0", "rgb 128,0,0")),
        (("9,9,8", "1,2,3"), ("rgb 1,2,3", "rgb 9,9,8")),
    ],
)
def test_exact_colours_are_classes(found: tuple[str, ...], names: tuple[str, ...]) -> None:
    values = colours(*found)
    labels, sentence = find_labels(dict.fromkeys(values, 50), class_names=None, ignore="auto", solid=values)
    assert labels.values == tuple(sorted(values))
    assert labels.names == names
    assert {",".join(map(str, colour)) for colour in labels.colours} == set(found)
    assert sentence == f"{len(found)} colours are taken for classes."


def test_a_table_decides_and_white_is_no_ignored_value() -> None:
    road, white = colours("128,64,128", "255,255,255")
    listed = colours("0,0,0", "128,64,128", "255,255,255", "64,0,128")
    table = ClassNames(("void", "road", "line", "car"), tuple(listed))
    labels, sentence = find_labels({0: 5, road: 90, white: 5}, class_names=table, ignore="0,0,0")
    assert labels.values == tuple(listed[1:])
    assert (labels.names, labels.ignore) == (("road", "line", "car"), 0)
    assert sentence == (
        "3 colours are taken for classes; rgb 0,0,0 is ignored (5 % of the pixels); no pixel has rgb 64,0,128 car."
    )
    with pytest.raises(DataError, match=r"(?s)colours that --classes does not list.*rgb 1,0,0 \(0\.99 %, 1 px\)"):
        find_labels({0: 5, road: 90, white: 5, colours("1,0,0")[0]: 1}, class_names=table, ignore="0,0,0")
    short = ClassNames(("void", "road"), tuple(colours("0,0,0", "128,64,128")))
    with pytest.raises(DataError, match=r"(?s)does not list.*rgb 255,255,255 \(5 %\)"):
        find_labels({0: 5, road: 90, white: 5}, class_names=short, ignore="auto")


def test_a_table_of_ids() -> None:
    table = ClassNames(("road", "car", "sky"), (7, 26, 23))
    labels, sentence = find_labels({7: 50, 26: 50, 255: 1}, class_names=table, ignore="auto")
    assert (labels.values, labels.ignore) == ((7, 26, 23), 255)
    assert sentence.startswith("3 values from 7 to 23 are taken for classes; 255 is ignored")
    with pytest.raises(DataError, match=r"(?s)values that --classes does not list.*255.*7 road, 26 car"):
        find_labels({7: 50, 255: 1}, class_names=table, ignore="none")


def test_names_without_colours_do_not_fit_colours() -> None:
    with pytest.raises(DataError, match=r"(?s)names no colours.*rgb 255,0,0.*NAME,R,G,B"):
        find_labels(dict.fromkeys(colours("0,0,0", "255,0,0"), 9), class_names=ClassNames(("a", "b")), ignore="auto")


def test_mixtures_in_thin_lines_are_no_classes() -> None:
    """A pedestrian of CamVid lies midway between two other classes and is one all the same: he is not thin."""
    void, tree, walker = colours("0,0,0", "128,128,0", "64,64,0")
    counts = {void: 900, tree: 800, walker: 20}
    labels, _ = find_labels(counts, class_names=None, ignore="auto", solid={void, tree, walker})
    assert labels.count == 3
    with pytest.raises(DataError, match=r"(?s)3 colours, 1 of them mixtures in thin lines.*without smoothing"):
        find_labels(counts, class_names=None, ignore="auto", solid={void, tree})


def test_many_colours_are_no_classes() -> None:
    counts = dict.fromkeys(range(COLOUR + 256, COLOUR + 256 + 65), 9)
    with pytest.raises(DataError, match=r"(?s)found +65 colours.*at most 64 exact colours.*--instances yes"):
        find_labels(counts, class_names=None, ignore="auto", solid=counts)


def test_objects() -> None:
    labels, sentence = instance_labels({0: 50, 1: 40, 7: 10}, ignore="7")
    assert (labels.values, labels.names, labels.instances) == ((0, 1), ("background", "object"), True)
    assert sentence.endswith("0 background, 1 object; 7 is ignored (10 % of the pixels).")
    with pytest.raises(DataError, match="fewer than two classes"):
        instance_labels({0: 50}, ignore="none")
    with pytest.raises(OptionError, match="--ignore 1 cannot be left out"):
        instance_labels({0: 50, 1: 5}, ignore="1")
