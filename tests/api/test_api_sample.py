"""The demo."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import keepmap
from keepmap.errors import OutputError


def test_the_demo_leaves_a_picture_and_a_run(tmp_path: Path) -> None:
    result = keepmap.demo(tmp_path / "demo", time="15s")
    assert result.scores.mean_iou is not None
    with Image.open(result.picture) as picture:
        assert picture.width > 400
    assert len(list((tmp_path / "demo" / "predictions").iterdir())) > 0
    with pytest.raises(OutputError, match="no empty folder"):
        keepmap.demo(tmp_path / "demo")
