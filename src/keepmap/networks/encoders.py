"""The encoders by name.

Knows nothing of what is built on them.
"""

from __future__ import annotations

from collections.abc import Callable

from keepmap.errors import OptionError, nearest
from keepmap.networks.efficientnet import EfficientNetLite0
from keepmap.networks.layers import Encoder
from keepmap.networks.resnet import BasicBlock, Bottleneck, ResNet

ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "resnet18": lambda channels: ResNet(channels, BasicBlock, (2, 2, 2, 2)),
    "resnet34": lambda channels: ResNet(channels, BasicBlock, (3, 4, 6, 3)),
    "resnet50": lambda channels: ResNet(channels, Bottleneck, (3, 4, 6, 3)),
    "efficientnet_lite0": EfficientNetLite0,
}
"""Name -> builder that takes the number of image channels."""


def build_encoder(name: str, channels: int) -> Encoder:
    """The encoder called `name` for images of `channels` channels, weights random. Raises OptionError."""
    if name not in ENCODERS:
        raise OptionError(f"There is no encoder {name}.", found=name, expected=nearest(name, ENCODERS))
    return ENCODERS[name](channels)
