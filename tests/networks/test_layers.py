"""The shared layers against plain torch functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.errors import OptionError
from keepmap.networks.layers import (
    ConvStack,
    Crop,
    DoubleConv,
    Join,
    Scale,
    Upsample,
    activation,
    begin_bilinear,
    beside,
    bilinear_weight,
    conv,
    conv_norm_act,
    dense_bilinear,
    pad,
    pool,
    score,
    transposed,
    upsampling,
    widened,
)
from keepmap.networks.norms import normalisation


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


@pytest.mark.parametrize("factor", [2, 3])
def test_nearest_upsampling_repeats_pixels(factor: int) -> None:
    x = torch.randn(2, 3, 5, 7)
    want = x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    assert torch.equal(Upsample(factor, nearest=True)(x), want)


def test_aligned_upsampling_keeps_the_corners() -> None:
    x = torch.randn(1, 2, 5, 7)
    y = Upsample(2, aligned=True)(x)
    assert torch.allclose(y, F.interpolate(x, size=(10, 14), mode="bilinear", align_corners=True), atol=1e-6)
    assert torch.allclose(y[:, :, ::9, ::13], x[:, :, ::4, ::6], atol=1e-6)


@pytest.mark.parametrize(("kernel", "padding", "output_padding"), [(4, 1, 0), (3, 1, 1), (6, 2, 0)])
def test_a_layer_that_begins_bilinear_leaves_no_pattern_on_a_constant(
    kernel: int, padding: int, output_padding: int
) -> None:
    torch.manual_seed(0)
    sizes = {"kernel": kernel, "padding": padding, "output_padding": output_padding}
    constant = torch.ones(1, 8, 9, 9)
    with torch.no_grad():
        smooth = begin_bilinear(transposed(8, 5, **sizes))(constant)[..., 4:-4, 4:-4]
        rough = transposed(8, 5, **sizes)(constant)[..., 4:-4, 4:-4]
    assert float((smooth - smooth[..., :1, :1]).abs().max()) < 1e-5 < 0.1 < float(rough.std((2, 3)).max())
    assert smooth.abs().max() > 0.1


def test_a_layer_that_begins_bilinear_is_a_projection_and_an_interpolation() -> None:
    torch.manual_seed(0)
    layer, x = begin_bilinear(transposed(6, 4, kernel=4, padding=1)), torch.randn(1, 6, 7, 8)
    mixed = layer.weight[:, :, 1, 1].T / 0.75**2
    want = F.interpolate(torch.einsum("oi,nihw->nohw", mixed, x), scale_factor=2, mode="bilinear")
    assert torch.allclose(layer(x)[..., 1:-1, 1:-1], want[..., 1:-1, 1:-1], atol=1e-5)


def test_two_taps_cannot_interpolate() -> None:
    with pytest.raises(OptionError, match="kernel 4 and padding 1"):
        begin_bilinear(transposed(4, 4))


@pytest.mark.parametrize("up", ["bilinear", "nearest", "transposed"])
def test_upsampling_by_name_doubles_the_extent(up: str) -> None:
    assert upsampling(up, 6, 4)(torch.zeros(1, 6, 3, 5)).shape == (1, 4, 6, 10)


def test_norms_of_the_input_are_torchs() -> None:
    x = torch.randn(3, 64, 9, 7) * 4 + 2
    assert torch.allclose(normalisation("instance", 64)(x), F.instance_norm(x), atol=1e-4)
    assert torch.allclose(normalisation("group", 64)(x), F.group_norm(x, 32), atol=1e-5)


@pytest.mark.parametrize("norm", ["instance", "group"])
@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0])
def test_norms_of_the_input_are_as_precise_in_channels_last(norm: Any, mean: float) -> None:
    """Deviations of 1 around a large mean: torch's own kernel for this layout is wrong in the first digit."""
    layer = normalisation(norm, 32)
    x = torch.randn(1, 32, 64, 64) + mean
    laid = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        found = layer(laid)
        want = layer.double()(x.double())
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert float((found - want).abs().max()) < 1e-6 * (1 + mean)


@settings(max_examples=60, deadline=None)
@given(channels=st.integers(1, 700))
def test_groups_divide_the_channels_and_hold_two_where_they_can(channels: int) -> None:
    groups = normalisation("group", channels).num_groups
    assert channels % groups == 0
    assert groups <= 32
    assert channels // groups >= 2 or channels == 1


