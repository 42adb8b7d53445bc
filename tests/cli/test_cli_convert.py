"""`keepmap convert` writes what `keepmap train` takes, and says what it did."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.cli.main import main


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Four images of 40 x 48 px with a box of one class each, and a file that describes them."""
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number in range(4):
        left = 4 + 8 * number
        box = [left, 10, left + 12, 10, left + 12, 30, left, 30]
        images.append({"id": number, "file_name": f"i{number}.png", "height": 40, "width": 48})
        annotations.append({"id": number, "image_id": number, "category_id": 5, "segmentation": [box]})
        noise = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"i{number}.png")
    categories = [{"id": 5, "name": "box"}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_the_line_it_ends_with_trains(
    coco: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keepmap.planning.choice._widths", lambda *_: ({"widths": [4, 8]}, ""))
    monkeypatch.chdir(tmp_path)
    assert main(["convert", str(coco), "-o", "masks", "--images", "images"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "4 masks from COCO in masks: 0 background, 1 box" in lines
    program, *words = shlex.split(lines[-1])
    assert program == "keepmap"
    assert main([*words, "--steps", "1", "--crop", "64", "--batch", "2", "--model", "unet", "--device", "cpu"]) == 0
    assert "is passed over" not in capsys.readouterr().out
    assert main(["check", "images", "masks", "--classes", "masks/classes.txt"]) == 0
    assert "nothing wrong: ready to train" in capsys.readouterr().out


def test_quiet_shows_what_was_left_out_only(coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images" / "i3.png").unlink()
    words = ["convert", str(coco), "-o", str(tmp_path / "masks"), "--images", str(tmp_path / "images"), "-q"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.startswith("warning: 1 images of ")
    assert "found     i3.png" in out
    assert err == ""
    assert "keepmap train" not in out
    assert main(words) == 2
    assert "exists and is no empty folder" in capsys.readouterr().err
