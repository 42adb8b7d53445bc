"""What is an artefact, and what is asked of one that it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

import keepmap
from keepmap.artefacts.loading import is_artefact, open_artefact
from keepmap.errors import ArtefactError, OptionError


def test_files_and_folders_are_told_from_runs(tmp_path: Path) -> None:
    assert is_artefact(tmp_path / "net.onnx")
    assert is_artefact(tmp_path / "net.XML")
    assert not is_artefact(tmp_path)
    (tmp_path / "model.xml").touch()
    assert is_artefact(tmp_path)


def test_a_truncated_file_and_none_are_named_errors(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="does not exist"):
        keepmap.load(tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a\x3a\xff\xff\x01")
    with pytest.raises(ArtefactError, match=r"net\.onnx is no whole ONNX file"):
        keepmap.load(tmp_path / "net.onnx")
    with pytest.raises(OptionError, match="on the CPU"):
        open_artefact(tmp_path / "net.onnx", device="cuda")
    with pytest.raises(OptionError, match="knows its network itself"):
        keepmap.load(tmp_path / "net.onnx", network=object())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="it needs images"):
        keepmap.evaluate(tmp_path / "net.onnx", tmp_path)
