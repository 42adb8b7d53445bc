"""The form of every message, the exit codes, and the hints."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap import errors
from keepmap.errors import (
    ContractError,
    DataError,
    DiskFull,
    DownloadError,
    InputError,
    Interrupted,
    KeepmapError,
    TrainingError,
    first_few,
    nearest,
)

WORDS = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), min_size=1)
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KeepmapError)]


def test_message_has_an_aligned_line_for_each_detail() -> None:
    error = DataError("a.png is empty.", found="0 bytes", expected="an image", do="delete it")
    assert str(error) == "a.png is empty.\n  found     0 bytes\n  expected  an image\n  do        delete it"


def test_empty_details_leave_no_line() -> None:
    assert str(DataError("a.png is empty.", do="delete it")) == "a.png is empty.\n  do        delete it"
    assert str(DataError("a.png is empty.")) == "a.png is empty."


def test_lines_of_one_detail_stay_in_its_column() -> None:
    lines = str(DataError("two values.", found="0 (61 %)\n255 (39 %)")).splitlines()
    assert [line.index(text) for line, text in zip(lines[1:], ("0 (61", "255"), strict=True)] == [12, 12]


@settings(deadline=None, max_examples=50)
@given(WORDS, WORDS, WORDS, WORDS)
def test_nothing_of_what_was_said_is_lost(summary: str, found: str, expected: str, do: str) -> None:
    text = str(KeepmapError(summary, found=found, expected=expected, do=do))
    assert all(part in text for part in (summary, found, expected, do))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if issubclass(kind, InputError) and kind is not DiskFull], ids=lambda k: k.__name__
)
def test_wrong_input_exits_with_2(kind: type[InputError]) -> None:
    assert kind("wrong").exit_code == 2


def test_other_exit_codes() -> None:
    assert KeepmapError("failed").exit_code == TrainingError("failed").exit_code == DiskFull("full").exit_code == 1
    assert ContractError("failed", clause="size").exit_code == DownloadError("failed").exit_code == 1
    assert Interrupted("stopped").exit_code == 130
    assert Interrupted("stopped", signal=15).exit_code == 143


def test_every_kind_is_a_keepmap_error_with_a_docstring() -> None:
    assert len(KINDS) == 15
    assert all(kind.__doc__ for kind in KINDS)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("unett", "did you mean unet?"),
        ("encoder-unet", "did you mean encoder_unet?"),
        ("segformer", "one of unet, encoder_unet, fcn"),
        ("", "one of unet, encoder_unet, fcn"),
    ],
)
def test_nearest(name: str, hint: str) -> None:
    assert nearest(name, ("unet", "encoder_unet", "fcn")) == hint


def test_nearest_takes_any_iterable_once() -> None:
    assert nearest("x", iter(["alpha", "beta"])) == "one of alpha, beta"


@pytest.mark.parametrize(
    ("count", "separator", "shown"),
    [
        (0, ", ", ""),
        (5, ", ", "0, 1, 2, 3, 4"),
        (6, ", ", "0, 1, 2, 3, 4 and 1 more"),
        (9, "\n", "0\n1\n2\n3\n4\nand 4 more"),
    ],
)
def test_first_few(count: int, separator: str, shown: str) -> None:
    assert first_few([str(i) for i in range(count)], separator) == shown
