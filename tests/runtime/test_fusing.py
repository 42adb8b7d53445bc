"""Fused steps against the core that they came from, and a fused convolution against its parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from keepmap import resources
from keepmap.networks.catalogue import build_network
from keepmap.networks.layers import ACTIVATION, CONV, Product, conv
from keepmap.networks.network import Network
from keepmap.networks.trace import Step, steps_of
from keepmap.networks.unet import UNetConfig
from keepmap.runtime import winograd
from keepmap.runtime.folding import fold_batch_norms
from keepmap.runtime.fusing import Fused, FusedConv, HalvingMax, can_fuse, fused
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.runtime.winograd import WinogradConv

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"widths": (4, 8, 8)}),
    ("unet", {"widths": (4, 8, 8), "up": "bilinear", "norm": "none", "act": "leaky_relu"}),
    ("unet", {"widths": (4, 8, 8), "norm": "instance", "act": "silu"}),
    ("unet", {"widths": (4, 8), "block": "residual", "down": "stride", "context": True}),
    ("unet", {"widths": (4, 8), "attention": True}),
    ("unet", {"widths": (4, 8), "match": "pad"}),
    ("unet2015", {"widths": (4, 8)}),
    ("encoder_unet", {"encoder": "resnet18", "widths": (16, 12, 8, 6, 4)}),
    ("encoder_unet", {"encoder": "resnet18", "widths": (16, 12, 8, 6, 4), "match": "resize", "up": "nearest"}),
    ("encoder_unet", {"encoder": "efficientnet_lite0", "widths": (16, 12, 8, 6, 4)}),
    ("fcn", {"encoder": "resnet18", "head_width": 8}),
    ("fcn_vgg16", {"widths": (4, 4, 4, 4, 4), "head_width": 8}),
    ("fcn_dilated", {"width": 4}),
]


def randomised(name: str, options: dict[str, Any]) -> Network:
    """In eval, on the layout and with the batch norms that the runtime fuses, its statistics as if trained."""
    torch.manual_seed(0)
    network = build_network(name, channels=3, classes=3, options=options).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return fold_batch_norms(network).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@torch.inference_mode()
def test_fused_steps_compute_what_the_core_does(name: str, options: dict[str, Any]) -> None:
    network = randomised(name, options)
    x = network.pad(torch.randn(2, 3, 70, 45)).contiguous(memory_format=torch.channels_last)
    whole = network.core(x)
    steps = fused(steps_of(network), 3)
    kept = x.clone()
    assert float((Fused(steps)(x) - whole).abs().max()) <= 1e-5 * float(whole.abs().max())
    assert torch.equal(x, kept)
    assert not any(isinstance(step.layer, (nn.Identity, CONV[2])) for step in steps)


def kinds(network: Network, channels: int = 3) -> list[str]:
    steps = fused(steps_of(network), channels)
    return [step.kind if step.layer is None else type(step.layer).__name__ for step in steps]


def test_nothing_is_left_that_a_convolution_can_do_itself() -> None:
    assert kinds(randomised("unet", {"widths": (4, 8)})) == [
        "input", "FusedConv", "FusedConv", "HalvingMax", "FusedConv", "FusedConv", "ConvTranspose2d", "FusedConv",
        "FusedConv", "FusedConv",
    ]  # fmt: skip


class Entangled(Network):
    """Values that two layers read, a concatenation that a grouped convolution reads, and layers that are used twice."""

    def __init__(self) -> None:
        super().__init__(UNetConfig(channels=2, classes=2), stride=1)
        self.narrow, self.wide = CONV[2](2, 2, 1), CONV[2](4, 4, 3, padding=1)
        self.grouped, self.last = CONV[2](4, 4, 3, padding=1, groups=2), CONV[2](8, 2, 1)
        self.act = ACTIVATION["relu6"]()

    def core(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.act(self.narrow(x)), x], 1)
        y = self.act(self.wide(joined)) + joined
        y = y + y
        twice = self.narrow(x)
        grouped = self.grouped(torch.cat([self.act(twice), twice], 1))
        logits: torch.Tensor = self.last(torch.cat([grouped, y], 1))
        return logits


@torch.inference_mode()
def test_what_something_else_reads_stays() -> None:
    torch.manual_seed(0)
    network = Entangled().eval().requires_grad_(False).to(memory_format=torch.channels_last)
    assert kinds(network, 2) == [
        "input", "FusedConv", "cat", "FusedConv", "add", "add", "FusedConv", "ReLU6", "cat", "FusedConv",
        "FusedConv",
    ]  # fmt: skip
    x = torch.randn(2, 2, 9, 12)
    torch.testing.assert_close(Fused(fused(steps_of(network), 2))(x), network.core(x), rtol=1e-5, atol=1e-5)


def test_other_activations_and_sizes_that_may_differ_stay() -> None:
    assert kinds(randomised("unet", {"widths": (4, 8), "act": "gelu"})).count("GELU") == 6
    assert "Join" in kinds(randomised("unet", {"widths": (4, 8), "match": "pad"}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(height=st.integers(2, 9), width=st.integers(2, 9), channels=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
@torch.inference_mode()
def test_halving_by_maxima_is_max_pooling(dtype: torch.dtype, height: int, width: int, channels: int) -> None:
    x = torch.randn(2, channels, height, width).to(dtype).contiguous(memory_format=torch.channels_last)
    x[0, 0, 0, 1] = torch.nan
    made, pooled = HalvingMax()(x), torch.nn.functional.max_pool2d(x, 2)
    assert torch.equal(made.nan_to_num(9), pooled.nan_to_num(9))
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_only_pooling_of_2x2_blocks_is_halving() -> None:
    pools = [nn.MaxPool2d(2), nn.MaxPool2d((2, 2), stride=2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1)]
    pools += [nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, padding=1), nn.MaxPool2d((2, 4), 2)]
    steps = [Step("", "input", None, (), (), "", 0)]
    steps += [Step("", "layer", pool, (at,), (), "", 0) for at, pool in enumerate(pools)]
    halving = [isinstance(step.layer, HalvingMax) for step in fused(steps, 3)[1:]]
    assert halving == [True, True] + [False] * 5


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@torch.inference_mode()
def test_a_fused_convolution_computes_its_parts(data: st.DataObject) -> None:
    draw = data.draw
    widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    groups = draw(st.sampled_from([1, 2])) if len(widths) == 1 and widths[0] % 2 == 0 else 1
    kernel, dilation = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(st.integers(1, 2))
    torch.manual_seed(draw(st.integers(0, 9)))
    layer = CONV[2](
        sum(widths), 2 * draw(st.integers(1, 4)), kernel, draw(st.integers(1, 2)), draw(st.integers(0, 2)), dilation,
        groups, draw(st.booleans()),
    ).requires_grad_(False)  # fmt: skip
    activation = draw(st.sampled_from([None, *(kind() for kind in ACTIVATION.values())]))
    size = draw(st.integers(8, 20)), draw(st.integers(8, 20))
    values = [4 * torch.randn(2, width, *size) for width in widths]
    one = FusedConv(layer, activation, widths if len(widths) > 1 else ())
    for made, rows in ((one(*values), layer.padding[0]), (one.inner_rows(*values), 0)):
        layer.padding = rows, layer.padding[1]
        want = layer(torch.cat(values, 1))
        torch.testing.assert_close(made, want if activation is None else activation(want), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_in_bfloat16_a_sum_is_rounded_once_more() -> None:
    torch.manual_seed(0)
    exact = conv(128, 64).requires_grad_(False)
    parts = [torch.relu(torch.randn(1, 64, 30, 30)).bfloat16() for _ in range(2)]
    direct = conv(128, 64).requires_grad_(False).bfloat16()
    direct.load_state_dict(exact.state_dict())
    truth = exact(torch.cat(parts, 1).float())
    whole, split = direct(torch.cat(parts, 1)), FusedConv(direct, None, (64, 64))(*parts)
    errors = [float((made.float() - truth).norm() / truth.norm()) for made in (whole, split)]
    assert 0 < errors[0] < errors[1] < 1.6 * errors[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_runtime_fuses_on_a_cpu_and_streams_the_same(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LEAST_PAIRS", 16 * 16)
    monkeypatch.setattr(resources, "has_matrix_unit", lambda: False)
    network = randomised("unet", {"widths": (8, 16, 32)})
    network.set_normalisation([128.0] * 3, [74.0] * 3)
    x = np.random.default_rng(0).integers(0, 256, (1, 3, 90, 50), np.uint8)
    fusing_runtime = TorchRuntime(network, device="cpu", precision=precision)
    monkeypatch.setattr("keepmap.runtime.torch_runtime.can_fuse", lambda *_: False)
    plain = TorchRuntime(network, device="cpu", precision=precision)
    kinds = [{type(step.layer) for step in runtime._steps} for runtime in (fusing_runtime, plain)]
    assert (FusedConv in kinds[0], FusedConv in kinds[1]) == (True, False)
    assert all((WinogradConv in each) == (precision == "bfloat16") for each in kinds)
    logits = plain.run(x, "logits")
    tolerance = (1e-5 if precision == "float32" else 2e-2) * float(np.abs(logits).max())
    assert np.abs(fusing_runtime.run(x, "logits") - logits).max() <= tolerance
    rows = np.concatenate(list(fusing_runtime.stream((90, 50), 16, lambda rows: x[0][:, rows], "logits")), 1)
    assert np.abs(rows - logits[0]).max() <= tolerance


def test_a_step_that_takes_a_parameter_is_left_to_its_network() -> None:
    steps = steps_of(randomised("unet", {"widths": (4, 8), "attention": True}))
    assert can_fuse(steps, torch.float32)
    scaled = next(step for step in steps if isinstance(step.layer, Product))
    assert not can_fuse([*steps, dataclasses.replace(scaled, inputs=scaled.inputs[:1])], torch.float32)
