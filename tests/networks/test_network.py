"""The size rule and the normalisation that every network shares."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from keepmap.networks.network import Network
from keepmap.networks.unet import UNetConfig


class Echo(Network):
    """Returns what its core is given, and remembers its extent."""

    def __init__(self, channels: int = 3, stride: int = 8) -> None:
        super().__init__(UNetConfig(channels, channels), stride)
        self.head = nn.Identity()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: Tensor = torch.zeros(0)

    def core(self, x: Tensor) -> Tensor:
        self.seen = x
        return self.head(x)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), stride=st.sampled_from([1, 2, 8, 16]))
def test_the_core_sees_multiples_of_the_stride_and_zeros_at_the_end(height: int, width: int, stride: int) -> None:
    network, x = Echo(2, stride), torch.rand(1, 2, height, width) + 1
    assert torch.equal(network(x), x)
    for found, extent in zip(network.seen.shape[2:], (height, width), strict=True):
        assert found % stride == 0
        assert found >= 2 * stride
        assert found < extent + stride or found == 2 * stride
    assert network.seen.count_nonzero() == x.numel()
    assert tuple(network.seen.shape[2:]) == network.padded((height, width))


def test_normalisation_is_the_identity_until_it_is_set() -> None:
    network, x = Echo(), torch.rand(1, 3, 16, 16) * 255
    assert torch.equal(network(x), x)
    network.set_normalisation([1.0, 2.0, 3.0], [2.0, 4.0, 0.0])
    expected = (x - torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)) / torch.tensor([2.0, 4.0, 1.0]).view(1, 3, 1, 1)
    assert torch.equal(network(x), expected)


def test_padding_is_zero_after_normalisation_not_before() -> None:
    network = Echo()
    network.set_normalisation([10.0] * 3, [2.0] * 3)
    network(torch.full((1, 3, 9, 9), 20.0))
    assert network.seen[0, 0, 0, 0] == 5
    assert not network.seen[:, :, 9:].any()


def test_a_network_may_pad_before_the_image_and_crop_as_much() -> None:
    class Framed(Echo):
        """Three rows before the image, five after."""

        pad_before = crop_before = 3

        def padded(self, size: Sequence[int]) -> tuple[int, ...]:
            return tuple(extent + 8 for extent in size)

    network, x = Framed(2), torch.rand(1, 2, 7, 4) + 1
    assert torch.equal(network(x), x)
    assert network.seen.shape == (1, 2, 15, 12)
    assert torch.equal(network.seen[:, :, 3:10, 3:7], x)
    assert network.seen.count_nonzero() == x.numel()
    assert torch.equal(network.prepare(x), network.seen)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.0], [1.0]), ([0.0] * 3, [-1.0] * 3), ([float("nan")] * 3, [1.0] * 3), ([0.0] * 3, [1.0] * 4)]
)
def test_impossible_normalisation_is_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="means and deviations"):
        Echo().set_normalisation(mean, std)


def test_a_cast_leaves_the_normalisation_in_float32() -> None:
    network = Echo()
    network.set_normalisation([30001.0] * 3, [513.0] * 3)
    for dtype in (torch.bfloat16, torch.float64, torch.float16):
        cast = copy.deepcopy(network).to(dtype)
        assert cast.dtype == dtype
        assert cast.mean.dtype == cast.std.dtype == torch.float32
        assert torch.equal(cast.mean, network.mean)
        assert cast(torch.full((1, 3, 16, 16), 30514.0)).eq(1).all()
        assert set(cast.state_dict()) == set(network.state_dict())
    assert network.to("meta").mean.is_meta


def test_wrong_shapes_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), not \(1, 4, 8, 8\): give it images of 3 channels"):
        Echo()(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"not \(3, 8, 8\)"):
        Echo()(torch.zeros(3, 8, 8))


def test_padding_keeps_channels_last() -> None:
    network = Echo()
    network(torch.rand(2, 3, 9, 13).contiguous(memory_format=torch.channels_last))
    assert network.seen.is_contiguous(memory_format=torch.channels_last)
