"""The dilated FCN: ResNet-50 or 101 at stride 8, one head on its last features, no skips. torchvision calls it FCN.

Knows no other encoder; the FCN of the paper, with skips and learnt upsampling, is `fcn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from keepmap.config import option
from keepmap.errors import OptionError
from keepmap.networks.layers import ACTIVATION, LINEAR, Upsample, conv, score
from keepmap.networks.network import CHECKPOINTING
from keepmap.networks.norms import NORM
from keepmap.networks.reach import is_local
from keepmap.networks.recompute import in_turn, recomputed
from keepmap.networks.resnet import build_resnet
from keepmap.networks.score_network import ScoreNetwork

DILATE = (False, True, True)
"""The last two stages keep stride 8."""
_HEAD_DROPOUT = 0.1
_AUX_WEIGHT = 0.5


@dataclass(frozen=True)
class FCNDilatedConfig:
    """What an FCNDilated is built from."""

    channels: int = option(3, "channels of the input image")
    classes: int = option(2, "classes, background included")
    encoder: Literal["resnet50", "resnet101"] = option("resnet50", "encoder, dilated to stride 8")
    aux: bool = option(False, "an auxiliary head on the features before the last, for training only")
    match: Literal["multiple", "resize"] = option(
        "multiple", "multiple: pad to the stride; resize: stretch the scores to the image, as torchvision does"
    )
    width: int = option(64, "channels of the encoder's first convolution; published weights have 64")
    checkpointing: bool = option(False, CHECKPOINTING)


class FCNDilated(ScoreNetwork):
    """Dilated ResNet at stride 8 with a convolutional head, enlarged 8 times by bilinear interpolation.

    The two ways to match the image's size agree where it is a multiple of 8. Where it is not, `resize` samples the
    scores on another grid in every part of an image, so it is not local.
    Source: torchvision.models.segmentation (fcn_resnet50, fcn_resnet101); dilation as in Yu and Koltun 2016.
    """

    config: FCNDilatedConfig

    def __init__(self, config: FCNDilatedConfig) -> None:
        if config.width < 1:
            raise OptionError("width of fcn_dilated must be positive.", found=str(config.width), expected="as in 64")
        encoder = build_resnet(config.encoder, config.channels, width=config.width, dilate=DILATE)
        super().__init__(config, stride=encoder.strides[-1])
        self.score_stride = self.stride
        self.encoder = encoder
        self.encoder.checkpointing = config.checkpointing
        self.head = _head(encoder.widths[-1], config.classes)
        self.aux = _head(encoder.widths[-2], config.classes) if config.aux else None
        self.up = Upsample(self.stride)

    def coarse(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> the score map (N, K, *T) at stride 8."""
        scores: Tensor = recomputed(self, in_turn(self.head), [self.encoder(x)[-1]])
        return scores

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K, *S) of raw values x (N, C, *S) of any real dtype. Raises ValueError as every network does."""
        return self._enlarged(self.coarse(self.prepare(x)), x)

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        """Logits (N, K, *S) of raw values x (N, C, *S), for training: those of `forward`, then the auxiliary head's.

        Raises ValueError as `forward` does.
        """
        *_, before, last = self.encoder(self.prepare(x))
        logits = [self._enlarged(recomputed(self, in_turn(self.head), [last]), x)]
        if self.aux is not None:
            logits.append(self._enlarged(recomputed(self, in_turn(self.aux), [before]), x))
        return logits

    @property
    def deep_heads(self) -> tuple[tuple[int, float], ...]:
        """(stride, weight of its loss) of each of the logits of `forward_deep`; none without an auxiliary head.

        torchvision's recipe adds half of the auxiliary loss.
        """
        return ((1, 1.0), (1, _AUX_WEIGHT)) if self.config.aux else ()

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """The extent that `core` sees: multiples of the stride, or with `resize` the image's own."""
        return tuple(size) if self.config.match == "resize" else super().padded(size)

    @cached_property
    def local(self) -> bool:
        """Whether computing in parts equals computing the whole: not with `resize`."""
        return self.config.match == "multiple" and is_local(self)

    def _enlarged(self, scores: Tensor, x: Tensor) -> Tensor:
        size = x.shape[2:]
        if self.config.match == "multiple":
            return self.crop(self.up(scores), size)
        return F.interpolate(scores, size=size, mode=LINEAR[len(size)], align_corners=False)


def _head(inputs: int, classes: int) -> nn.Sequential:
    """A 3x3 convolution to a quarter of the channels, batch norm, ReLU, dropout, and the scores."""
    width = max(1, inputs // 4)
    return nn.Sequential(
        conv(inputs, width),
        NORM[2](width),
        ACTIVATION["relu"](inplace=True),
        nn.Dropout(_HEAD_DROPOUT),
        score(width, classes),
    )
