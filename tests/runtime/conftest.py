"""One tiny exported network, built by hand: logits are a 1x1 convolution of raw values."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepmap.data.labels import LabelSet, default_colours
from keepmap.runtime.manifest import KEY, Manifest


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """Of the tiny network; stride 4 so that it has a size rule to speak of."""
    return Manifest(
        network="unet", options={"widths": [4, 8]}, weights="0" * 64, payload="", channels=3,
        order="RGB", dtype="uint8",
        labels=LabelSet((0, 255), ("sky", "gr\u00e4s <&> \"x\""), None, default_colours(2)), mean=(1.0, 2.0, 3.5),
        stride=4, reach=(7, 6), local=True, margin=0, pixel_bytes=40.0, precision="float32", kept=(), opset=20, ir=10,
        versions={"keepmap": "0.1.0"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def weights() -> np.ndarray:
    """(2, 3) of the convolution."""
    return np.array([[0.5, -1.0, 0.25], [-0.25, 0.5, 0.125]], np.float32)


@pytest.fixture(scope="session")
def model(manifest: Manifest, weights: np.ndarray) -> Any:
    """As ONNX."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["logits"], name="conv")], "tiny",
        [helper.make_tensor_value_info("image", kind, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info("logits", kind, ["batch", 2, "height", "width"])],
        [onnx.numpy_helper.from_array(weights[:, :, None, None], "w")],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    payload = hashlib.sha256(graph.SerializeToString()).hexdigest()
    made.metadata_props.add(key=KEY, value=replace(manifest, payload=payload).text())
    return made


@pytest.fixture
def onnx_file(model: Any, tmp_path: Path) -> Path:
    """The tiny network in a file."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def openvino_file(onnx_file: Path, manifest: Manifest) -> Path:
    """The same as OpenVINO has it."""
    openvino = pytest.importorskip("openvino")
    read = openvino.Core().read_model(onnx_file)
    path = onnx_file.with_suffix(".xml")
    openvino.save_model(read, path, compress_to_fp16=False)
    payload = hashlib.sha256(path.with_suffix(".bin").read_bytes()).hexdigest()
    read.set_rt_info(replace(manifest, payload=payload).text(), [KEY])
    openvino.save_model(read, path, compress_to_fp16=False)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    """Two raw images of odd size."""
    return np.random.default_rng(0).integers(0, 65536, (2, 3, 7, 11)).astype(np.uint16)
