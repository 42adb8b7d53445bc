"""A finding says what an error says."""

from __future__ import annotations

import pytest

from keepmap.data.findings import Finding, group_findings
from keepmap.errors import DataError


def test_an_error_becomes_a_finding_and_comes_back_the_same() -> None:
    error = DataError("x.png is odd.", found="this", expected="that", do="mend it")
    finding = Finding.of(error, "x.png", "warning")
    assert (finding.severity, finding.file) == ("warning", "x.png")
    assert str(finding.to_error()) == str(error) == str(finding)


def test_a_finding_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Finding("note", "x", "y").file = "z"  # type: ignore[misc]


def test_findings_that_say_the_same_are_one_group() -> None:
    findings = [
        Finding("note", "a.png", "a.png is small."),
        Finding("error", "b.png", "b.png is one of 2 images with the stem b."),
        Finding("error", "c.png", "c.png is one of 12 images with the stem b."),
        Finding("error", "d.png", "d.png belongs to e.png.", others=("e.png",)),
        Finding("error", "f.png", "f.png belongs to g.png.", others=("g.png",)),
    ]
    groups = group_findings(findings)
    assert [title for title, _ in groups] == [
        "… is one of n images with the stem b.", "… belongs to ….", "a.png is small.",
    ]  # fmt: skip
    assert [len(found) for _, found in groups] == [2, 2, 1]
