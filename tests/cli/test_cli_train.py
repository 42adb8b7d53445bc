"""`keepmap train` hands everything over and ends with the score and the next command."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.cli.main import main
from keepmap.options import TrainOptions
from keepmap.protocols import Silent


@dataclass
class FakeRun:
    path: Path = Path("my run")
    best: float = 0.71234
    best_step: int = 600
    steps: int = 620


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def train(*folders: Path | None, progress: Any, **options: Any) -> FakeRun:
        progress.say("plan [x]")
        with progress.track("train", 10, "images") as bar:
            bar.advance(10, loss=0.25)
        made.append((folders, progress, options))
        return FakeRun()

    monkeypatch.setattr(keepmap, "train", train, raising=False)
    return made


def test_everything_is_handed_over(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "images", "masks", "-o", "run", "--time", "5m", "--seed", "3", "--weights", "none"]) == 0
    ((folders, _, options),) = calls
    assert folders == (Path("images"), Path("masks"), Path("run"))
    defaults = {field.name: field.default for field in fields(TrainOptions)}
    assert options == defaults | {"resume": False, "time": "5m", "seed": 3, "weights": "none"}
    assert capsys.readouterr().out.splitlines() == [
        "plan [x]",
        "train: 10/10 images in 0:00, loss 0.250",
        "best mean IoU on held-out images  0.7123, at step 600 of 620",
        "keepmap predict 'my run' IMAGE... -o OUT",
    ]


def test_resume_needs_no_folders(calls: list[tuple[Any, ...]]) -> None:
    assert main(["train", "-o", "run", "--resume"]) == 0
    assert calls[0][0] == (None, None, Path("run"))
    assert calls[0][2]["resume"] is True


def test_quiet(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "images", "masks", "-o", "run", "--quiet"]) == 0
    assert isinstance(calls[0][1], Silent)
    assert capsys.readouterr() == ("", "")


def test_a_run_without_validation_claims_no_score(
    calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeRun.__init__, "__defaults__", (Path("run"), -1.0, 0, 1))
    assert main(["train", "images", "masks", "-o", "run"]) == 0
    assert calls
    assert "best" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["-o", "run"], ["images", "-o", "run"], ["images", "masks"], ["images", "-o", "run", "--resume"]],
    ids=" ".join,
)
def test_incomplete_arguments_are_wrong(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("OptionError: ")
