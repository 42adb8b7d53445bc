"""Numbers in readable units."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.units import in_bytes, in_thousands, in_time


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1 KiB"),
        (1536, "1.50 KiB"),
        (45_252_608, "43.2 MiB"),
        (2**31, "2 GiB"),
        (5 * 2**40, "5120 GiB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert in_bytes(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (0.0034, "0.0034"),
        (0.75, "0.75"),
        (9.999, "10.0"),
        (812, "812"),
        (999.9, "1.00 k"),
        (9412, "9.41 k"),
        (31_037_698, "31.0 M"),
        (4.2e12, "4.20 T"),
    ],
)
def test_thousands(count: float, text: str) -> None:
    assert in_thousands(count) == text


@settings(deadline=None, max_examples=80)
@given(st.floats(0.2, 9e14))
def test_a_readable_number_is_right_to_one_percent(count: float) -> None:
    number, _, unit = in_thousands(count).partition(" ")
    assert float(number) * 1000 ** ["", "k", "M", "G", "T"].index(unit) == pytest.approx(count, rel=0.03)
    assert len(number) <= 4


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (247, "4:07"), (3750, "1:02:30")])
def test_time(seconds: float, text: str) -> None:
    assert in_time(seconds) == text
