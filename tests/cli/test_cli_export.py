"""`keepmap export` hands everything over and says how well original and export agree."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import keepmap
from keepmap.cli.main import main

PARITY = SimpleNamespace(
    difference=2.5e-6, agreement=0.9987, precision="bfloat16", original_precision="float32", mean_iou=(0.75, 0.7486),
    images=4, rates=(0.5, 1.25),
)  # fmt: skip


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def export(run: Path, to: str, out: Path | None, *, progress: Any, **options: Any) -> SimpleNamespace:
        made.append((run, to, out, options))
        return SimpleNamespace(path=Path("run/my exports/model.xml"), parity=PARITY)

    monkeypatch.setattr(keepmap, "export", export, raising=False)
    return made


def test_everything_is_handed_over_and_said(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--to", "openvino", "-o", "out", "--int8", "--calibration", "more"]) == 0
    assert calls == [(Path("run"), "openvino", Path("out"), {"int8": True, "calibration": "more"})]
    said = capsys.readouterr().out
    for part in ("2.5e-06", "99.87% of the labels", "0.7486 for 0.7500 over 4", "1.25 megapixels", "'run/my exports"):
        assert part in said


def test_quiet_and_misspelt(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--to", "onnx", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert calls == [(Path("run"), "onnx", None, {"int8": False, "calibration": None})]
    assert main(["export", "run", "--to", "openvno"]) == 2
    assert "did you mean openvino?" in capsys.readouterr().err
