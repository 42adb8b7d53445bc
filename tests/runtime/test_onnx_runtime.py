"""ONNX Runtime computes what the graph says, and a file that it cannot compute is a named error."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepmap import external
from keepmap.cli.main import main
from keepmap.errors import ArtefactError, MissingPackage, OptionError
from keepmap.runtime.manifest import Manifest
from keepmap.runtime.onnx_runtime import open_onnx

pytest.importorskip("onnxruntime")


def test_logits_are_those_of_the_graph(
    onnx_file: Path, manifest: Manifest, weights: np.ndarray, pixels: np.ndarray
) -> None:
    runtime = open_onnx(onnx_file, threads=1)
    assert runtime.manifest == replace(manifest, payload=runtime.manifest.payload)
    assert runtime.precision == "float32"
    assert "CPUExecutionProvider" in runtime.name
    want = np.einsum("kc,nchw->nkhw", weights, pixels.astype(np.float32))
    assert np.allclose(runtime.run(pixels, "logits"), want, rtol=1e-5)
    assert np.array_equal(runtime.run(pixels), want.argmax(1))


def test_an_opset_that_is_too_new_is_explained(onnx_file: Path, model: Any) -> None:
    later = type(model)()
    later.CopyFrom(model)
    later.opset_import[0].version = 99
    onnx_file.write_bytes(later.SerializeToString())
    with pytest.raises(ArtefactError) as caught:
        open_onnx(onnx_file)
    assert "opset 99" in caught.value.found
    assert "opset 20, IR 10, as written with keepmap 0.1.0" in caught.value.expected
    assert "pip install onnxruntime" in caught.value.do


def test_a_foreign_graph_and_bfloat16_are_refused(onnx_file: Path, model: Any) -> None:
    with pytest.raises(OptionError, match="bfloat16"):
        open_onnx(onnx_file, precision="bfloat16")
    other = type(model)()
    other.CopyFrom(model)
    del other.metadata_props[:]
    onnx_file.write_bytes(other.SerializeToString())
    with pytest.raises(ArtefactError, match="was not exported by keepmap"):
        open_onnx(onnx_file)


def test_without_the_package_the_install_line_is_given(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "available", lambda name: False)
    with pytest.raises(MissingPackage, match="pip install onnxruntime"):
        open_onnx(onnx_file)


def test_48_through_the_command_line_every_fault_of_a_file_is_named(
    onnx_file: Path, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(path: Path, *more: str) -> str:
        assert main(["predict", str(path), "absent", "-o", str(tmp_path / "out"), *more]) == 2
        return " ".join(capsys.readouterr().err.split())

    text = {}
    for name in ("IR 99", "opset 99", "foreign", "cut", "flipped"):
        other, path = type(model)(), tmp_path / f"{name}.onnx"
        other.CopyFrom(model)
        if name == "IR 99":
            other.ir_version = 99
        elif name == "opset 99":
            other.opset_import[0].version = 99
        elif name == "foreign":
            del other.metadata_props[:]
        content = other.SerializeToString()
        if name == "flipped":
            at = content.index(other.graph.initializer[0].raw_data)
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        path.write_bytes(content[: len(content) // 2] if name == "cut" else content)
        text[name] = said(path)
    for name in ("IR 99", "opset 99"):
        assert "cannot be computed by ONNX Runtime" in text[name] and name in text[name]
        assert "expected opset 20, IR 10, as written with keepmap" in text[name]
        assert "do pip install onnxruntime --upgrade, or export the run again" in text[name]
    assert "was not exported by keepmap. found no keepmap entry in its metadata" in text["foreign"]
    assert "is no whole ONNX file. found it ends" in text["cut"]
    digest = hashlib.sha256(model.graph.SerializeToString()).hexdigest()
    assert "was changed or damaged after it was written. found sha256" in text["flipped"]
    assert f"expected sha256 {digest} do copy it again" in text["flipped"]
    assert "is computed on the CPU. found --device cuda" in said(onnx_file, "--device", "cuda")
    assert "found --precision bfloat16 expected auto or float32" in said(onnx_file, "--precision", "bfloat16")
    monkeypatch.setattr(external, "available", lambda name: name != "onnxruntime")
    assert "needs the package onnxruntime, which is not installed. do pip install onnxruntime" in said(onnx_file)
    assert not (tmp_path / "out").exists()
