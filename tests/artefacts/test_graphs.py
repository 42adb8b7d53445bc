"""The graphs of real networks compute what the networks compute, for any batch and size, and carry no trace of here."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from keepmap.artefacts.graphs import (
    FILES,
    in_target,
    last_factor,
    last_layers,
    quantised,
    require_packages,
    to_graph,
    write_graph,
)
from keepmap.artefacts.loading import open_artefact
from keepmap.artefacts.making import _manifest
from keepmap.errors import ContractError, MissingPackage

SHAPES = ((1, 3, 1, 1), (2, 3, 75, 101), (1, 3, 33, 130))


@pytest.mark.parametrize("to", FILES)
def test_graphs_compute_what_the_networks_compute(to: Any, exportables: Any, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime"}.get(to, to))
    random = np.random.default_rng(1)
    for kind, item in exportables.items():
        folder = tmp_path / kind
        folder.mkdir()
        manifest = _manifest(item.network, item.run.read_config(), item.run)
        graph = in_target(copy.deepcopy(item.graph), to, tmp_path / "graph.onnx")
        runtime = open_artefact(write_graph(graph, to, manifest, folder), precision="float32", threads=1)
        assert runtime.manifest == replace(
            manifest, opset=20, ir=runtime.manifest.ir, versions=runtime.manifest.versions,
            payload=runtime.manifest.payload,
        )  # fmt: skip
        assert (runtime.stride, runtime.reach, runtime.local) == (
            item.network.stride, item.network.reach, item.network.local,
        )  # fmt: skip
        for shape in SHAPES:
            x = random.integers(0, 256, shape, np.uint8)
            with torch.inference_mode():
                want = item.network(torch.from_numpy(x)).numpy() / item.run.read_config().temperature
            difference = np.abs(runtime.run(x, "logits") - want).max()
            assert difference <= 1e-5 * np.abs(want).max(), (kind, shape)


def test_sides_have_names_and_no_path_of_this_machine_is_in_the_file(exportables: Any) -> None:
    graph = exportables["unet"].graph
    sides = [side.dim_param or side.dim_value for side in graph.graph.input[0].type.tensor_type.shape.dim]
    assert sides == ["batch", 3, "height", "width"]
    assert b".py" not in graph.SerializeToString()


def test_int8_has_integers_but_in_the_layers_that_are_kept(exportables: Any) -> None:
    pytest.importorskip("nncf")
    item = exportables["unet"]
    crops = [np.random.default_rng(n).integers(0, 256, (1, 3, 32, 32)).astype(np.float32) for n in range(4)]
    kept = (*last_layers(item.graph, "onnx", 1), *last_factor(item.graph, "onnx"))
    before = item.graph.SerializeToString()
    model = quantised(copy.deepcopy(item.graph), "onnx", crops, kept)
    assert item.graph.SerializeToString() == before
    made = {node.output[0]: node for node in model.graph.node}
    inputs = [made.get(node.input[0]) for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    kinds = [node is not None and node.op_type == "DequantizeLinear" for node in inputs]
    assert kinds[-1] is False
    assert made["logits"].op_type == "Mul"
    assert made[made["logits"].input[0]].op_type != "DequantizeLinear"
    assert sum(kinds) >= len(kinds) // 2


def test_images_of_a_rare_kind_are_not_cut_off_by_int8(exportables: Any) -> None:
    pytest.importorskip("nncf")
    package = pytest.importorskip("onnxruntime")
    random, item = np.random.default_rng(0), exportables["unet"]
    crops = [random.integers(0, 20, (1, 3, 32, 32)).astype(np.float32) for _ in range(15)]
    crops.append(random.integers(180, 256, (1, 3, 32, 32)).astype(np.float32))
    factor = last_factor(item.graph, "onnx")
    model = quantised(copy.deepcopy(item.graph), "onnx", crops, factor)
    exact, small = (
        package.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"])
        for each in (item.graph, model)
    )
    for crop in (crops[0], crops[-1]):
        want, got = exact.run(None, {"image": crop})[0], small.run(None, {"image": crop})[0]
        assert np.abs(got - want).mean() <= 0.1 * np.abs(want).mean()


def test_a_network_of_one_size_is_refused() -> None:
    pytest.importorskip("onnxscript")

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ContractError, match="cannot be exported"):
        to_graph(Fixed(), 3)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepmap.external.available", lambda name: name != "nncf")
    with pytest.raises(MissingPackage, match="int8 needs the package nncf"):
        require_packages("onnx", True)
