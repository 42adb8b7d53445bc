"""OpenVINO computes what the graph says, in both precisions, and broken files are named errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keepmap.errors import ArtefactError, OptionError
from keepmap.resources import has_bfloat16
from keepmap.runtime import openvino_runtime
from keepmap.runtime.manifest import Manifest
from keepmap.runtime.openvino_runtime import open_openvino

pytest.importorskip("openvino")


def test_logits_are_those_of_the_graph(
    openvino_file: Path, manifest: Manifest, weights: np.ndarray, pixels: np.ndarray
) -> None:
    want = np.einsum("kc,nchw->nkhw", weights, pixels.astype(np.float32))
    for precision, tolerance in (("float32", 1e-5), ("auto", 1e-5 if not has_bfloat16("cpu") else 2e-2)):
        runtime = open_openvino(openvino_file, precision=precision, threads=1)
        assert runtime.manifest == manifest
        first = runtime.run(pixels, "logits")
        runtime.run(pixels[:, :, :3, :2])
        assert np.abs(first - want).max() <= tolerance * np.abs(want).max()


def test_bfloat16_is_refused_where_the_cpu_has_none(openvino_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_runtime, "has_bfloat16", lambda device: False)
    with pytest.raises(OptionError, match="no bfloat16"):
        open_openvino(openvino_file, precision="bfloat16")


def test_broken_and_foreign_files_are_named(openvino_file: Path) -> None:
    text, data = openvino_file.read_text(), openvino_file.with_suffix(".bin")
    cases = {
        "cannot be read by OpenVINO": text[: len(text) // 2],
        "another version of OpenVINO's format": text.replace('version="11"', 'version="12"', 1),
        "was not exported by keepmap": text.replace("<keepmap ", "<other "),
        "is no OpenVINO file": "<xml/>",
    }
    for said, broken in cases.items():
        openvino_file.write_text(broken)
        with pytest.raises(ArtefactError, match=said):
            open_openvino(openvino_file)
    openvino_file.write_text(text)
    data.write_bytes(data.read_bytes()[:5])
    with pytest.raises(ArtefactError, match=r"model\.bin beside it"):
        open_openvino(openvino_file)
    data.unlink()
    with pytest.raises(ArtefactError, match=r"model\.bin beside it"):
        open_openvino(openvino_file)
    with pytest.raises(ArtefactError, match="cannot be read"):
        open_openvino(openvino_file.with_name("none.xml"))
