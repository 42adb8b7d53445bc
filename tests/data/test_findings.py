"""A finding says what an error says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from keepmap import data
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


READERS = (
    "arrays", "headers", "images", "masks", "npy_image", "pillow_image", "tiff_image", "tiff_plane", "tiff_samples",
    "zarr_image",
)  # fmt: skip
"""What `Finding.of` takes its errors from."""


def test_every_finding_of_the_package_has_evidence_and_a_remedy() -> None:
    silent, seen = [], 0
    for path in sorted(Path(data.__path__[0]).glob("*.py")):
        wanted = {"Finding": 3, "DataError": 1} if path.stem in READERS else {"Finding": 3}
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            first = wanted.get(ast.unparse(call.func)) if isinstance(call, ast.Call) else None
            if not isinstance(call, ast.Call) or first is None:
                continue
            given = dict(zip(("found", "expected", "do"), call.args[first:], strict=False))
            given |= {keyword.arg or "": keyword.value for keyword in call.keywords}
            seen += 1
            if not {"found", "do"} <= {name for name, value in given.items() if ast.unparse(value) != "''"}:
                silent.append(f"{path.name}:{call.lineno}")
    assert (silent, seen > 50) == ([], True)
