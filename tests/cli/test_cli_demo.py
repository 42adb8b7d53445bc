"""`keepmap demo` ends with the scores and the two paths."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import keepmap
from keepmap.cli.main import main
from keepmap.metrics.confusion import ConfusionMatrix


@pytest.mark.parametrize("quiet", [False, True])
def test_demo(quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    def demo(out: Path, *, progress: Any, **options: Any) -> SimpleNamespace:
        progress.say("drawing")
        calls.append((out, options))
        matrix = ConfusionMatrix(2)
        matrix.add(np.array([0, 1]), np.array([0, 1]))
        scores = matrix.scores(["background", "cell"])
        return SimpleNamespace(run=SimpleNamespace(path=out / "run"), scores=scores, picture=out / "demo.png")

    monkeypatch.setattr(keepmap, "demo", demo, raising=False)
    assert main(["demo", "here", "--time", "30s", *(["-q"] if quiet else [])]) == 0
    assert calls == [(Path("here"), {"time": "30s", "seed": 0})]
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0] == "drawing") is not quiet
    assert any(line.startswith("cell") and "1.0000" in line for line in lines)
    assert lines[-2:] == [f"run      {Path('here/run')}", f"picture  {Path('here/demo.png')}"]


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepmap, "demo", lambda out, **options: pytest.fail(str(out)), raising=False)
    with pytest.raises(pytest.fail.Exception, match="keepmap-demo"):
        main(["demo"])
