"""A pass that nobody waits for ends before its next layer, in every runtime; the next one has the same bits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from keepmap.networks.catalogue import build_network
from keepmap.runtime.fusing import FusedConv
from keepmap.runtime.manifest import Manifest
from keepmap.runtime.onnx_runtime import open_onnx
from keepmap.runtime.openvino_runtime import _runtime
from keepmap.runtime.stopping import CURRENT, Cancelled, Stop, check, computing_for
from keepmap.runtime.torch_runtime import TorchRuntime


@pytest.fixture
def stop() -> Iterator[Stop]:
    """That of this thread."""
    made = Stop()
    before = CURRENT.set(made)
    yield made
    CURRENT.reset(before)


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    torch.manual_seed(0)
    return TorchRuntime(build_network("unet", channels=3, classes=2, options={"widths": (4, 8)}), precision="float32")


def test_who_is_told(stop: Stop) -> None:
    told: list[str] = []
    with stop.telling(lambda: told.append("gone")):
        pass
    with stop.telling(lambda: told.append("there")):
        check()
        stop.cancel()
    with stop.telling(lambda: told.append("late")), pytest.raises(Cancelled):
        check()
    assert told == ["there", "late"]


def test_what_is_computed_for_several_ends_with_the_last_of_them() -> None:
    first, second = Stop(), Stop()
    with computing_for([first, second]):
        first.cancel()
        check()
        second.cancel()
        with pytest.raises(Cancelled):
            check()
    with computing_for([first, None]):
        check()
    check()


def test_a_pass_ends_between_two_layers(runtime: TorchRuntime, stop: Stop) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 24, 24), np.uint8)
    whole, computed = runtime.run(image, "logits"), []

    def count(module: nn.Module, _: object, __: object) -> None:
        computed.append(module)
        if len(computed) == 3:
            stop.cancel()

    hooks = [step.layer.register_forward_hook(count) for step in runtime._steps if isinstance(step.layer, FusedConv)]
    with pytest.raises(Cancelled):
        runtime.run(image)
    for hook in hooks:
        hook.remove()
    assert len(computed) == 3 < len(hooks)
    stop.cancelled = False
    np.testing.assert_array_equal(runtime.run(image, "logits"), whole)


def test_a_band_ends_too(runtime: TorchRuntime, stop: Stop) -> None:
    def read(rows: slice) -> Any:
        stop.cancel()
        return np.zeros((3, rows.stop - rows.start, 16), np.uint8)

    with pytest.raises(Cancelled):
        list(runtime.stream((64, 16), 32, read))


def test_onnx_runtime_ends(onnx_file: Path, pixels: np.ndarray, stop: Stop) -> None:
    pytest.importorskip("onnxruntime")
    exported = open_onnx(onnx_file, threads=1)
    whole = exported.run(pixels, "logits")
    stop.cancel()
    with pytest.raises(Cancelled):
        exported.run(pixels)
    stop.cancelled = False
    np.testing.assert_array_equal(exported.run(pixels, "logits"), whole)


def test_openvino_is_told_while_it_computes(manifest: Manifest, pixels: np.ndarray, stop: Stop) -> None:
    class Request:
        """One that computes until it is cancelled."""

        begun, ended = threading.Event(), threading.Event()
        cancel = ended.set

        def start_async(self, *_: object, **__: object) -> None:
            self.begun.set()

        def wait(self) -> None:
            if self.ended.wait(10):
                raise RuntimeError("Infer Request was canceled")

    class Core:
        """In place of OpenVINO's."""

        compile_model: Callable[..., Any] = lambda self, *_: self
        create_infer_request = Request

    exported = _runtime(Core(), None, manifest, "float32", 1, "0")
    with ThreadPoolExecutor(1) as threads:
        canceller = threads.submit(lambda: Request.begun.wait(10) and stop.cancel())
        with pytest.raises(Cancelled):
            exported.run(pixels)
        canceller.result()
