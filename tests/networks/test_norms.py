"""Batch normalisation against torch's own in float64: values, statistics and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from keepmap.networks import norms
from keepmap.networks.layers import DoubleConv
from keepmap.networks.norms import NORM, BatchNorm

LAST = torch.channels_last


def drawn(channels: int, *, dtype: torch.dtype, extent: tuple[int, int] = (8, 10)) -> Tensor:
    torch.manual_seed(channels)
    x = torch.randn(2, channels, *extent) * (1 + torch.arange(channels)).view(-1, 1, 1) + 3
    return x.to(dtype).contiguous(memory_format=LAST)


def trained(layer: nn.Module, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """What a layer makes of x, the gradients of x and of its parameters, and its buffers, in float64."""
    x = x.detach().requires_grad_()
    y = layer(x)
    found = torch.autograd.grad(y, (x, *layer.parameters()), gradient)
    return [each.double() for each in (y.detach(), *found, *layer.buffers())]


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    count=st.sampled_from([None, 0]),
)
def test_equals_torchs_in_float64(channels: int, dtype: torch.dtype, count: int | None) -> None:
    layer = BatchNorm(channels, momentum=0.3)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.normal_(layer.bias)
    if count is None:
        layer.num_batches_tracked = None
    exact = NORM[2](channels, momentum=0.3).double()
    exact.load_state_dict(layer.state_dict(), strict=False)
    if count is None:
        exact.num_batches_tracked = None
    x = drawn(channels, dtype=dtype)
    gradient = torch.randn(x.shape).to(dtype)
    bound = 1e-5 if dtype == torch.float32 else 0.02
    pairs = zip(trained(layer, x, gradient), trained(exact, x.double(), gradient.double()), strict=True)
    for found, true in pairs:
        assert float((found - true).abs().max()) <= bound * max(1.0, float(true.abs().max()))


def test_gradient_keeps_the_layout() -> None:
    x = drawn(6, dtype=torch.float32).requires_grad_()
    (found,) = torch.autograd.grad(BatchNorm(6)(x).square().sum(), x)
    assert found.is_contiguous(memory_format=LAST) and found.shape == x.shape


@pytest.mark.parametrize("channels", [8, 16, 24])
def test_only_slow_gradients_take_the_detour(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(norms._Normalised, "apply", lambda x, *rest: taken.append(rest) or x)
    layer = BatchNorm(channels)
    layer(drawn(channels, dtype=torch.float32).contiguous())
    layer(drawn(channels, dtype=torch.float32, extent=(3, 5))[:1])
    with torch.no_grad():
        layer(drawn(channels, dtype=torch.float32))
    layer.eval()(drawn(channels, dtype=torch.float32))
    assert taken == []
    layer.train()(drawn(channels, dtype=torch.float32))
    assert len(taken) == (channels % 16 > 0)


def test_double_convolution_normalises_with_it() -> None:
    kinds = [type(layer) for layer in DoubleConv(3, 8).modules()]
    assert kinds.count(BatchNorm) == 2
