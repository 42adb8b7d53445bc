"""The VGG encoders against the same arithmetic in plain functions, under the names of published weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.networks.encoders import build_encoder
from keepmap.networks.vgg import VGG

PLANS = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
"""Configurations A, B, D and E in the usual notation; M is a pooling."""
PARAMETERS = {
    "vgg11": 9_220_480, "vgg11_bn": 9_225_984, "vgg13": 9_404_992, "vgg13_bn": 9_410_880,
    "vgg16": 14_714_688, "vgg16_bn": 14_723_136, "vgg19": 20_024_384, "vgg19_bn": 20_035_392,
}  # fmt: skip
"""Of the published networks without their classifier of 123,642,856."""
CONVOLUTIONS = {
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
    "vgg16_bn": [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40],
}
"""Where the published names have the convolutions of VGG-16."""


def plain_vgg(state: dict[str, Tensor], x: Tensor, plan: str, normed: bool) -> list[Tensor]:
    features, index = [], 0
    for entry in plan.split():
        if entry == "M":
            x = F.max_pool2d(x, 2, 2)
            features.append(x)
            index += 1
            continue
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)
        if normed:
            names = (f"features.{index + 1}.{key}" for key in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, *(state[name] for name in names))
        x = F.relu(x)
        index += 3 if normed else 2
    return features


@pytest.mark.parametrize("name", PARAMETERS)
def test_equals_plain_functions_on_the_published_names(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, 4)
    encoder(torch.randn(2, 4, 32, 32))
    encoder.eval()
    x = torch.randn(1, 4, 32, 64)
    plain, _, normed = name.partition("_")
    with torch.inference_mode():
        found, expected = encoder(x), plain_vgg(encoder.state_dict(), x, PLANS[plain], bool(normed))
    assert tuple(feature.shape[1] for feature in found) == encoder.widths == (64, 128, 256, 512, 512)
    assert [x.shape[3] // feature.shape[3] for feature in found] == list(encoder.strides)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize("name", PARAMETERS)
def test_has_the_published_parameters_and_no_classifier(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, 3)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == PARAMETERS[name]
    assert all(key.startswith("features.") for key in encoder.state_dict())
    weights = [key for key, value in encoder.state_dict().items() if value.ndim == 4]
    if name in CONVOLUTIONS:
        assert weights == [f"features.{index}.weight" for index in CONVOLUTIONS[name]]


@pytest.mark.parametrize(("ceil", "extents"), [(True, [17, 9, 5, 3, 2]), (False, [16, 8, 4, 2, 1])])
def test_pooling_rounds_as_told(ceil: bool, extents: list[int]) -> None:
    encoder = VGG(1, (1, 1, 1, 1, 1), widths=(1, 2, 3, 4, 5), ceil=ceil)
    assert [feature.shape[1:] for feature in encoder(torch.zeros(1, 1, 33, 33))] == [
        (width, extent, extent) for width, extent in zip((1, 2, 3, 4, 5), extents, strict=True)
    ]
