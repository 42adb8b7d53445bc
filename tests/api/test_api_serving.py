"""The verb hands its options over, beside a predictor that computes as it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.api import serving
from keepmap.api.training import Run
from keepmap.options import ServeOptions


def test_options_are_handed_over(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(serving, "serve_model", lambda *arguments: calls.append(arguments))
    keepmap.serve(run.path, port=0, token="abc", precision="float32", queue=3)
    path, load, options, _ = calls[0]
    assert (path, load().runtime.precision) == (Path(run.path), "float32")
    assert options == ServeOptions(port=0, token="abc", precision="float32", queue=3)
