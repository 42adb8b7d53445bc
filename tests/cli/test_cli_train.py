"""`keepmap train` hands everything over and ends with the score and the next command."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

import keepmap
from keepmap.cli.main import main
from keepmap.data.drawn import draw_dataset
from keepmap.options import TrainOptions
from keepmap.planning.plan import Cost
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
    assert options == defaults | {"resume": False, "preview": None, "time": "5m", "seed": 3, "weights": "none"}
    assert capsys.readouterr().out.splitlines() == [
        "plan [x]",
        "train: 10/10 images in 0:00, loss 0.250",
        "best mean IoU on held-out images  0.7123, at step 600 of 620",
        "keepmap predict 'my run' IMAGE... -o OUT",
    ]


def test_settings_of_the_network_are_handed_over_as_values(calls: list[tuple[Any, ...]]) -> None:
    words = ["images", "masks", "-o", "run", "--model", "unet", "--set", "widths=4,8", "--set", "attention=true"]
    assert main(["train", *words]) == 0
    assert calls[0][2]["set"] == {"widths": (4, 8), "attention": True}


def test_the_staged_training_of_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FCN-32s, then 16s from its weights, then 8s from those, at tiny widths and one step each."""
    monkeypatch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(1.0, 1))
    draw_dataset(tmp_path, count=3, seed=0)
    words = [str(tmp_path / "images"), str(tmp_path / "masks"), "--model", "fcn_vgg16", "--steps", "1"]
    words += ["--crop", "32", "--batch", "2", "--precision", "float32", "--set", "widths=2,2,2,2,2"]
    stages = [tmp_path / name for name in ("32s", "16s", "8s")]
    for skips, run in enumerate(stages):
        begun = ["--init", str(stages[skips - 1])] if skips else []
        assert main(["train", *words, "--set", "head_width=4", "--set", f"skips={skips}", "-o", str(run), *begun]) == 0
        said = capsys.readouterr().out
        assert f"--set skips={skips}" in said
        assert json.loads((run / "config.json").read_text())["options"]["skips"] == skips
        fresh = next((line for line in said.splitlines() if line.startswith("init ")), "")
        assert fresh.partition("not: ")[2].split(", ") == FRESH[skips]


def test_a_full_disk_ends_the_training_with_1_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(1.0, 1))
    draw_dataset(tmp_path, count=3, seed=0)
    words = [str(tmp_path / "images"), str(tmp_path / "masks"), "--model", "unet", "--steps", "2"]
    words += ["--set", "widths=2,2", "--crop", "32", "--batch", "2", "--precision", "float32"]
    words += ["-o", str(tmp_path / "run")]

    def full(tensors: object, path: Path, metadata: dict[str, str]) -> None:
        if path.name.startswith(".model"):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr("keepmap.runs.save_file", full)
        assert main(["train", *words]) == 1
    said = capsys.readouterr().err
    assert said.startswith("DiskFull: The disk is full: ")
    assert "model.safetensors cannot be written" in said
    assert "--resume" in said
    assert main(["train", "-o", str(tmp_path / "run"), "--resume", "--workers", "0"]) == 0


FRESH = [[""], *([f"lift.{n}.weight", f"score.{n}.bias", f"score.{n}.weight", "up.weight"] for n in (0, 1))]
"""What each stage begins anew, its new skip and the upsampling; all else comes from the one before."""


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--set", "skips=0"], "--model NAME: which options there are depends on the network"),
        (["--model", "fcn_vgg16", "--set", "skps=0"], "did you mean skips?"),
        (["--model", "fcn_vgg16", "--set", "skips=7"], "one of 0, 1, 2"),
        (["--model", "fcn_vgg16", "--set", "skips"], "NAME=VALUE"),
        (["--model", "unet", "--set", "classes=3"], "it follows from the data"),
        (["--model", "fcn", "--set", "encoder=resnet18"], "--encoder resnet18"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused_before_a_file_is_read(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "images", "masks", "-o", "run", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in err


def test_resume_needs_no_folders(calls: list[tuple[Any, ...]]) -> None:
    assert main(["train", "-o", "run", "--resume"]) == 0
    assert calls[0][0] == (None, None, Path("run"))
    assert calls[0][2]["resume"] is True


def test_a_preview_needs_no_run_and_claims_none(
    calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "images", "masks", "--preview", "sheet.png"]) == 0
    assert calls[0][0] == (Path("images"), Path("masks"), None)
    assert calls[0][2]["preview"] == Path("sheet.png")
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "crops   of the first steps, drawn into my run; nothing was trained"


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
