"""The depthwise convolution against torch's own, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.networks import depthwise
from keepmap.networks.layers import DepthwiseConv

SHAPES = [(3, 2), (5, 2), (5, 1), (7, 1), (7, 2), (3, 1)]


def gradients(of: Tensor, layer: DepthwiseConv, x: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(of, (x, layer.weight), torch.randn(of.shape).to(of.dtype))


@pytest.mark.parametrize(("kernel", "stride"), SHAPES)
@pytest.mark.parametrize("autocast", [False, True])
def test_values_are_torchs_and_gradients_those_of_float64(kernel: int, stride: int, autocast: bool) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(6, kernel, stride=stride, padding=kernel // 2)
    x = torch.randn(2, 6, 12, 14).bfloat16().requires_grad_()
    if not autocast:
        layer = layer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, F.conv2d(x, layer.weight.bfloat16(), None, stride, kernel // 2, 1, 6))
    exact = DepthwiseConv(6, kernel, stride=stride, padding=kernel // 2).double()
    exact.load_state_dict(layer.state_dict())
    x64 = x.detach().double().requires_grad_()
    for found, true in zip(gradients(y, layer, x), gradients(exact(x64), exact, x64), strict=True):
        assert float((found.double() - true).abs().max()) < 0.03 * float(true.abs().max())


def test_only_slow_gradients_take_the_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(depthwise._Depthwise, "apply", lambda x, *rest: taken.append(rest) or x)
    layer = DepthwiseConv(4, 5, stride=1, padding=2)
    layer(torch.zeros(1, 4, 8, 8))
    half = layer.bfloat16()
    with torch.no_grad():
        half(torch.zeros(1, 4, 8, 8).bfloat16())
    DepthwiseConv(4, 3, stride=1, padding=1).bfloat16()(torch.zeros(1, 4, 8, 8).bfloat16())
    assert taken == []
    half(torch.zeros(1, 4, 8, 8).bfloat16())
    assert len(taken) == 1


def test_larger_kernels_are_made_of_parts_of_three_taps() -> None:
    assert [depthwise._starts(taps) for taps in (4, 5, 6, 7, 9)] == [[0, 1], [0, 2], [0, 3], [0, 3, 4], [0, 3, 6]]
