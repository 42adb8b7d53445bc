"""A first convolution on any number of channels: grey stays grey, whatever it is copied to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.weights.channels import adapted


@settings(deadline=None, max_examples=30)
@given(channels=st.integers(1, 20), seed=st.integers(0, 99))
def test_channels_that_are_alike_give_what_the_grey_image_gave(channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)
    grey = torch.randn(1, 1, 9, 7, generator=generator, dtype=torch.float64)
    kernel = adapted(weight, channels)
    assert kernel.shape == (4, channels, 3, 3)
    assert kernel.is_contiguous()
    found = F.conv2d(grey.repeat(1, channels, 1, 1), kernel)
    assert torch.allclose(found, F.conv2d(grey.repeat(1, 3, 1, 1), weight), rtol=1e-12, atol=1e-12)


def test_each_channel_has_the_filter_of_its_colour() -> None:
    red, green, blue = torch.tensor([[6.0, 12.0, 24.0]]).T
    weight = torch.stack([red, green, blue], 1)[..., None, None]
    for channels, expected in (
        (1, [42]),
        (2, [21, 21]),
        (3, [6, 12, 24]),
        (4, [3, 12, 24, 3]),
        (5, [3, 6, 24, 3, 6]),
        (7, [2, 6, 12, 2, 6, 12, 2]),
    ):
        assert adapted(weight, channels).flatten().tolist() == expected


def test_three_channels_are_left_as_they_are() -> None:
    weight = torch.randn(4, 3, 7, 7)
    assert adapted(weight, 3) is weight


def test_a_kernel_of_another_number_of_colours_is_refused() -> None:
    with pytest.raises(ValueError, match="4 channels"):
        adapted(torch.randn(4, 4, 3, 3), 3)
