"""`keepmap plan` shows every entry with its reason, as wide as the terminal is, and writes nothing but --json."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.cli.main import main
from keepmap.data.drawn import draw_dataset
from keepmap.options import TrainOptions
from keepmap.planning.plan import ENTRIES, Cost

WORDS = ["--model", "unet", "--set", "widths=4,8", "--set", "gain=0.25", "--steps", "20", "--device", "cpu"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(0.5, 3 << 20))
    draw_dataset(tmp_path, count=4, seed=0)
    return tmp_path


@pytest.mark.parametrize("width", [80, 120])
def test_every_entry_is_shown_within_the_terminal(
    width: int, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    before = sorted(data.rglob("*"))
    file = data / "plan.json"
    assert main(["plan", str(data / "images"), str(data / "masks"), *WORDS, "--quiet", "--json", str(file)]) == 0
    out, _ = capsys.readouterr()
    assert sorted(data.rglob("*")) == sorted([*before, file])
    shown = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert {words[0] for words in shown if words} >= set(ENTRIES)
    assert ["gain", "0.25", "--set"] in shown
    assert ["network", "unet", "--model", "unet,", "--set", "widths=4,8"] in shown
    assert ["options", "widths=4,", "8", "as", "above"] in shown
    assert all(len(line) <= width for line in out.splitlines()[:-1])
    found = json.loads(file.read_text())
    assert found["format"] == 1
    assert found["plan"]["gain"] == {"value": 0.25, "because": "--set"}
    assert "expected  0:10 for 20 steps and 10 validations, 4.47 MiB" in out
    assert found["expected_seconds"] == pytest.approx(20 * 0.5 + 10 * found["plan"]["validation_seconds"]["value"])


def test_everything_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def plan(*folders: Path, progress: Any, **options: Any) -> None:
        made.append((folders, options))
        raise keepmap_error

    keepmap_error = KeyboardInterrupt()
    monkeypatch.setattr(keepmap, "plan", plan, raising=False)
    assert main(["plan", "images", "masks", "--memory", "2G", "--set", "crop=64"]) == 130
    defaults = {field.name: field.default for field in fields(TrainOptions)}
    assert made == [((Path("images"), Path("masks")), defaults | {"memory": "2G", "set": {"crop": 64}})]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--set", "learing_rate=0.1"], "did you mean learning_rate?"),
        (["--model", "unet", "--set", "wdths=4,8"], "did you mean widths?"),
        (["--set", "step_bytes=5"], "it follows from"),
        (["--memory", "much"], "500M or 2G"),
        (["--steps", "5", "--time", "5m"], "one of --time, --steps, --epochs"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_as_in_train(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in (["plan"], ["train", "-o", "run"]):
        assert main([*verb, "images", "masks", *words]) == 2
        out, err = capsys.readouterr()
        assert (out, hint in err) == ("", True)
