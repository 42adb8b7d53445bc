"""Option dataclasses: frozen, explained, strict; times and sizes as people write them."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap import options
from keepmap.config import from_dict, to_dict
from keepmap.errors import OptionError
from keepmap.options import ImageOptions, TrainOptions, parse_size, parse_time

VERBS = [cls for name, cls in vars(options).items() if name.endswith("Options")]


@pytest.mark.parametrize("cls", VERBS, ids=lambda cls: cls.__name__)
def test_defaults_survive_json(cls: type) -> None:
    values = json.loads(json.dumps(to_dict(cls())))
    assert from_dict(cls, values, "options") == cls()
    assert from_dict(cls, {}, "options") == cls()


@pytest.mark.parametrize("cls", VERBS, ids=lambda cls: cls.__name__)
def test_options_are_frozen_and_explained(cls: type) -> None:
    for field in dataclasses.fields(cls):
        assert len(field.metadata["help"]) > 10
        assert field.name.isidentifier()
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(cls(), field.name, None)


def test_one_name_means_one_thing() -> None:
    """A field that several verbs have, has one type everywhere, and where its default agrees one explanation."""
    seen: dict[str, dataclasses.Field[object]] = {}
    for field in (field for cls in VERBS for field in dataclasses.fields(cls)):
        other = seen.setdefault(field.name, field)
        assert other.type == field.type or field.name == "time"
        if field.default == other.default and field.name != "seed":
            assert other.metadata["help"] == field.metadata["help"], field.name


def test_wrong_option_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean encoder"):
        from_dict(TrainOptions, {"encodr": "resnet18"}, "options")
    with pytest.raises(OptionError, match="did you mean bfloat16"):
        from_dict(TrainOptions, {"precision": "bfloat"}, "options")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2h ", 7200), ("0.5s", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("500M", 500 * 2**20), ("2G", 2**31), ("2GB", 2**31), ("2GiB", 2**31), ("2g", 2**31), ("1.5K", 1536), ("7", 7)],
)
def test_sizes(text: str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1m", "0", "0s", "ten", "1d", "1 0m", "1e3", "nan", "inf", "10m5s", "1,5h"])
def test_bad_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(OptionError, match="--time") as caught:
        parse_time(text)
    assert "10m" in caught.value.expected


@pytest.mark.parametrize("text", ["", "G", "-2G", "2T", "2GG", "two", "0M"])
def test_bad_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(OptionError, match="--memory") as caught:
        parse_size(text)
    assert "2G" in caught.value.expected


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10**6), st.sampled_from("smh"))
def test_units_multiply(count: int, unit: str) -> None:
    assert parse_time(f"{count}{unit}") == count * parse_time(f"1{unit}")


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=8))
def test_any_text_is_a_time_or_an_option_error(text: str) -> None:
    with contextlib.suppress(OptionError):
        assert parse_time(text) > 0


def test_frames_and_pixels_that_cannot_be() -> None:
    for wrong in ({"frame": -1}, {"max_pixels": 0}):
        with pytest.raises(OptionError, match=r"--(frame -1|max-pixels 0) cannot be"):
            TrainOptions(**wrong)
    assert ImageOptions(frame=0).frame == 0
