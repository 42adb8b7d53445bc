"""Dataclasses survive JSON unchanged; whatever does not fit is refused by name; files are whole or untouched."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.config import (
    LONGEST_NAME,
    from_arguments,
    from_dict,
    hidden_beside,
    option,
    read_json,
    to_dict,
    write_json,
    write_text,
)
from keepmap.errors import DataError, OptionError, OutputError, RunError

FEW = settings(deadline=None, max_examples=60)


@dataclass(frozen=True)
class Inner:
    name: str
    share: float = 0.5


@dataclass(frozen=True)
class Outer:
    count: int
    up: Literal["transposed", "bilinear"]
    widths: tuple[int, ...] = (64, 128)
    pair: tuple[int, float] = (1, 2.0)
    ignore: int | None = None
    flag: bool = False
    parts: tuple[Inner, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    deep: dict[str, tuple[Inner, ...]] = field(default_factory=dict)
    anything: Any = None


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INNERS = st.builds(Inner, name=st.text(), share=FLOATS)
OUTERS = st.builds(
    Outer,
    count=st.integers(),
    up=st.sampled_from(["transposed", "bilinear"]),
    widths=st.lists(st.integers()).map(tuple),
    pair=st.tuples(st.integers(), FLOATS),
    ignore=st.none() | st.integers(),
    flag=st.booleans(),
    parts=st.lists(INNERS, max_size=3).map(tuple),
    reasons=st.dictionaries(st.text(), st.text(), max_size=3),
    deep=st.dictionaries(st.text(), st.lists(INNERS, max_size=2).map(tuple), max_size=2),
    anything=st.none() | st.booleans() | st.integers() | st.text(),
)


@FEW
@given(OUTERS)
def test_round_trip(value: Outer) -> None:
    assert from_dict(Outer, to_dict(value), "here") == value


@FEW
@given(OUTERS)
def test_round_trip_through_json(value: Outer) -> None:
    assert from_dict(Outer, json.loads(json.dumps(to_dict(value))), "here") == value


@FEW
@given(st.dictionaries(st.sampled_from(["steps", "name", "other"]), st.text()))
def test_round_trip_through_a_file(tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("json") / "config.json"
    write_json(path, values, format=3)
    assert read_json(path, format=3) == values


def test_to_dict_copies() -> None:
    value = Outer(1, "bilinear", reasons={"a": "b"})
    to_dict(value)["reasons"]["a"] = "changed"
    assert value.reasons == {"a": "b"}


@pytest.mark.parametrize("name", [f.name for f in fields(Outer)])
def test_misspelt_field_names_the_nearest(name: str) -> None:
    with pytest.raises(OptionError, match=f"did you mean {name}") as caught:
        from_dict(Outer, {"count": 1, "up": "bilinear", name + "x": 1}, "options of unet")
    assert caught.value.found == name + "x"
    assert "options of unet" in caught.value.summary


@pytest.mark.parametrize("name", ["count", "up"])
def test_missing_field_is_named(name: str) -> None:
    values = {"count": 1, "up": "bilinear"}
    del values[name]
    with pytest.raises(OptionError, match=f"lacks the field {name}"):
        from_dict(Outer, values, "here")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", "1"),
        ("count", 1.0),
        ("count", True),
        ("count", None),
        ("flag", 1),
        ("flag", "true"),
        ("ignore", "255"),
        ("ignore", False),
        ("widths", 64),
        ("widths", "64"),
        ("widths", [64, "128"]),
        ("pair", [1]),
        ("pair", [1, 2.0, 3]),
        ("pair", [1, True]),
        ("parts", [{"nam": "x"}]),
        ("parts", [{}]),
        ("parts", ["x"]),
        ("reasons", ["x"]),
        ("reasons", {"x": 1}),
        ("deep", {"x": [{"name": 1}]}),
        ("up", "nearest"),
        ("up", 0),
    ],
)
def test_wrong_type_names_the_field(name: str, value: object) -> None:
    with pytest.raises(DataError, match=name) as caught:
        from_dict(Outer, {"count": 1, "up": "bilinear"} | {name: value}, "masks.json", DataError)
    assert str(caught.value).startswith("masks.json")


def test_wrong_choice_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean bilinear"):
        from_dict(Outer, {"count": 1, "up": "bilinar"}, "here")


def test_whole_number_serves_as_float() -> None:
    share = from_dict(Inner, {"name": "x", "share": 1}, "here").share
    assert share == 1.0
    assert isinstance(share, float)


def test_from_arguments_takes_the_fields_only() -> None:
    def verb(name: str, *, share: float = 0.25, progress: object = None) -> Inner:
        return from_arguments(Inner, locals())

    assert verb("x") == Inner("x", 0.25)


def test_option_carries_its_help() -> None:
    @dataclass(frozen=True)
    class Options:
        seed: int = option(7, "seed of everything")

    assert Options().seed == 7
    assert fields(Options)[0].metadata["help"] == "seed of everything"


def test_writing_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new ÄÖ[x]\n")
    assert path.read_text(encoding="utf-8") == "new ÄÖ[x]\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["missing/a.txt", "file/a.txt", "a" * 300 + ".txt", "folder"])
def test_unwritable_path_is_an_output_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / name, "text")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_json_of_a_file_name_that_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    write_json(tmp_path / "split.json", {"stem": name}, format=1)
    assert read_json(tmp_path / "split.json", format=1) == {"stem": name}


def test_format_number_comes_first(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": (1, 2), "inner": Inner("n")}, format=4)
    text = (tmp_path / "a.json").read_text()
    assert text.startswith('{\n  "format": 4,')
    assert json.loads(text) == {"format": 4, "x": [1, 2], "inner": {"name": "n", "share": 0.5}}


@pytest.mark.parametrize("text", ["", "{", "[]", "[1]", "7", "null", '{"format": 2}', '{"format": "1"}', "{}"])
def test_broken_or_foreign_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"config\.json"):
        read_json(path, format=1)


def test_binary_missing_and_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.json", "missing.json", "."):
        with pytest.raises(RunError, match="cannot be read"):
            read_json(tmp_path / name, format=1)


def test_a_hidden_name_fits_where_the_name_itself_does(tmp_path: Path) -> None:
    assert hidden_beside(tmp_path / "a.png", ".partial") == tmp_path / ".a.png.partial"
    long = [tmp_path / ("\u00e9" * 120 + letter + ".ome.tif") for letter in "xy"]
    hidden = {hidden_beside(path, ".partial") for path in long}
    assert len(hidden) == 2
    assert all(path.name.endswith(".ome.tif.partial") for path in hidden)
    assert all(len(os.fsencode(path.name)) <= LONGEST_NAME for path in hidden)
