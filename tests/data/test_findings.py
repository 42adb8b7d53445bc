"""A finding says what an error says."""

from __future__ import annotations

import pytest

from keepmap.data.findings import Finding
from keepmap.errors import DataError


def test_an_error_becomes_a_finding_and_comes_back_the_same() -> None:
    error = DataError("x.png is odd.", found="this", expected="that", do="mend it")
    finding = Finding.of(error, "x.png", "warning")
    assert (finding.severity, finding.file) == ("warning", "x.png")
    assert str(finding.to_error()) == str(error) == str(finding)


def test_a_finding_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Finding("note", "x", "y").file = "z"  # type: ignore[misc]
