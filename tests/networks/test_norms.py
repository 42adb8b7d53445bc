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
@given(channels=st.integers(1, 40), count=st.sampled_from([None, 0]), momentum=st.sampled_from([0.0, 0.3]))
def test_equals_torchs_in_float64(channels: int, count: int | None, momentum: float) -> None:
    layer = BatchNorm(channels, momentum=momentum)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.normal_(layer.bias)
    exact = NORM[2](channels, momentum=momentum).double()
    exact.load_state_dict(layer.state_dict())
    if count is None:
        layer.num_batches_tracked = exact.num_batches_tracked = None
    x = drawn(channels, dtype=torch.float32)
    gradient = torch.randn(x.shape) + 1
    pairs = zip(trained(layer, x, gradient), trained(exact, x.double(), gradient.double()), strict=True)
    for found, true in pairs:
        assert float((found - true).abs().max()) <= 1e-5 * max(1.0, float(true.abs().max()))


@pytest.mark.parametrize("mean", [0, 1, 30])
@pytest.mark.parametrize("channels", [3, 8, 24])
def test_is_as_exact_as_torchs_own_in_bfloat16(channels: int, mean: float) -> None:
    torch.manual_seed(0)
    x = (torch.randn(4, channels, 16, 16) + mean).bfloat16().contiguous(memory_format=LAST)
    gradient = (torch.randn(x.shape) + 0.3 * (x - mean) + 0.2).bfloat16().contiguous(memory_format=LAST)
    ours, torchs = (trained(kind(channels), x, gradient) for kind in (BatchNorm, NORM[2]))
    exact = trained(NORM[2](channels).double(), x.double(), gradient.double())
    for found, other, true in zip(ours, torchs, exact, strict=True):
        assert float((found - true).norm()) <= 1.1 * float((other - true).norm()) + 1e-6 * float(true.norm())
    by_channel = (ours[1] - exact[1]).mean((0, 2, 3)).abs() / exact[1].std()
    assert float(by_channel.max()) < 5e-4


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


def test_what_is_unusual_is_left_to_torch() -> None:
    x = drawn(8, dtype=torch.float32)
    with pytest.raises(RuntimeError, match="12"):
        BatchNorm(12)(x)
    with pytest.raises(ValueError, match="4D"):
        BatchNorm(8)(x[0])
    plain = BatchNorm(8, affine=False)
    plain(x.requires_grad_()).sum().backward()
    fixed = BatchNorm(8)
    fixed.track_running_stats = False
    fixed(x)
    assert fixed.num_batches_tracked == 0 and torch.equal(fixed.running_mean, torch.zeros(8))
    assert BatchNorm(8)(x[:0]).shape == (0, 8, 8, 10)
