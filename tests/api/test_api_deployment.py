"""The verbs that take a RUN elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import keepmap
from keepmap.api.training import Run
from keepmap.errors import OptionError, RunError


def test_what_cannot_be_exported_is_refused_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="onnx"):
        keepmap.export(run.path, "onx", tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="is no RUN"):
        keepmap.export(tmp_path, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bench_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no RUN"):
        keepmap.bench(tmp_path)
