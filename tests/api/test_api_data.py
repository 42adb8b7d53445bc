"""The verbs on data sets."""

from __future__ import annotations

from pathlib import Path

import keepmap


def test_check_reports(data: Path) -> None:
    report = keepmap.check(data / "images", data / "masks")
    assert not report.failed
    assert len(report.facts) == 6
