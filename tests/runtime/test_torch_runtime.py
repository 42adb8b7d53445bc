"""The runtime: outputs, dtypes and layouts, against the network called plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from keepmap.errors import KeepmapError, OptionError
from keepmap.networks.catalogue import build_network
from keepmap.networks.describe import peak_bytes
from keepmap.networks.network import Network
from keepmap.networks.unet import UNetConfig
from keepmap.runtime.torch_runtime import TorchRuntime


def small(channels: int = 3, classes: int = 3):
    torch.manual_seed(1)
    network = build_network("unet", channels=channels, classes=classes, options={"widths": (4, 8)})
    network.set_normalisation([100.0] * channels, [50.0] * channels)
    return network.eval()


@torch.inference_mode()
def plain(network, x: np.ndarray) -> np.ndarray:
    return network(torch.from_numpy(x.astype(np.float32))).numpy()


def pixels(shape, dtype="uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_outputs_are_those_of_the_network(dtype) -> None:
    network = small()
    runtime = TorchRuntime(network, device="cpu", precision="float32")
    x = pixels((2, 3, 21, 30), dtype)
    logits = plain(network, x)
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    tolerance = 1e-5 * float(np.abs(logits).max())
    assert runtime.run(x, "logits") == pytest.approx(logits, abs=tolerance)
    probabilities = runtime.run(x, "probabilities")
    assert probabilities == pytest.approx(exponentials / exponentials.sum(1, keepdims=True), abs=1e-4)
    assert probabilities.dtype == np.float32
    assert probabilities.flags.c_contiguous
    assert runtime.run(x, "logits").flags.c_contiguous
    labels = runtime.run(x)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, runtime.run(x, "logits").argmax(1))


def test_any_strides_and_read_only_arrays_are_taken() -> None:
    runtime = TorchRuntime(small(), device="cpu", precision="float32")
    x = pixels((1, 40, 40, 3))
    x.setflags(write=False)
    view = x.transpose(0, 3, 1, 2)[:, :, ::2, 5:]
    assert np.array_equal(runtime.run(view), runtime.run(np.ascontiguousarray(view)))


def test_many_classes_need_wider_labels() -> None:
    runtime = TorchRuntime(small(classes=300), device="cpu", precision="float32")
    x = pixels((1, 3, 20, 20))
    labels = runtime.run(x)
    assert labels.dtype == np.int16 == runtime.label_dtype
    assert np.array_equal(labels, runtime.run(x, "logits").argmax(1))


def test_the_network_is_copied_and_left_as_it_was() -> None:
    network = small().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    runtime = TorchRuntime(network, device="cpu", precision="bfloat16")
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    x = pixels((1, 3, 20, 20))
    want = runtime.run(x, "logits")
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    assert np.array_equal(runtime.run(x, "logits"), want)


def test_bfloat16_is_close_and_16_bit_pixels_survive_it() -> None:
    network = small(channels=1)
    network.set_normalisation([40000.0], [3.0])
    x = (40000 + np.random.default_rng(0).integers(-5, 6, (1, 1, 32, 32))).astype(np.uint16)
    want = plain(network, x)
    got = TorchRuntime(network, device="cpu", precision="bfloat16").run(x, "logits")
    assert got.dtype == np.float32
    assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_memory_is_that_of_the_description() -> None:
    network = small()
    for precision, size in (("float32", 4), ("bfloat16", 2)):
        runtime = TorchRuntime(network, device="cpu", precision=precision)
        for shape in ((1, 1), (64, 48), (301, 1000)):
            want = peak_bytes(network, shape, bytes_per_value=size)
            assert runtime.peak_bytes(*shape) == pytest.approx(want, rel=1e-6)
    assert runtime.free_memory() > 0


def test_memory_counts_the_padding_of_a_network_with_a_size_rule_of_its_own() -> None:
    options = {"widths": (4, 4, 6, 6, 8), "head_width": 8}
    network = build_network("fcn_vgg16", channels=3, classes=3, options=options)
    runtime = TorchRuntime(network, device="cpu", precision="float32")
    for shape in ((1, 1), (64, 48), (1001, 700)):
        assert runtime.peak_bytes(*shape) == pytest.approx(peak_bytes(network, shape), rel=0.1)


def test_facts_of_the_network_are_known() -> None:
    network = small(channels=2, classes=4)
    runtime = TorchRuntime(network, device="cpu", precision="float32")
    assert (runtime.channels, runtime.classes, runtime.stride) == (2, 4, network.stride)
    assert (runtime.reach, runtime.local) == (network.reach, True)


class Global(Network):
    """Sees the whole image at once."""

    def __init__(self) -> None:
        super().__init__(UNetConfig(channels=3, classes=2), stride=8)
        self.norm, self.head = torch.nn.InstanceNorm2d(3), torch.nn.Conv2d(3, 2, 1)

    def core(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(x))


class Unknown(Global):
    """Holds a layer of which nothing is known."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.Softmax(1)


def test_a_layer_that_is_unknown_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="Softmax"):
        TorchRuntime(Unknown(), device="cpu", precision="float32")


def test_a_network_that_sees_the_whole_image_runs_and_says_so() -> None:
    network = Global().eval()
    runtime = TorchRuntime(network, device="cpu", precision="float32")
    x = pixels((1, 3, 24, 40))
    assert not runtime.local
    assert runtime.reach == (0, 0)
    assert runtime.run(x, "logits") == pytest.approx(plain(network, x), abs=1e-5)


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(OptionError, match="--device cdua"):
        TorchRuntime(small(), device="cdua")


def test_too_little_gpu_memory_is_an_error_that_names_the_remedy(monkeypatch) -> None:
    runtime = TorchRuntime(small(), device="cpu", precision="float32")

    def fail(_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(runtime, "_network", fail)
    with pytest.raises(KeepmapError, match="--memory"):
        runtime.run(pixels((1, 3, 20, 20)))
