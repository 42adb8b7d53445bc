"""The residual encoders against the same arithmetic in plain functions, under the names of published weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.errors import OptionError
from keepmap.networks.encoders import build_encoder
from keepmap.networks.resnet import build_resnet

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
}
"""Of the published networks without their classifier."""


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.batch_norm(x, *(state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")))


def block(state: dict[str, Tensor], name: str, x: Tensor, stride: int, dilation: int = 1) -> Tensor:
    deep = f"{name}.conv3.weight" in state
    strides = (1, stride, 1) if deep else (stride, 1)
    y = x
    for index, step in enumerate(strides, start=1):
        weight = state[f"{name}.conv{index}.weight"]
        padding = dilation * (weight.shape[-1] // 2)
        y = norm(state, f"{name}.bn{index}", F.conv2d(y, weight, stride=step, padding=padding, dilation=dilation))
        y = F.relu(y) if index < len(strides) else y
    if f"{name}.downsample.0.weight" in state:
        x = norm(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride))
    return F.relu(x + y)


def plain_resnet(state: dict[str, Tensor], x: Tensor, depths: tuple[int, ...]) -> list[Tensor]:
    features = [F.relu(norm(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)))]
    x = F.max_pool2d(features[0], 3, 2, 1)
    for stage, depth in enumerate(depths, start=1):
        for index in range(depth):
            x = block(state, f"layer{stage}.{index}", x, 2 if stage > 1 and index == 0 else 1)
        features.append(x)
    return features


@pytest.mark.parametrize("name", DEPTHS)
def test_equals_plain_functions_on_the_published_names(name: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(name, 4)
    encoder(torch.randn(2, 4, 64, 64))
    encoder.eval()
    x = torch.randn(1, 4, 64, 96)
    with torch.inference_mode():
        found, expected = encoder(x), plain_resnet(encoder.state_dict(), x, DEPTHS[name])
    assert tuple(feature.shape[1] for feature in found) == encoder.widths
    assert [x.shape[3] // feature.shape[3] for feature in found] == list(encoder.strides)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


@pytest.mark.parametrize(
    ("dilate", "strides", "dilations"),
    [
        ((False, True, True), (2, 4, 8, 8, 8), ((1, 1), (1, 1), (1, 2), (2, 4))),
        ((False, False, True), (2, 4, 8, 16, 16), ((1, 1), (1, 1), (1, 1), (1, 2))),
    ],
)
def test_dilation_replaces_the_stride_as_torchvision_does(
    dilate: tuple[bool, bool, bool], strides: tuple[int, ...], dilations: tuple[tuple[int, int], ...]
) -> None:
    """The first block of a dilated stage has the dilation of the stage before; weights and names stay the same."""
    torch.manual_seed(0)
    encoder = build_resnet("resnet50", 2, width=4, dilate=dilate).eval()
    assert encoder.strides == strides
    assert set(encoder.state_dict()) == set(build_resnet("resnet50", 2, width=4).state_dict())
    state, x = encoder.state_dict(), torch.randn(1, 2, 64, 96)
    with torch.inference_mode():
        found = encoder(x)
        y = F.max_pool2d(found[0], 3, 2, 1)
        for stage, (first, rest) in enumerate(dilations, start=1):
            for index in range(DEPTHS["resnet50"][stage - 1]):
                step = strides[stage] // strides[stage - 1] if index == 0 and stage > 1 else 1
                y = block(state, f"layer{stage}.{index}", y, step, rest if index else first)
            assert torch.allclose(found[stage], y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))
            assert x.shape[3] // y.shape[3] == strides[stage]


def test_a_resnet_of_basic_blocks_is_not_dilated() -> None:
    with pytest.raises(OptionError, match="resnet50 or deeper"):
        build_resnet("resnet34", 3, dilate=(False, False, True))


@pytest.mark.parametrize("name", DEPTHS)
def test_has_the_published_parameters_and_no_classifier(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, 3)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == PARAMETERS[name]
    assert not any(key.startswith("fc") for key in encoder.state_dict())
