"""The shared layers against plain torch functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.errors import OptionError
from keepmap.networks.layers import (
    DoubleConv,
    Upsample,
    bilinear_weight,
    conv_norm_act,
    pad,
    pool,
    score,
    transposed,
    widened,
)


@settings(max_examples=40, deadline=None)
@given(
    factor=st.integers(1, 4), kernel=st.integers(0, 9), padding=st.integers(-1, 4), output_padding=st.integers(-1, 4),
    extent=st.integers(2, 9),
)  # fmt: skip
def test_transposed_enlarges_exactly_or_refuses(
    factor: int, kernel: int, padding: int, output_padding: int, extent: int
) -> None:
    sizes = {"factor": factor, "kernel": kernel, "padding": padding, "output_padding": output_padding}
    valid = kernel >= 1 and padding >= 0 and 0 <= output_padding < factor
    if valid and (extent - 1) * factor - 2 * padding + kernel + output_padding == extent * factor:
        layer = transposed(2, 3, **sizes)
        assert layer(torch.zeros(1, 2, extent, extent + 1)).shape == (1, 3, extent * factor, (extent + 1) * factor)
    else:
        with pytest.raises(OptionError, match=f"kernel {kernel}"):
            transposed(2, 3, **sizes)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_upsample_is_linear_interpolation_without_aligned_corners(factor: int) -> None:
    x = torch.randn(2, 3, 5, 7)
    size = (5 * factor, 7 * factor)
    expected = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    assert torch.allclose(Upsample(factor)(x), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 8, 32])
def test_a_bilinear_transposed_convolution_interpolates(factor: int) -> None:
    layer = transposed(1, 1, factor=factor, kernel=2 * factor, padding=factor // 2)
    with torch.no_grad():
        layer.weight.copy_(bilinear_weight(2 * factor, factor).expand_as(layer.weight))
        x = torch.randn(1, 1, 6, 6)
        inner = slice(factor, -factor)
        got = layer(x)[..., inner, inner]
    assert torch.allclose(got, Upsample(factor)(x)[..., inner, inner], atol=1e-5)


def test_narrowing_before_enlarging_changes_no_value() -> None:
    layer = widened(5, 3)
    torch.nn.init.normal_(layer[0].bias)
    x = torch.randn(1, 5, 6, 4)
    assert torch.allclose(layer(x), layer[0](layer[1](x)), atol=1e-5)


def test_conv_norm_act_names_its_layers_and_has_a_bias_only_without_norm() -> None:
    assert list(dict(conv_norm_act(3, 4).named_parameters())) == ["conv.weight", "norm.weight", "norm.bias"]
    assert list(dict(conv_norm_act(3, 4, norm="none").named_parameters())) == ["conv.weight", "conv.bias"]
    assert conv_norm_act(3, 4, act=None)(torch.randn(2, 3, 8, 8)).min() < 0
    assert conv_norm_act(3, 4, act="relu6")(100 * torch.randn(2, 3, 8, 8)).max() <= 6


def test_layers_are_free_of_spatial_rank() -> None:
    x = torch.randn(1, 2, 4, 6, 8)
    assert DoubleConv(2, 5, ndim=3)(x).shape == (1, 5, 4, 6, 8)
    assert pool(ndim=3)(x).shape == (1, 2, 2, 3, 4)
    assert pad(1, 2, ndim=3)(x).shape == (1, 2, 7, 9, 11)
    assert widened(2, 3, ndim=3)(x).shape == (1, 3, 8, 12, 16)
    assert transposed(2, 3, ndim=3)(x).shape == (1, 3, 8, 12, 16)
    assert score(2, 7, ndim=3)(x).shape == (1, 7, 4, 6, 8)
    assert bilinear_weight(4, 2, ndim=3).shape == (4, 4, 4)


def test_he_initialisation_keeps_the_variance() -> None:
    torch.manual_seed(0)
    block = DoubleConv(64, 64, norm="none")
    x = torch.randn(4, 64, 24, 24)
    with torch.inference_mode():
        assert 0.5 < float(block(x)[..., 4:-4, 4:-4].square().mean() / x.square().mean()) < 1.5
        assert 0.7 < float(transposed(64, 64)(x).var()) < 1.4
