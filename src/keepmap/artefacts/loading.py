"""A path to a predictor: of a RUN, or of a file that keepmap exported, or of the folder that holds it.

Knows names of files; what is in them is read in `runs` and `runtime`.
"""

from __future__ import annotations

from pathlib import Path

from keepmap.artefacts.graphs import FILES
from keepmap.errors import ArtefactError, OptionError
from keepmap.inference.predictor import Predictor
from keepmap.networks.candidate import Segmenter
from keepmap.options import ComputeOptions, parse_size
from keepmap.resources import resolve_device, resolve_precision, use_cpu
from keepmap.runs import RunFolder
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.onnx_runtime import open_onnx
from keepmap.runtime.openvino_runtime import open_openvino
from keepmap.runtime.torch_runtime import TorchRuntime

_SUFFIXES = (".onnx", ".xml")


def is_artefact(path: Path) -> bool:
    """Whether `path` names an exported file, there or not, or is a folder that holds one."""
    return path.suffix.lower() in _SUFFIXES or any((path / name).is_file() for name in FILES.values())


def open_artefact(
    path: Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> ExportedRuntime:
    """The exported network in `path`. threads: default all that this process may keep busy.

    Raises ArtefactError where the file is missing, broken, foreign or too new, OptionError for a device other than the
    CPU or a precision that it cannot compute in, MissingPackage.
    """
    file = next((path / name for name in FILES.values() if (path / name).is_file()), path)
    if not file.is_file():
        raise ArtefactError(f"{path} does not exist.", expected="what keepmap export wrote, or a RUN")
    if device not in ("auto", "cpu"):
        raise OptionError(f"{file} is computed on the CPU.", found=f"--device {device}", do="use the RUN itself there")
    opened = open_onnx if file.suffix.lower() == ".onnx" else open_openvino
    return opened(file, precision=precision, threads=threads)


def load_predictor(path: Path, options: ComputeOptions, given: Segmenter | None = None) -> Predictor:
    """The model of a RUN, or of an exported file. given: as in `RunFolder.load_network`. Raises as both do."""
    use_cpu()
    limit = int(parse_size(options.memory)) if options.memory else None
    if is_artefact(path):
        if given is not None:
            raise OptionError(f"{path} knows its network itself.", do="leave network= out")
        runtime = open_artefact(path, device=options.device, precision=options.precision)
        facts = runtime.manifest
        return Predictor(runtime, facts.labels, memory_bytes=limit, dtype=facts.dtype, way=options.way)
    network, config = RunFolder(path).load_network(given)
    where = resolve_device(options.device)
    precision = resolve_precision(options.precision, where)
    trained = TorchRuntime(network, device=where, precision=precision, temperature=config.temperature)
    return Predictor(trained, config.labels, memory_bytes=limit, dtype=config.dtype, way=options.way)
