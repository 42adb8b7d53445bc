"""Encoding is the inverse of decoding, for numbers and for colours; values and their shares in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from keepmap import config
from keepmap.data.labels import IGNORE_INDEX, LabelSet, default_colours, describe_counts, unknown_values
from keepmap.data.values import COLOUR, is_coloured, pack_colours, unpack_colours, value_text
from keepmap.errors import DataError

COLOURS = st.tuples(*(st.integers(0, 255),) * 3).map(lambda rgb: int(pack_colours(np.array(rgb))))


def label_sets() -> st.SearchStrategy[LabelSet]:
    values = st.sampled_from([st.integers(0, 65535), COLOURS]).flatmap(
        lambda kind: st.lists(kind, min_size=3, max_size=12, unique=True)
    )
    return st.builds(
        lambda v, ignore: LabelSet(
            tuple(v[1:]), tuple(f"class {i}" for i in v[1:]), v[0] if ignore else None, default_colours(len(v) - 1)
        ),
        values,
        st.booleans(),
    )


@given(label_sets(), st.data())
def test_decoding_is_undone_by_encoding(labels: LabelSet, data: st.DataObject) -> None:
    indices = data.draw(drawn.arrays(np.int16, (3, 4), elements=st.integers(0, labels.count - 1)))
    values = labels.decode(indices)
    if labels.coloured:
        assert values.dtype == np.uint32
        assert np.array_equal(pack_colours(unpack_colours(values)), values)
    else:
        assert values.dtype == (np.uint8 if max(labels.values) < 256 else np.uint16)
    assert np.array_equal(labels.encode(values), indices)
    assert labels.encode(values).dtype == np.int16


@given(label_sets(), st.sampled_from([np.int32, np.int64, np.uint32]), st.data())
def test_encoding_agrees_with_a_dictionary_or_names_the_stranger(
    labels: LabelSet, dtype: type, data: st.DataObject
) -> None:
    table = {value: index for index, value in enumerate(labels.values)}
    if labels.ignore is not None:
        table[labels.ignore] = IGNORE_INDEX
    low = -3 if np.issubdtype(dtype, np.signedinteger) else 0
    known = st.sampled_from(sorted(table))
    values = data.draw(drawn.arrays(dtype, (2, 3), elements=known | st.integers(low, 65535) | COLOURS))
    unknown = sorted(set(values.ravel().tolist()) - set(table))
    if unknown:
        with pytest.raises(DataError, match=r"x\.png contains") as caught:
            labels.encode(values, "x.png")
        coloured = labels.coloured or is_coloured(unknown)
        assert all(f"{value_text(value, coloured)} (" in caught.value.found for value in unknown)
    else:
        assert labels.encode(values).tolist() == [[table[value] for value in row] for row in values.tolist()]


@given(label_sets())
def test_a_label_set_survives_its_file(labels: LabelSet) -> None:
    assert config.from_dict(LabelSet, config.to_dict(labels), "config.json") == labels


def test_colours_are_named_as_the_table_of_classes_has_them() -> None:
    red = COLOUR + 0xFF0000
    labels = LabelSet((0, red), ("ground", "car"), 255, ((0, 0, 0), (255, 0, 0)))
    assert labels.describe() == "rgb 0,0,0 ground, rgb 255,0,0 car, rgb 255,255,255 ignored"
    assert describe_counts({0: 90, red: 10}) == "rgb 0,0,0 (90 %), rgb 255,0,0 (10 %)"
    error = unknown_values("m.png", {COLOUR + 0x0000FF: 3}, 100, LabelSet((0, red), ("a", "b"), None, labels.colours))
    assert error.summary == "m.png contains colour 0,0,255, which is not a label."
    assert error.do == "correct the mask, or pass --ignore 0,0,255"


def test_every_object_is_one_class() -> None:
    labels = LabelSet((0, 1), ("background", "object"), 7, default_colours(2), instances=True)
    values = np.array([[0, 1, 900], [7, 70_000, 0]], np.int32)
    assert labels.encode(values).tolist() == [[0, 1, 1], [IGNORE_INDEX, 1, 0]]
    assert labels.decode(np.array([[0, 1]])).tolist() == [[0, 1]]
    with pytest.raises(DataError, match="contains value -3, which is not a label"):
        labels.encode(np.array([[-3, 0]]))


def test_shares_name_rare_values_by_their_pixels() -> None:
    assert describe_counts({0: 6100, 255: 3859, 128: 41}) == "0 (61 %), 255 (39 %), 128 (0.41 %, 41 px)"
    assert describe_counts({128: 412}, 41_200) == "128 (1 %, 412 px)"


@pytest.mark.parametrize("count", [2, 20, 21, 300])
def test_colours_differ_and_start_alike(count: int) -> None:
    colours = default_colours(count)
    assert len(set(colours)) == count
    assert colours[:2] == default_colours(2)
    assert all(0 <= part <= 255 for colour in colours for part in colour)


def test_a_blank_is_the_ignored_value_or_none_of_the_labels() -> None:
    red = COLOUR + 0xFF0000
    for values, ignore, blank in (
        ((0, 1), 255, 255), ((0, 1), None, 255), ((0, 255), None, 254), ((0, 1), 7, 7), ((0, red), red + 1, 255),
    ):  # fmt: skip
        assert LabelSet(values, ("a", "b"), ignore, default_colours(2)).blank == blank
    everything = tuple(range(256))
    assert LabelSet(everything, tuple(map(str, everything)), None, default_colours(256)).blank == 65535
