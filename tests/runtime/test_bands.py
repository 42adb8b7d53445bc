"""Bands against the whole image: equal to rounding for every network that is local, whatever the size and the band."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from keepmap.networks.catalogue import build_network
from keepmap.networks.layers import ACTIVATION, CONV
from keepmap.networks.network import Network
from keepmap.networks.reach import CONVS
from keepmap.networks.unet import UNetConfig
from keepmap.runtime import rows
from keepmap.runtime.bands import BandStream
from keepmap.runtime.winograd import WinogradConv

NETWORKS: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"widths": (4, 8, 8, 8, 8)}),
    ("unet", {"widths": (4, 8, 8), "up": "bilinear", "norm": "none"}),
    ("unet", {"widths": (4, 8, 8), "up": "nearest", "act": "silu"}),
    ("unet", {"widths": (4, 8), "up_kernel": 4, "up_padding": 1}),
    ("unet", {"widths": (4, 8), "up_kernel": 3, "up_padding": 1, "up_output_padding": 1}),
    ("unet", {"widths": (4, 8, 8), "up_kernel": 6, "up_padding": 2}),
    ("unet", {"widths": (4, 8, 8), "attention": True}),
    ("unet", {"widths": (4, 8, 8), "block": "residual", "down": "stride"}),
    ("encoder_unet", {"encoder": "resnet18"}),
    ("encoder_unet", {"encoder": "efficientnet_lite0"}),
    ("encoder_unet", {"encoder": "vgg11", "up": "bilinear"}),
    ("fcn", {"encoder": "resnet18"}),
    ("fcn_vgg16", {"widths": (4, 4, 4, 4, 4), "head_width": 8}),
    ("fcn_vgg16", {"widths": (4, 4, 4, 4, 4), "head_width": 8, "skips": 0}),
    ("fcn_dilated", {"width": 4}),
]


def randomised(name: str, options: dict[str, Any]) -> Network:
    """In eval and float64, with statistics, biases and weights that hide nothing."""
    torch.manual_seed(0)
    network = build_network(name, channels=3, classes=3, options=options).double().eval()
    network.set_normalisation([100.0, 120.0, 90.0], [50.0, 60.0, 70.0])
    for module in network.modules():
        mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
        if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
            nn.init.uniform_(mean, -0.2, 0.2)
            nn.init.uniform_(variance, 0.5, 1.5)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def in_bands(network: Network, x: torch.Tensor, band: int) -> tuple[torch.Tensor, int]:
    """The logits of x by bands, and the most bytes that were held between two of them."""
    stream = BandStream(network, (x.shape[2], x.shape[3]), band)
    parts, held = [], 0
    for row in range(0, x.shape[2], band):
        parts += list(stream.push(x[:, :, row : row + band]))
        held = max(held, stream.held())
    return torch.cat(parts, 2), held


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@given(
    height=st.integers(1, 200), width=st.integers(1, 60), strides=st.integers(1, 3),
    large=st.sampled_from([1, 4096, 1 << 30]),
)
@settings(max_examples=6, deadline=None)
def test_bands_equal_the_whole_however_much_of_them_is_copied(
    name: str, options: dict[str, Any], height: int, width: int, strides: int, large: int
) -> None:
    network = randomised(name, options)
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height)) * 255
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_LARGE", large)
        whole = network(x)
        bands, _ = in_bands(network, x, strides * network.stride)
    assert bands.shape == whole.shape
    assert float((bands - whole).abs().max()) <= 1e-9 * float(whole.abs().max())


def test_what_is_held_does_not_grow_with_the_image() -> None:
    network = randomised("unet", {"widths": (4, 8, 8)})
    with torch.inference_mode():
        held = [in_bands(network, torch.rand(1, 3, height, 40), 16)[1] for height in (200, 400, 1600)]
    assert held[0] == held[1] == held[2]


def test_the_last_band_does_not_release_everything_at_once() -> None:
    network = randomised("encoder_unet", {"encoder": "resnet18"})
    stream = BandStream(network, (640, 32), 32)
    with torch.inference_mode():
        parts = [p for row in range(0, 640, 32) for p in stream.push(torch.rand(1, 3, 32, 32))]
    assert sum(part.shape[2] for part in parts) == 640
    assert max(part.shape[2] for part in parts) <= 32


def test_winograd_convolutions_are_streamed_too() -> None:
    network = randomised("unet", {"widths": (4, 8, 8)})
    x = torch.rand(1, 3, 90, 31) * 255
    with torch.inference_mode():
        whole = network(x)
        for name, layer in list(network.named_modules()):
            if isinstance(layer, CONVS) and layer.kernel_size == (3, 3):
                network.set_submodule(name, WinogradConv(layer))
        bands, _ = in_bands(network, x, 8)
    assert float((bands - whole).abs().max()) <= 1e-4 * float(whole.abs().max())


class Overwriting(Network):
    """An activation overwrites what the head has read."""

    def __init__(self) -> None:
        super().__init__(UNetConfig(channels=3, classes=2), stride=1)
        self.head, self.act = CONV[2](3, 2, 3, padding=1), ACTIVATION["relu"](inplace=True)

    def core(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x) + self.head(self.act(x))
        return logits


def test_a_layer_that_overwrites_what_others_read_is_named() -> None:
    with pytest.raises(TypeError, match="act overwrites what another layer reads"):
        BandStream(Overwriting().eval(), (50, 50), 16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"widths": (4, 8), "norm": "instance"}, "UNet sees the whole image at once"),
        ("unet", {"widths": (4, 8), "context": True}, "UNet sees the whole image at once"),
        ("unet2015", {"widths": (4, 8)}, "UNet2015 mirrors the border"),
        ("unet", {"widths": (4, 8), "match": "crop"}, "UNet mirrors the border"),
        ("unet", {"widths": (4, 8), "match": "pad"}, r"join \(Join\) cannot be computed in bands"),
    ],
)
def test_what_cannot_be_streamed_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        BandStream(randomised(name, options), (50, 50), 16)
