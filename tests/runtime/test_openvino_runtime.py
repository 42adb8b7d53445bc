"""OpenVINO computes what the graph says, in both precisions, and broken files are named errors."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
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
        assert runtime.manifest == replace(manifest, payload=runtime.manifest.payload)
        first = runtime.run(pixels, "logits")
        runtime.run(pixels[:, :, :3, :2])
        assert np.abs(first - want).max() <= tolerance * np.abs(want).max()


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
