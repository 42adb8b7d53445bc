"""OpenVINO computes what the graph says, in both precisions, and broken files are named errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepmap.errors import ArtefactError, OptionError
from keepmap.resources import has_bfloat16
from keepmap.runtime import openvino_runtime
from keepmap.runtime.manifest import Manifest
from keepmap.runtime.openvino_runtime import open_openvino, openvino_core

pytest.importorskip("openvino")


def test_logits_are_those_of_the_graph(
    openvino_file: Path, manifest: Manifest, weights: np.ndarray, pixels: np.ndarray
) -> None:
    want = np.einsum("kc,nchw->nkhw", weights, pixels.astype(np.float32))
    for precision, tolerance in (("float32", 1e-5), ("auto", 1e-5 if not has_bfloat16("cpu") else 2e-2)):
        runtime = open_openvino(openvino_file, precision=precision, threads=1)
        assert runtime.manifest == replace(manifest, payload=runtime.manifest.payload)
        first = runtime.run(pixels, "logits")
        runtime.run(pixels[:, :, :3, :2])
        assert np.abs(first - want).max() <= tolerance * np.abs(want).max()


@pytest.mark.parametrize(("unit", "compiled"), [(True, 6), (False, 1)])
def test_int8_on_a_matrix_unit_is_compiled_for_each_shape_and_the_last_ones_are_kept(
    openvino_file: Path, manifest: Manifest, weights: np.ndarray, unit: bool, compiled: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(openvino_runtime, "has_matrix_unit", lambda: unit)
    core, shapes = openvino_core(), []

    class Spy:
        def compile_model(self, model: Any, *words: Any) -> Any:
            shapes.append(tuple(side.get_length() if side.is_static else -1 for side in model.input().partial_shape))
            return core.compile_model(model, *words)

    model = core.read_model(openvino_file)
    runtime = openvino_runtime._runtime(Spy(), model, replace(manifest, precision="int8"), "float32", 1, "9")
    random = np.random.default_rng(0)
    for height, width in [(3, 4), (5, 4), (3, 4), (3, 5), (1, 1), (3, 4), (6, 6), (5, 4), (6, 6)]:
        x = random.integers(0, 256, (2, 3, height, width)).astype(np.float32)
        want = np.einsum("kc,nchw->nkhw", weights, x)
        np.testing.assert_allclose(runtime.run(x, "logits"), want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert len(shapes) == compiled
    assert (shapes[0] == (2, 3, 3, 4)) == unit
    assert model.input().partial_shape.is_dynamic


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_signal_is_survived_after_runtimes_have_come_and_gone(openvino_file: Path) -> None:
    script = (
        "import signal, sys, numpy\n"
        "from pathlib import Path\n"
        "from keepmap.runtime.openvino_runtime import open_openvino\n"
        "def compute():\n"
        "    for precision in ('float32', 'auto'):\n"
        "        runtime = open_openvino(Path(sys.argv[1]), precision=precision, threads=1)\n"
        "        runtime.run(numpy.zeros((1, 3, 8, 8), numpy.uint8))\n"
        "compute()\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: print('handled'))\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    command = [sys.executable, "-c", script, str(openvino_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


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
    whole = data.read_bytes()
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    digest = sha256(whole).hexdigest()
    with pytest.raises(ArtefactError, match=rf"(?s)model\.bin was changed.*expected  sha256 {digest}"):
        open_openvino(openvino_file)
    data.write_bytes(whole[:5])
    with pytest.raises(ArtefactError, match=r"model\.bin beside it"):
        open_openvino(openvino_file)
    data.unlink()
    with pytest.raises(ArtefactError, match=r"model\.bin beside it"):
        open_openvino(openvino_file)
    with pytest.raises(ArtefactError, match="cannot be read"):
        open_openvino(openvino_file.with_name("none.xml"))
