"""What the tests of reports share: a RUN of two steps, and scores of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import keepmap
from keepmap.data.drawn import draw_dataset
from keepmap.metrics.confusion import Scores
from keepmap.runs import RunFolder


@dataclass(frozen=True)
class Reported:
    """A RUN, the folders it was trained on, and its evaluation there with the page and the card of that."""

    run: RunFolder
    data: Path
    scores: Scores
    page: Path
    card: Path


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    desk = tmp_path_factory.mktemp("reported")
    data = desk / "<i>data</i> & more".replace("/", "_")
    draw_dataset(data, count=9, seed=0)
    torch.manual_seed(0)
    network = keepmap.build_model("unet", channels=3, classes=3, widths=(4, 8))
    options = {"steps": 2, "crop": 32, "batch": 2, "precision": "float32", "validation": str(desk / "held.txt")}
    (desk / "held.txt").write_text("\n".join(f"cells_{n:03}" for n in (0, 2, 3, 5)))
    names = {"classes": str(data / "classes.txt")}
    run = keepmap.train(data / "images", data / "masks", desk / "run", network=network, **names, **options)
    files = {"html": str(desk / "scores.html"), "card": str(desk / "card.md")}
    scores = keepmap.evaluate(run.path, data / "images", data / "masks", precision="float32", **files)
    return Reported(RunFolder(run.path), data, scores, desk / "scores.html", desk / "card.md")
