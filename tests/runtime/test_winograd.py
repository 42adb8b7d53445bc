"""Winograd's convolution against the direct one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from keepmap import resources
from keepmap.networks.catalogue import build_network
from keepmap.networks.layers import conv
from keepmap.runtime import winograd
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.runtime.winograd import WinogradConv, use_winograd


@given(
    count=st.integers(1, 3), inputs=st.integers(1, 9), outputs=st.integers(1, 9), height=st.integers(1, 21),
    width=st.integers(1, 21), bias=st.booleans(), channels_last=st.booleans(), chunk=st.sampled_from([1, 5000, 1 << 23])
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_it_computes_the_convolution(count, inputs, outputs, height, width, bias, channels_last, chunk) -> None:
    torch.manual_seed(0)
    direct = conv(inputs, outputs, bias=bias)
    if direct.bias is not None:
        nn.init.normal_(direct.bias)
    x = torch.randn(count, inputs, height, width)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "_CHUNK_BYTES", chunk)
        torch.testing.assert_close(WinogradConv(direct)(x), direct(x), rtol=1e-5, atol=1e-5)


def test_in_bfloat16_it_errs_at_most_three_times_as_much() -> None:
    torch.manual_seed(0)
    exact = conv(256, 256)
    x = torch.relu(torch.randn(1, 256, 30, 30)).bfloat16()
    direct = conv(256, 256).bfloat16()
    direct.load_state_dict(exact.state_dict())
    with torch.inference_mode():
        truth = exact(x.float())
        errors = [(layer(x).float() - truth).norm() / truth.norm() for layer in (direct, WinogradConv(direct))]
    assert 0 < errors[0] < 0.005
    assert errors[1] < 3 * errors[0]


def test_only_wide_plain_3x3_convolutions_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "LEAST_PAIRS", 32)
    wide, narrow, strided, dilated = conv(8, 4), conv(4, 4), conv(8, 8, stride=2), conv(8, 8, dilation=2)
    small, valid, grouped = conv(8, 8, 1), conv(8, 8, padding=0), nn.Conv2d(8, 8, 3, padding=1, groups=2)
    mirrored = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
    layers = nn.Sequential(wide, narrow, strided, dilated, small, valid, grouped, mirrored)
    use_winograd(layers)
    assert [isinstance(layer, WinogradConv) for layer in layers] == [True] + [False] * 7


@pytest.mark.parametrize("unit", [False, True])
def test_the_runtime_takes_it_in_bfloat16_on_a_cpu_without_a_matrix_unit(
    unit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "LEAST_PAIRS", 16 * 16)
    monkeypatch.setattr(resources, "has_matrix_unit", lambda: unit)
    torch.manual_seed(0)
    network = build_network("unet", channels=1, classes=3, options={"widths": (8, 16, 32)}).eval()
    network.set_normalisation([128], [74])
    x = np.random.default_rng(0).integers(0, 256, (2, 1, 37, 50), np.uint8)
    logits = {}
    for precision in ("float32", "bfloat16"):
        runtime = TorchRuntime(network, device="cpu", precision=precision)
        taken = [layer for layer in runtime._network.modules() if isinstance(layer, WinogradConv)]
        assert bool(taken) == (precision == "bfloat16" and not unit)
        logits[precision] = runtime.run(x, "logits")
    scale = np.abs(logits["float32"]).max()
    assert np.abs(logits["float32"] - logits["bfloat16"]).max() < 0.1 * scale
    assert np.corrcoef(logits["float32"].ravel(), logits["bfloat16"].ravel())[0, 1] > 0.999
