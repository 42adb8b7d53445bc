"""An exported OpenVINO file as a runtime, on the CPU, in bfloat16 where the CPU multiplies it.

Does not know how the file was made.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from keepmap import external
from keepmap.errors import ArtefactError, OptionError
from keepmap.protocols import Array
from keepmap.resources import has_bfloat16, has_matrix_unit, resolve_precision, thread_count
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.manifest import KEY, Manifest, file_sha256, manifest_from
from keepmap.runtime.stopping import ended_by

IR = 11
"""The version of OpenVINO's format that is written and read."""
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_SHAPES = 4
"""Shapes of which the compiled model is kept where each has its own."""
_SHARES = {"float32": 1.25, "bfloat16": 0.7}
"""Peak memory as a multiple of PyTorch's in float32: at most 1.20 and 0.63 were measured."""


def open_openvino(path: Path, *, precision: str = "auto", threads: int | None = None) -> ExportedRuntime:
    """The network in `path` (.xml, with its .bin beside it), which keepmap exported. threads: default all.

    precision: auto is bfloat16 where the CPU has it; what is quantised to int8 stays so.
    Raises ArtefactError for a file that is cut short, changed, foreign or too new for the package that is installed,
    OptionError where bfloat16 is asked for and the CPU has none, MissingPackage.
    """
    package = external.load("openvino", f"Computing {path}")
    release = package.__version__.split("-")[0]
    _check_version(path)
    core = openvino_core()
    try:
        model = core.read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    except RuntimeError as error:
        raise ArtefactError(
            f"{path} cannot be read by OpenVINO {release}.", found=_last_line(error),
            expected=f"what keepmap export wrote, whole, and {path.with_suffix('.bin').name} beside it",
            do="copy both files again, or export the run again",
        ) from error  # fmt: skip
    manifest = manifest_from(text, path)
    chosen = resolve_precision(precision, "cpu")
    if chosen == "bfloat16" and not has_bfloat16("cpu"):
        raise OptionError("This CPU has no bfloat16.", found="--precision bfloat16", expected="auto or float32")
    data = path.with_suffix(".bin")
    with ThreadPoolExecutor(1, "keepmap-hash") as thread:
        digest = thread.submit(file_sha256, data)
        try:
            return _runtime(core, model, manifest, chosen, threads or thread_count(), release)
        finally:  # what cannot be compiled because it was changed is told to have been changed
            manifest.require_payload(digest.result(), data)


@cache
def openvino_core() -> Any:
    """OpenVINO's entry, one for the whole process and for good. Raises MissingPackage.

    Each sets a stack for signal handlers and at its end puts back the one that it found, even if that is unmapped by
    then: after two that go in the order in which they came, the next signal ends the process.
    """
    return external.load("openvino", "Computing with OpenVINO").Core()


def _runtime(
    core: Any, model: Any, manifest: Manifest, precision: str, threads: int, version: str
) -> ExportedRuntime:
    """For any shape; in int8 on a matrix unit compiled for each (0.4 s), for there OpenVINO ends the process at some
    sizes of a model that takes any (openvinotoolkit/openvino, issue 37577)."""
    hints = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "INFERENCE_NUM_THREADS": threads}
    fixed, lock = manifest.precision == "int8" and has_matrix_unit(), threading.Lock()

    @lru_cache(_SHAPES)
    def request_for(shape: tuple[int, ...] | None) -> Any:
        taking = model
        if shape is not None:
            taking = model.clone()
            taking.reshape(shape)
        return core.compile_model(taking, "CPU", hints).create_infer_request()

    if not fixed:
        request_for(None)

    def compute(x: Array) -> Array:
        with lock:  # one request has one set of buffers; each pass keeps all threads busy anyway
            request = request_for(x.shape if fixed else None)
            request.start_async({"image": x}, share_inputs=True)  # what is computed at once cannot be cancelled
            with ended_by(request.cancel):
                request.wait()
            return np.array(request.get_tensor("logits").data, np.float32)

    name = f"OpenVINO {version}, CPU"
    stated = f"int8 and {precision}" if manifest.precision == "int8" else precision
    return ExportedRuntime(manifest, compute, name=name, precision=stated, share=_SHARES[precision])


def _check_version(path: Path) -> None:
    """Raise ArtefactError unless `path` begins as OpenVINO's format of a version that is known."""
    try:
        with path.open("rb") as file:
            begin = file.read(2000).decode("utf-8", "replace")
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read.", found=error.strerror or str(error)) from error
    match = re.search(r'<net\b[^>]*\bversion="(\d+)"', begin)
    if match is None:
        raise ArtefactError(f"{path} is no OpenVINO file.", found=begin[:40], expected="what keepmap export wrote")
    if int(match[1]) != IR:
        raise ArtefactError(
            f"{path} is of another version of OpenVINO's format.", found=f"IR {match[1]}", expected=f"IR {IR}",
            do="export the run again with this version of keepmap",
        )  # fmt: skip


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[-1]
