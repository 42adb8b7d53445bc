"""`keepmap compare` prints numbers side by side with intervals of their difference, and what lost most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.cli.main import main
from keepmap.config import from_dict, read_json
from keepmap.evaluation.sources import Comparison


def write(path: Path, values) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def test_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    random = np.random.default_rng(0)
    Path("classes.txt").write_text("ground\na building [new] of quite some length, with a name that nobody shortened\n")
    for index in range(6):
        mask = np.kron(random.integers(0, 2, (5, 5)), np.ones((4, 4), int))
        write(tmp_path / "masks" / f"{index}.png", mask)
        write(tmp_path / "a" / f"{index}.png", mask)
        write(tmp_path / "b" / f"{index}.png", np.where(random.random(mask.shape) < 0.05 * index, 0, mask))
    write(tmp_path / "b" / "alone.png", mask)
    command = ["compare", "a", "b", "--masks", "masks", "--classes", "classes.txt", "--json", "out.json", "-q"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(len(line) for line in out.splitlines() if "Lost" not in line) <= 80 and "\u2026" not in out
    row = next(line.split() for line in out.splitlines() if line.startswith("mean IoU"))
    assert row[:5] == ["mean", "IoU", "data", "set", "1.0000"]
    assert row[6].startswith("-0.") and row[7].startswith("(-0.") and row[-1].startswith("-0.")
    assert "[new]" in out and "Lost most mean IoU: 5 1.000 to 0." in out and "over 6 images" in out
    assert "Lost images, worst regions: " in out
    assert "b: 1 prediction without a mask: not scored." in out
    found = from_dict(Comparison, read_json(Path("out.json"), format=1), "out.json")
    assert found.sources == ("a", "b")


def test_misspelt_and_missing_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a", "b"]) == 2
    assert "--masks" in capsys.readouterr().err
    assert main(["compare", "a", "b", "--mask", "m"]) == 2
    assert "did you mean --masks?" in capsys.readouterr().err
