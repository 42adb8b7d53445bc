"""An exported ONNX file as a runtime, by ONNX Runtime on the CPU, in the precision of the file.

Does not know how the file was made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keepmap import external
from keepmap.errors import ArtefactError, OptionError
from keepmap.protocols import Array
from keepmap.resources import thread_count
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.manifest import KEY, manifest_from
from keepmap.runtime.onnx_header import read_header
from keepmap.runtime.stopping import ended_by

_SHARE = 1.75
"""Peak memory as a multiple of PyTorch's in float32: 1.67 and 1.23 were measured."""


def open_onnx(path: Path, *, precision: str = "auto", threads: int | None = None) -> ExportedRuntime:
    """The network in `path`, which keepmap exported. threads: default all that this process may keep busy.

    Raises ArtefactError for a file that is cut short, changed, foreign or too new for the package that is installed,
    OptionError where bfloat16 is asked for, MissingPackage.
    """
    header = read_header(path)
    manifest = manifest_from(header.metadata.get(KEY), path)
    manifest.require_payload(header.graph, path)
    package = external.load("onnxruntime", f"Computing {path}")
    if precision == "bfloat16":
        raise OptionError(
            f"ONNX Runtime computes {path} in {manifest.precision}.", found="--precision bfloat16",
            expected="auto or float32", do="export the run --to openvino",
        )  # fmt: skip
    options = package.SessionOptions()
    options.intra_op_num_threads = threads or thread_count()
    options.log_severity_level = 3
    try:
        session = package.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise ArtefactError(
            f"{path} cannot be computed by ONNX Runtime {package.__version__}.",
            found=f"opset {header.opset}, IR {header.ir}: {error}",
            expected=f"opset {manifest.opset}, IR {manifest.ir}, as written with {_written(manifest.versions)}",
            do=f"{external.install_line('onnxruntime')} --upgrade, or export the run again on this machine",
        ) from error
    name = f"ONNX Runtime {package.__version__}, {session.get_providers()[0]}"

    def compute(x: Array) -> Array:
        this = package.RunOptions()
        with ended_by(lambda: setattr(this, "terminate", True)):
            return np.asarray(session.run(["logits"], {"image": x}, this)[0])

    return ExportedRuntime(manifest, compute, name=name, precision=manifest.precision, share=_SHARE)


def _written(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
