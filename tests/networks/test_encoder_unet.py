"""What the U-Net over an encoder has beside the contract of all networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from keepmap.errors import OptionError
from keepmap.networks.catalogue import build_network
from keepmap.networks.encoder_unet import EncoderUNet, EncoderUNetConfig
from keepmap.networks.layers import Upsample


def meta(**options: object) -> EncoderUNet:
    with torch.device("meta"):
        return EncoderUNet(EncoderUNetConfig(3, 2, **options))  # type: ignore[arg-type]


def test_reaches_where_upsampling_repeats_pixels_are_those_measured_elsewhere() -> None:
    assert meta(encoder="resnet34", stem_skip=False, up="transposed").reach == (543 - 1, 512 - 1)
    assert meta(encoder="efficientnet_lite0", stem_skip=False, up="transposed").reach == (488 - 1, 519 - 1)


def test_the_stem_skip_is_a_narrow_double_convolution_on_the_input() -> None:
    with_skip, without = meta(), meta(stem_skip=False)
    assert without.stem is None
    assert [tuple(layer.shape[:2]) for layer in with_skip.stem.parameters() if layer.ndim == 4] == [(8, 3), (8, 8)]
    assert with_skip.merge[-1][0].conv.in_channels == without.merge[-1][0].conv.in_channels + 8


def test_stride_1_detail_reaches_the_logits_only_through_the_stem_skip() -> None:
    torch.manual_seed(0)
    network = EncoderUNet(EncoderUNetConfig(1, 2, widths=(4, 4, 4, 4, 4))).eval()
    torch.nn.init.zeros_(network.encoder.conv1.weight)
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        assert not torch.equal(network(x), network(torch.zeros_like(x)))


@pytest.mark.parametrize("up", ["bilinear", "nearest", "transposed"])
def test_up_decides_the_upsampling(up: str) -> None:
    layers = [isinstance(module, Upsample) for module in meta(up=up).modules()]
    assert sum(layers) == (0 if up == "transposed" else 5)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 35)])
def test_match_resize_repeats_pixels_until_the_skip_is_filled(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    options = {"widths": (4, 4, 4, 4, 4), "up": "nearest", "narrow": False, "match": "resize", "stem_skip": False}
    network = EncoderUNet(EncoderUNetConfig(2, 3, **options)).eval()  # type: ignore[arg-type]
    x = torch.randn(1, 2, *size)
    with torch.inference_mode():
        skips = network.encoder(x)
        extents = [size, *(skip.shape[2:] for skip in skips)]
        y = skips.pop()
        for level, merge in enumerate(network.merge):
            y = F.interpolate(y, extents[4 - level], mode="nearest")
            y = merge(torch.cat([skips.pop(), y], 1) if skips else y)
        assert torch.allclose(network(x), network.head(y), atol=1e-6)
    assert network.local


@pytest.mark.parametrize(
    "options",
    [
        {"match": "resize"},
        {"match": "resize", "up": "nearest", "encoder": "vgg11"},
        {"match": "resize", "up": "nearest", "encoder": "efficientnet_lite0"},
        {"narrow": False, "up": "transposed"},
        {"head_kernel": 5},
    ],
)
def test_fields_that_do_not_go_together_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        build_network("encoder_unet", channels=3, classes=2, options=options)


@pytest.mark.parametrize("widths", [(8, 8, 8, 8, 8, 8), (8, 8, 8, 8, 0), ()])
def test_wrong_widths_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="5 positive numbers"):
        meta(widths=widths)
