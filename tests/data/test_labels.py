"""Which values are classes: the rules one by one, and encoding as the inverse of decoding."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from keepmap import config
from keepmap.data.labels import (
    IGNORE_INDEX,
    LabelSet,
    default_colours,
    describe_counts,
    find_labels,
    read_class_names,
)
from keepmap.errors import DataError, OptionError


def label_sets() -> st.SearchStrategy[LabelSet]:
    values = st.lists(st.integers(0, 65535), min_size=3, max_size=12, unique=True)
    return st.builds(
        lambda v, ignore: LabelSet(
            tuple(v[1:]), tuple(f"class {i}" for i in v[1:]), v[0] if ignore else None, default_colours(len(v) - 1)
        ),
        values,
        st.booleans(),
    )


def spelt(values: str) -> list[int]:
    """The numbers in words such as "0-11 255"."""
    ranges = [word.partition("-") for word in values.split()]
    return [value for first, _, last in ranges for value in range(int(first), int(last or first) + 1)]


def find(values: str, classes: str = "", ignore: str = "auto") -> tuple[LabelSet, str]:
    """`find_labels` for spelt values, 100 pixels each."""
    return find_labels(dict.fromkeys(spelt(values), 100), class_names=tuple(classes.split()) or None, ignore=ignore)


@given(label_sets(), st.data())
def test_decoding_is_undone_by_encoding(labels: LabelSet, data: st.DataObject) -> None:
    indices = data.draw(drawn.arrays(np.int16, (3, 4), elements=st.integers(0, labels.count - 1)))
    values = labels.decode(indices)
    assert values.dtype == (np.uint8 if max(labels.values) < 256 else np.uint16)
    assert np.array_equal(labels.encode(values), indices)
    assert labels.encode(values).dtype == np.int16


@given(label_sets(), st.sampled_from([np.int32, np.int64, np.uint32, np.uint16]), st.data())
def test_encoding_agrees_with_a_dictionary_or_names_the_stranger(
    labels: LabelSet, dtype: type, data: st.DataObject
) -> None:
    table = {value: index for index, value in enumerate(labels.values)}
    if labels.ignore is not None:
        table[labels.ignore] = IGNORE_INDEX
    low = -3 if np.issubdtype(dtype, np.signedinteger) else 0
    known = st.sampled_from(sorted(table))
    values = data.draw(drawn.arrays(dtype, (2, 3), elements=known | st.integers(low, 65535)))
    unknown = sorted(set(values.ravel().tolist()) - set(table))
    if unknown:
        with pytest.raises(DataError, match=r"x\.png contains") as caught:
            labels.encode(values, "x.png")
        assert all(f"{value} (" in caught.value.found for value in unknown)
    else:
        assert labels.encode(values).tolist() == [[table[value] for value in row] for row in values.tolist()]


@given(label_sets())
def test_a_label_set_survives_its_file(labels: LabelSet) -> None:
    assert config.from_dict(LabelSet, config.to_dict(labels), "config.json") == labels


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


def test_shares_name_rare_values_by_their_pixels() -> None:
    assert describe_counts({0: 6100, 255: 3859, 128: 41}) == "0 (61 %), 255 (39 %), 128 (0.41 %, 41 px)"
    assert describe_counts({128: 412}, 41_200) == "128 (1 %, 412 px)"


@pytest.mark.parametrize("count", [2, 20, 21, 300])
def test_colours_differ_and_start_alike(count: int) -> None:
    colours = default_colours(count)
    assert len(set(colours)) == count
    assert colours[:2] == default_colours(2)
    assert all(0 <= part <= 255 for colour in colours for part in colour)


def test_a_first_class_that_is_no_background_is_not_dark() -> None:
    assert find("0 255")[0].colours[0] == find("0-2")[0].colours[0] == default_colours(1)[0]
    assert find("0 1", "sky road")[0].colours[0] == default_colours(2)[1]


def test_class_names_are_read_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffsky\r\n traffic sign \r\nBäume\r\n\r\n".encode())
    assert read_class_names(path) == ("sky", "traffic sign", "Bäume")


@pytest.mark.parametrize(
    ("text", "found"), [("a\nb\na", "a twice"), ("a\n\nb", "an empty line"), ("a", "1 names"), ("", "0 names")]
)
def test_a_bad_list_of_names_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(OptionError, match=rf"(?s)names\.txt is no list of class names.*{found}"):
        read_class_names(tmp_path / "names.txt")


def test_names_that_cannot_be_read_are_an_option_error(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    for name in ("absent.txt", "image.png"):
        with pytest.raises(OptionError, match=rf"The class names in .*{name} cannot be read"):
            read_class_names(tmp_path / name)


def test_a_blank_is_the_ignored_value_or_none_of_the_labels() -> None:
    for values, ignore, blank in (((0, 1), 255, 255), ((0, 1), None, 255), ((0, 255), None, 254), ((0, 1), 7, 7)):
        assert LabelSet(values, ("a", "b"), ignore, default_colours(2)).blank == blank
    everything = tuple(range(256))
    assert LabelSet(everything, tuple(map(str, everything)), None, default_colours(256)).blank == 65535
