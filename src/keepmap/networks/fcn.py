"""Fully convolutional networks over an encoder: FCN-32s, 16s and 8s as one class.

Knows no particular encoder; the networks of the paper, over VGG-16 and with its padding, are another network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.encoders import build_encoder
from keepmap.networks.layers import ACTIVATION, bilinear_weight, conv, conv_norm_act, score, transposed, zero_score
from keepmap.networks.network import CHECKPOINTING
from keepmap.networks.recompute import in_turn, recomputed
from keepmap.networks.resnet import RESNETS
from keepmap.networks.score_network import ScoreNetwork

IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class FCNConfig:
    """What an FCN is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    encoder: str = option("resnet18", "encoder, one of `keepmap models`, or timm:NAME")
    skips: Literal[0, 1, 2] = option(2, "score maps fused into the deepest one: 0 is FCN-32s, 1 FCN-16s, 2 FCN-8s")
    classifier: Literal["new", "kept"] = option(
        "new", "new: two convolutions of head_width channels; kept: the 1000 ImageNet classes of a ResNet, as a 1x1 one"
    )
    head_width: int = option(256, "channels of the two convolutions of a new classifier")
    checkpointing: bool = option(False, CHECKPOINTING)


class FCN(ScoreNetwork):
    """FCN-32s, 16s or 8s: scores at stride 32, 16 and 8 fused by addition, upsampling initialised bilinearly.

    The paper discards the classifying layer of VGG-16 and keeps the fully connected ones before it, as convolutions. A
    ResNet has no other than the classifying one, so either nothing is kept and the head begins anew, or the matrix
    becomes the convolution `head.fc`, followed as in the paper by ReLU and by scores that begin anew. What `head.fc`
    returns is a map of 1000 scores for each place, whose mean is what the classifier says of the whole image.
    The scores of skips begin at zero, so that each network begins as the one with a skip less.
    Source: Long, Shelhamer and Darrell 2015, sections 3.1 and 4.1.
    """

    config: FCNConfig

    def __init__(self, config: FCNConfig) -> None:
        encoder = build_encoder(config.encoder, config.channels, checkpointing=config.checkpointing)
        super().__init__(config, stride=encoder.strides[-1])
        _check(config)
        classes, skips = config.classes, config.skips
        self.encoder = encoder
        self.head = _head(config, encoder.widths[-1])
        self.score = nn.ModuleList(zero_score(inputs, classes) for inputs in encoder.widths[-2::-1][:skips])
        self.lift = nn.ModuleList(_interpolation(classes, 2) for _ in range(skips))
        self.score_stride = encoder.strides[-1 - skips]
        self.up = _interpolation(classes, self.score_stride)

    def coarse(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> the score map (N, K, *T) at stride 32, 16 or 8."""
        features = self.encoder(x)[-1 - self.config.skips :]
        x = recomputed(self, in_turn(self.head), [features.pop()])
        for lift, fused in zip(self.lift, self.score, strict=True):
            x = lift(x) + fused(features.pop())
        return x


def from_classifier(state: Mapping[str, Tensor], *, kept: bool = True) -> dict[str, Tensor]:
    """The weights of a ResNet classifier under the names of FCN, its matrix `fc` (K, C) as a kernel (K, C, 1, 1).

    state: torchvision's names (conv1, bn1, layer1 to layer4, fc).  kept: False leaves `fc` out, for a classifier that
           begins anew. Score and upsampling layers remain to be set.
    Raises ValueError naming a tensor that is missing.
    """
    for name in ("conv1.weight", "layer4.0.conv1.weight", *(("fc.weight", "fc.bias") if kept else ())):
        if name not in state:
            raise ValueError(f"these are not the weights of a ResNet classifier: {name} is missing")
    converted = {f"encoder.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    if kept:
        converted |= {"head.fc.weight": state["fc.weight"][:, :, None, None], "head.fc.bias": state["fc.bias"]}
    return converted


def _check(config: FCNConfig) -> None:
    if config.head_width < 1:
        raise OptionError("head_width of fcn must be positive.", found=str(config.head_width), expected="as in 256")
    if config.classifier == "kept" and config.encoder not in RESNETS:
        raise OptionError(
            "Only the classifier of a ResNet can be kept.", found=config.encoder, expected=", ".join(RESNETS),
            do="choose one of them, or classifier=new; fcn_vgg16 keeps the layers of VGG-16",
        )  # fmt: skip
    if config.classifier == "kept" and config.head_width != FCNConfig.head_width:
        raise OptionError(
            f"A classifier that is kept has {IMAGENET_CLASSES} channels.", found=f"head_width {config.head_width}",
            do="leave head_width out, or choose classifier=new",
        )  # fmt: skip


def _head(config: FCNConfig, inputs: int) -> nn.Sequential:
    """What scores the deepest features, of `inputs` channels."""
    if config.classifier == "new":
        width = config.head_width
        return nn.Sequential(conv_norm_act(inputs, width), conv_norm_act(width, width, 1), score(width, config.classes))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["fc"] = conv(inputs, IMAGENET_CLASSES, 1, bias=True)
    layers["act"] = ACTIVATION["relu"](inplace=True)
    layers["score"] = score(IMAGENET_CLASSES, config.classes)
    return nn.Sequential(layers)


def _interpolation(classes: int, factor: int) -> nn.Module:
    """A learnt upsampling of each score map on its own that begins as bilinear interpolation."""
    layer = transposed(classes, classes, factor=factor, kernel=2 * factor, padding=factor // 2, groups=classes)
    with torch.no_grad():
        layer.weight.copy_(bilinear_weight(2 * factor, factor).expand_as(layer.weight))
    return layer
