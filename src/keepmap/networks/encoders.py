"""The encoders by name.

Knows nothing of what is built on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from keepmap.errors import OptionError, nearest
from keepmap.networks.efficientnet import EfficientNetLite0
from keepmap.networks.layers import Encoder
from keepmap.networks.resnet import RESNETS, build_resnet
from keepmap.networks.timm_encoder import PREFIX, TimmEncoder, check_name
from keepmap.networks.vgg import VGGS, build_vgg

ENCODERS: dict[str, Callable[[int], Encoder]] = {
    **{name: partial(build_resnet, name) for name in RESNETS},
    **{name: partial(build_vgg, name) for plain in VGGS for name in (plain, f"{plain}_bn")},
    "efficientnet_lite0": EfficientNetLite0,
}
"""Name -> builder that takes the number of image channels."""


def check_encoder(name: str) -> None:
    """Raises OptionError with the nearest name unless there is an encoder `name`; MissingPackage where timm is."""
    if name.startswith(PREFIX):
        check_name(name.removeprefix(PREFIX))
    elif name not in ENCODERS:
        expected = nearest(name, (*ENCODERS, f"{PREFIX}NAME"))
        raise OptionError(f"There is no encoder {name}.", found=name, expected=expected)


def build_encoder(name: str, channels: int, *, checkpointing: bool = False) -> Encoder:
    """The encoder called `name` for images of `channels` channels, weights random.

    name: of ENCODERS, or `timm:NAME` for a network of timm. checkpointing: as of every network (see `recompute`).
    Raises OptionError, and MissingPackage without timm.
    """
    check_encoder(name)
    if name.startswith(PREFIX):
        encoder: Encoder = TimmEncoder(name.removeprefix(PREFIX), channels)
    else:
        encoder = ENCODERS[name](channels)
    encoder.checkpointing = checkpointing
    return encoder
