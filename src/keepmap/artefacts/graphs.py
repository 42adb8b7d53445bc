"""A network as a graph in a file: ONNX, and OpenVINO made of it; whole in float32, or quantised to int8.

Knows graphs and files. Whether a graph computes what the network computes is proven elsewhere (see `parity`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from keepmap import external
from keepmap.config import writing
from keepmap.errors import ContractError
from keepmap.options import Target
from keepmap.protocols import Array
from keepmap.runtime.manifest import KEY, Manifest, file_sha256
from keepmap.runtime.openvino_runtime import IR, openvino_core

OPSET = 20
"""Of the ONNX operators that are written."""
FILES = {"onnx": "model.onnx", "openvino": "model.xml"}
"""Target -> name of the file that is loaded; model.bin lies beside model.xml."""
_PACKAGES = {"onnx": ("onnx", "onnxscript"), "openvino": ("onnx", "onnxscript", "openvino")}
_SOLVED = {
    "onnx": ("Conv", "ConvTranspose"),
    "openvino": ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"),
}
"""The kinds of layers that int8 may leave in floats, by target."""


def require_packages(to: Target, int8: bool) -> None:
    """Raise MissingPackage unless everything that an export takes is installed; imports it."""
    runs = "onnxruntime" if to == "onnx" else "openvino"
    for name in (*_PACKAGES[to], runs, *(["nncf"] if int8 else [])):
        external.load(name, f"keepmap export --to {to}{' --int8' * int8}")


class _Tempered(nn.Module):
    """A network whose logits are divided by a temperature."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.factor = network, 1 / temperature

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits * self.factor


def to_graph(network: nn.Module, channels: int, temperature: float = 1.0) -> Any:
    """The network as an ONNX model in memory: `image` (batch, C, height, width) float32 raw values to `logits`.

    Normalisation, size rule and the temperature of the probabilities are in it; all but C varies. Raises ContractError
    where torch cannot export it.
    """
    network = network if temperature == 1.0 else _Tempered(network, temperature).eval()
    some = torch.export.Dim.DYNAMIC
    x = torch.zeros(2, channels, 75, 101)
    try:
        with _hushed(), torch.no_grad():
            graph = torch.export.export(network, (x,), dynamic_shapes=({0: some, 2: some, 3: some},))
            program: Any = torch.onnx.export(
                graph, input_names=["image"], output_names=["logits"], opset_version=OPSET, dynamo=True, verbose=False
            )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ContractError(
            "The network cannot be exported for all sizes.", clause="export",
            found=str(error.__cause__ or error).split("\n", 1)[0],
            do="keepmap.check_segmenter(network) shows what stands in the way",
        ) from error  # fmt: skip
    return _tidied(program.model_proto)


def _tidied(model: Any) -> Any:
    """The model with speaking names of its sides, and without what torch notes of the source: paths and lines."""
    for value in (model.graph.input[0], model.graph.output[0]):
        for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    for part in (model, model.graph, *model.graph.input, *model.graph.output, *model.graph.node, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
    return model


def in_target(graph: Any, to: Target, scratch: Path) -> Any:
    """The ONNX model as what the target's packages work on: itself, or an OpenVINO model.

    It is read from a file, exactly and without the converter, which reports its use over the network.
    """
    if to == "onnx":
        return graph
    with writing(scratch):
        scratch.write_bytes(graph.SerializeToString())
    return openvino_core().read_model(scratch)


def quantised(model: Any, to: Target, crops: Sequence[Array], kept: Sequence[str]) -> Any:
    """A copy whose convolutions compute in int8, by post-training quantisation (NNCF); `kept` stay in floats.

    crops: raw values (1, C, h, w) float32 that show the ranges of all layers, as in training images. A range is that of
    all crops together: the mean of theirs, NNCF's choice, cuts off images of a kind that is rare (on nuclei of several
    stains 1.8 points of mean IoU, so 0.1).
    """
    nncf = external.load("nncf", "keepmap export --int8")
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    shown = [{"image": crop} for crop in crops] if to == "onnx" else list(crops)
    with _hushed():
        return nncf.quantize(
            model, nncf.Dataset(shown), subset_size=len(crops), preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=list(kept)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )  # fmt: skip


def last_layers(model: Any, to: Target, count: int) -> tuple[str, ...]:
    """The names of the last `count` convolutions of what `in_target` returned."""
    if to == "onnx":
        names = [node.name for node in model.graph.node if node.op_type in _SOLVED[to]]
    else:
        names = [layer.get_friendly_name() for layer in model.get_ordered_ops() if layer.get_type_name() in _SOLVED[to]]
    return tuple(names[-count:]) if count else ()


def last_factor(model: Any, to: Target) -> tuple[str]:
    """The name of the last multiplication, by the temperature, of what `in_target` returned for a tempered graph."""
    if to == "onnx":
        return (str([node.name for node in model.graph.node if node.op_type == "Mul"][-1]),)
    return (str([op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "Multiply"][-1]),)


def write_graph(model: Any, to: Target, manifest: Manifest, folder: Path) -> Path:
    """Write the model with its manifest into `folder`; returns the file that is loaded. Raises OutputError."""
    path = folder / FILES[to]
    names = ("onnx", "openvino", "nncf") if manifest.precision == "int8" else ("onnx", "openvino")
    versions = {"keepmap": manifest.versions["keepmap"], "torch": torch.__version__.split("+")[0]}
    versions |= {name: version(name) for name in names if name != "openvino" or to == "openvino"}
    if to == "onnx":
        payload = hashlib.sha256(model.graph.SerializeToString()).hexdigest()
        complete = replace(manifest, opset=OPSET, ir=model.ir_version, versions=versions, payload=payload)
        del model.metadata_props[:]
        model.metadata_props.add(key=KEY, value=complete.text())
        with writing(path):
            path.write_bytes(model.SerializeToString())
        return path
    package = external.load("openvino", "keepmap export --to openvino")
    package.save_model(model, path, compress_to_fp16=False)  # first for the .bin, then with what is known of it
    payload = file_sha256(path.with_suffix(".bin"))
    model.set_rt_info(replace(manifest, opset=OPSET, ir=IR, versions=versions, payload=payload).text(), [KEY])
    package.save_model(model, path, compress_to_fp16=False)
    return path


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without the warnings, bars and lines of the packages that are at work."""
    loggers = [logging.getLogger(name) for name in ("nncf", "onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