@pytest.mark.parametrize(
    ("name", "plain"),
    [("relu", F.relu), ("relu6", F.relu6), ("leaky_relu", F.leaky_relu), ("gelu", F.gelu), ("silu", F.silu)],
)
def test_activations_by_name(name: str, plain: Any) -> None:
    x = torch.randn(50) * 5
    assert torch.allclose(activation(name)(x.clone()), plain(x), atol=1e-6)


def test_a_stack_has_as_many_convolutions_as_it_is_told() -> None:
    stack = ConvStack(3, 8, middle=5, count=3, stride=2, norm="none")
    assert [tuple(unit.conv.weight.shape[:2]) for unit in stack] == [(5, 3), (5, 5), (8, 5)]
    assert [unit.conv.stride[0] for unit in stack] == [2, 1, 1]
    assert ConvStack(3, 8, count=1)(torch.zeros(1, 3, 4, 4)).shape == (1, 8, 4, 4)


@settings(max_examples=60, deadline=None)
@given(small=st.tuples(st.integers(1, 6), st.integers(1, 6)), extra=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_a_join_pads_crops_or_resizes_to_what_it_joins(small: tuple[int, int], extra: tuple[int, int]) -> None:
    (height, width), (below, right) = small, extra
    skip, x = torch.randn(1, 2, height + below, width + right), torch.randn(1, 3, height, width)
    top, left = below // 2, right // 2
    padded = Join("pad")(skip, x)
    assert torch.equal(padded[:, :2], skip)
    assert torch.equal(padded[:, 2:, top : top + height, left : left + width], x)
    assert padded[:, 2:].count_nonzero() == x.numel()
    cropped = Join("crop")(skip, x)
    assert torch.equal(cropped[:, :2], skip[:, :, top : top + height, left : left + width])
    assert torch.equal(cropped[:, 2:], x)
    size = tuple(skip.shape[2:])
    assert torch.equal(Join("resize")(skip, x)[:, 2:], F.interpolate(x, size, mode="bilinear"))
    assert torch.equal(Join("resize", nearest=True)(skip, x)[:, 2:], F.interpolate(x, size, mode="nearest"))


@pytest.mark.parametrize("nearest", [False, True])
def test_narrowing_before_enlarging_changes_no_value(nearest: bool) -> None:
    layer = widened(5, 3, nearest=nearest)
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


def test_a_crop_has_the_extent_of_its_pattern() -> None:
    x, like = torch.arange(100.0).view(1, 1, 10, 10), torch.zeros(1, 4, 3, 5)
    assert torch.equal(Crop(2)(x, like), x[:, :, 2:5, 2:7])


def test_a_scale_is_not_learnt() -> None:
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(Scale(0.01)(x), x * 0.01)
    assert not list(Scale(0.01).parameters())


def test_ceil_pooling_keeps_a_last_row_without_its_partner() -> None:
    x = torch.arange(5.0).view(1, 1, 5, 1).expand(1, 1, 5, 2)
    assert pool(ceil=True)(x)[0, 0, :, 0].tolist() == [1, 3, 4]
    assert pool()(x)[0, 0, :, 0].tolist() == [1, 3]


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_dilated_convolution_keeps_the_extent(dilation: int) -> None:
    layer = conv(2, 3, dilation=dilation)
    x = torch.randn(1, 2, 9, 12)
    assert layer(x).shape == (1, 3, 9, 12)
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, padding=dilation, dilation=dilation))


def test_dense_bilinear_interpolates_each_class_on_its_own() -> None:
    x = torch.randn(1, 3, 6, 7)
    with torch.inference_mode():
        got = dense_bilinear(3, 4)(x)
    assert got.shape == (1, 3, 28, 32)
    assert torch.allclose(got[..., 4:-4, 4:-4], Upsample(4)(x)[..., 2:-2, 2:-2], atol=1e-5)
    assert dense_bilinear(2, 2, ndim=3).weight.shape == (2, 2, 4, 4, 4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_values_put_beside_each_other_have_no_gaps(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    values = [torch.randn(2, n, 4, 6).contiguous(memory_format=layout).requires_grad_() for n in (3, 5)]
    arrived: list[torch.Tensor] = []
    twice = [value * 2 for value in values]
    joined = beside(*twice)
    for value in twice:
        value.register_hook(arrived.append)
    weights = torch.randn(joined.shape).contiguous(memory_format=layout)
    (joined * weights).sum().backward()
    assert all(each.is_contiguous(memory_format=layout) for each in arrived) and len(arrived) == 2
    assert torch.equal(joined, torch.cat(twice, 1))
    for value, part in zip(values, weights.split((3, 5), 1), strict=True):
        assert torch.equal(value.grad, 2 * part)
