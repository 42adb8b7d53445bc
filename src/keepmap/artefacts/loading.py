"""A path to a predictor: of a RUN, or of a file that keepmap exported, or of the folder that holds it.

Knows names of files; what is in them is read in `runs` and `runtime`.
"""

from __future__ import annotations

from pathlib import Path

from keepmap.artefacts.graphs import FILES
from keepmap.errors import ArtefactError, OptionError, RunError
from keepmap.inference.predictor import Predictor
from keepmap.networks.candidate import Segmenter
from keepmap.options import AveragingOptions, ComputeOptions, parse_size
from keepmap.resources import resolve_device, resolve_precision, use_cpu
from keepmap.runs import RunFolder
from keepmap.runtime.averaged import AveragedRuntime, View, views_of
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.manifest import file_sha256
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
    file = _artefact_file(path)
    if not file.is_file():
        raise ArtefactError(f"{path} does not exist.", expected="what keepmap export wrote, or a RUN")
    if device not in ("auto", "cpu"):
        raise OptionError(f"{file} is computed on the CPU.", found=f"--device {device}", do="use the RUN itself there")
    opened = open_onnx if file.suffix.lower() == ".onnx" else open_openvino
    return opened(file, precision=precision, threads=threads)


def model_files(path: Path) -> list[Path]:
    """The files that decide what the model in `path` computes."""
    file, run = _artefact_file(path), RunFolder(path)
    files = [file, file.with_suffix(".bin")] if is_artefact(path) else [run.config_file, run.model_file]
    return [each for each in files if each.is_file()]


def model_digests(path: Path) -> dict[str, str]:
    """The sha256 of `model_files`, by name; not of a .bin, which is opened only if it has the one in its .xml."""
    return {file.name: file_sha256(file) for file in model_files(path) if file.suffix != ".bin"}


def _artefact_file(path: Path) -> Path:
    return next((path / name for name in FILES.values() if (path / name).is_file()), path)


def load_averaged(path: Path, options: AveragingOptions, given: Segmenter | None = None) -> Predictor:
    """The mean of the models in `path` and `options.ensemble`, over the views that `options.tta` names.

    given: as in `load_predictor`, for the model in `path`.
    Raises as that does, OptionError where a model is named twice, RunError where they are of other images and labels.
    """
    views = views_of(options.tta) if options.tta is not None else (View(),)
    paths = [path, *map(Path, options.ensemble or ())]
    files = [_artefact_file(each).resolve() for each in paths]
    for at, each in enumerate(files):
        if each in files[:at]:
            raise OptionError(
                f"{paths[at]} is in the mean already.", found=" + ".join(map(str, paths)),
                expected="each model once", do=f"leave out --ensemble {paths[at]}, or name another run",
            )  # fmt: skip
    predictors = [load_predictor(each, options, None if at else given) for at, each in enumerate(paths)]
    first = predictors[0]
    for each, other in zip(paths[1:], predictors[1:], strict=True):
        if _made_for(first) != _made_for(other):
            raise RunError(
                f"{path} and {each} are made for other images or labels, so that they cannot be averaged.",
                found=f"{path}: {_described(first)}\n{each}: {_described(other)}",
                expected="models of one data set",
            )
    if len(paths) == 1 and views == (View(),):
        return first
    mean = AveragedRuntime([predictor.runtime for predictor in predictors], views)
    limit = first.memory_bytes
    return Predictor(mean, first.labels, memory_bytes=limit, dtype=first.dtype, way=options.way)


def computed_by(predictor: Predictor) -> list[str]:
    """The runtime, its version, its precision and its device, of each of the models that are averaged."""
    runtime = predictor.runtime
    parts = runtime.runtimes if isinstance(runtime, AveragedRuntime) else (runtime,)
    known = [part for part in parts if isinstance(part, ExportedRuntime | TorchRuntime)]
    return [f"{part.name}, {part.precision} on {part.device}" for part in known]


def _made_for(predictor: Predictor) -> tuple[object, ...]:
    labels = predictor.labels
    return labels.values, labels.names, labels.ignore, labels.instances, predictor.runtime.channels, predictor.dtype


def _described(predictor: Predictor) -> str:
    kind = predictor.dtype or "any type"
    return f"{predictor.labels.describe()}; {predictor.runtime.channels} channels of {kind}"


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
