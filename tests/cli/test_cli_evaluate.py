"""`keepmap evaluate` prints one row per class, and writes the same numbers as JSON."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import keepmap
from keepmap.cli.main import main
from keepmap.config import from_dict, read_json
from keepmap.metrics.confusion import ConfusionMatrix, Scores


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []

    def evaluate(*folders: Path, **options: Any) -> Scores:
        made.append((folders, options))
        matrix = ConfusionMatrix(3)
        matrix.add(np.array([0, 0, 1]), np.array([0, 1, 1]))
        return matrix.scores(["background", "cell", "dust"])

    monkeypatch.setattr(keepmap, "evaluate", evaluate, raising=False)
    return made


def test_everything_is_handed_over(calls: list[tuple[Any, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "images", "masks", "--memory", "1G"]) == 0
    assert calls[0][0] == (Path("run"), Path("images"), Path("masks"))
    options = {name: value for name, value in calls[0][1].items() if name != "progress"}
    assert options == {
        "classes": None, "ignore": "auto", "instances": "auto", "frame": None, "max_pixels": 100_000_000,
        "memory": "1G", "way": "auto", "follow_links": False,
        "device": "auto",
        "precision": "auto", "metrics": "all", "surface_tolerance": 2.0, "group_by": "found",
        "html": None, "card": None, "tta": None, "ensemble": None,
    }  # fmt: skip
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cell", "1", "0.5000", "0.6667", "0.5000", "1.0000"] in lines
    assert ["dust", "0", "n/a", "n/a", "n/a", "n/a"] in lines


def test_json_holds_the_same_scores(calls: list[tuple[Any, ...]], tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    assert main(["evaluate", "predictions", "masks", "--json", str(file), "--quiet"]) == 0
    assert calls[0][0] == (Path("predictions"), Path("masks"))
    scores = from_dict(Scores, read_json(file, format=1), "scores.json")
    assert scores["cell"].iou == 0.5
    assert scores["dust"].iou is None
    assert os.listdir(tmp_path) == ["scores.json"]


def test_json_that_cannot_be_written_is_found_before_the_work(
    calls: list[tuple[Any, ...]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "run", "images", "masks", "--json", str(tmp_path / "missing" / "s.json")]) == 2
    assert calls == []
    assert "OutputError" in capsys.readouterr().err


def test_table_of_images_is_csv_with_the_worst_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, right in enumerate((4, 2, 3)):
        mask = np.zeros((4, 10), np.uint8)
        mask[:, :5] = 255
        for folder, columns in (("predictions", right), ("masks", 5)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(np.where(np.arange(10) < columns, mask, 0)).save(tmp_path / folder / f"cell {index}.png")
    file = tmp_path / "images.csv"
    assert main(["evaluate", str(tmp_path / "predictions"), str(tmp_path / "masks"), "--table", str(file), "-q"]) == 0
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["stem"] for row in rows] == ["cell 1", "cell 2", "cell 0"]
    assert float(rows[0]["iou foreground"]) == pytest.approx(0.4)
    assert float(rows[0]["mean_iou"]) == pytest.approx((0.4 + 20 / 32) / 2)
    assert rows[0]["expected_dice"] == ""
    out = capsys.readouterr().out
    assert "Worst images by mean IoU: cell 1 0.5" in out
    assert "Worst classes by IoU: foreground 0.600, background 0.714" in out
    assert "Worst regions: cell 1 12 wrong px in rows 0 to 3, columns 0 to 9; cell 2 8 wrong px" in out
    assert main(["evaluate", "a", "b", "--table", str(tmp_path)]) == 2
    assert "a file name for --table" in capsys.readouterr().err


def test_one_image_has_no_intervals_and_a_region_has_no_boundary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.eye(6, dtype=np.uint8)).save(tmp_path / "a.png")
    assert main(["evaluate", str(tmp_path), str(tmp_path), "--metrics", "region"]) == 0
    out = capsys.readouterr().out
    assert "one image only: no intervals" in out and "(1" not in out
    assert "boundary" not in out and "object" not in out
    assert main(["evaluate", str(tmp_path), str(tmp_path), "--metrics", "regions"]) == 2
    assert "did you mean region?" in capsys.readouterr().err


def test_predictions_against_masks_for_real(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = np.zeros((4, 10), np.uint8)
    masks[:, :5] = 255
    predictions = np.zeros((4, 10), np.uint8)
    predictions[:, :4] = 255
    for folder, array in (("predictions", predictions), ("masks", masks)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    assert main(["evaluate", str(tmp_path / "predictions"), str(tmp_path / "masks"), "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "0.8000" in out
    assert "pixel accuracy" in out
