"""`keepmap predict` hands everything over and says how many masks there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.cli.main import main
from keepmap.protocols import Silent


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def predict(run: Path, inputs: list[Path], out: Path, **options: Any) -> list[Path]:
        made.append((run, inputs, out, options))
        return [out / "a.png"]

    monkeypatch.setattr(keepmap, "predict", predict, raising=False)
    return made


def test_everything_is_handed_over(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "run", "a.png", "folder", "-o", "out", "--overlay", "--memory", "2G", "--precision", "float32"]
    words += ["--ensemble", "other"]
    assert main(words) == 0
    ((run, inputs, out, options),) = calls
    assert (run, inputs, out) == (Path("run"), [Path("a.png"), Path("folder")], Path("out"))
    del options["progress"]
    assert options == {
        "frame": None, "max_pixels": 100_000_000, "follow_links": False,
        "overlay": True, "polygons": False, "probabilities": False, "probability_type": "float32", "coarse": False,
        "review": False, "table": None, "smallest_object": 0, "fill_holes": 0, "tta": None, "ensemble": ["other"],
        "resume": False, "runtime": None, "memory": "2G", "way": "auto", "device": "auto", "precision": "float32",
    }  # fmt: skip
    assert capsys.readouterr() == ("1 mask in out\n", "")


def test_quiet(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "a.png", "-o", "out", "-q"]) == 0
    assert isinstance(calls[0][3]["progress"], Silent)
    assert capsys.readouterr() == ("", "")
