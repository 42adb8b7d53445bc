"""What the tests of the public functions share: drawn data and a RUN of two steps."""

from __future__ import annotations

from pathlib import Path

import pytest

import keepmap
from keepmap.api.training import Run
from keepmap.data.drawn import draw_dataset

SMALL = {"model": "encoder_unet", "encoder": "efficientnet_lite0", "steps": 2, "crop": 64, "batch": 2}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder, count=6, seed=0)
    return folder


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return keepmap.train(data / "images", data / "masks", out, weights="none", precision="float32", **SMALL)
