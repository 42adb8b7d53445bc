"""The examples run as they stand, only shorter."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_train_and_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("train_and_predict").main(tmp_path, "12s")
    assert "granular cell   IoU" in capsys.readouterr().out
    image = np.asarray(Image.open(tmp_path / "test" / "images" / "cells_000.png"))
    prediction = np.asarray(Image.open(tmp_path / "prediction.png"))
    assert prediction.shape == image.shape[:2]
    assert set(np.unique(prediction)) <= {0, 1, 2}


def test_own_loss_loop_learns() -> None:
    losses = load("own_loss_loop").main(9)
    assert len(losses) == 9
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_own_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load("own_network").main(tmp_path, "12s")
    assert "mean IoU 0." in capsys.readouterr().out
    image = np.asarray(Image.open(tmp_path / "test" / "images" / "cells_000.png"))
    assert np.asarray(Image.open(tmp_path / "prediction.png")).shape == image.shape[:2]


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"train_and_predict", "own_loss_loop", "own_network"}
