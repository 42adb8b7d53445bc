"""The networks by name: their configurations, how one is built, and how one is written down.

Knows no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keepmap import config
from keepmap.errors import OptionError, nearest
from keepmap.networks.encoder_unet import EncoderUNet, EncoderUNetConfig
from keepmap.networks.fcn import FCN, FCNConfig
from keepmap.networks.fcn_dilated import FCNDilated, FCNDilatedConfig
from keepmap.networks.fcn_vgg16 import FCNVGG16, FCNVGG16Config
from keepmap.networks.network import Network
from keepmap.networks.unet import UNet, UNetConfig
from keepmap.networks.unet2015 import UNet2015, UNet2015Config

NETWORKS: dict[str, tuple[type[Any], Callable[[Any], Network]]] = {
    "unet": (UNetConfig, UNet),
    "encoder_unet": (EncoderUNetConfig, EncoderUNet),
    "fcn": (FCNConfig, FCN),
    "fcn_vgg16": (FCNVGG16Config, FCNVGG16),
    "fcn_dilated": (FCNDilatedConfig, FCNDilated),
    "unet2015": (UNet2015Config, UNet2015),
}
"""Name -> the frozen dataclass of its options, and the module that is built from one."""


def network_config(name: str, *, channels: int, classes: int, options: Mapping[str, Any]) -> Any:
    """The configuration of the network `name`. Raises OptionError naming the nearest valid network or option."""
    if name not in NETWORKS:
        raise OptionError(f"There is no network {name}.", found=name, expected=nearest(name, NETWORKS))
    for key, value, least in (("channels", channels, 1), ("classes", classes, 2)):
        if value < least:
            raise OptionError(
                f"{key} of {name} must be at least {least}.", found=str(value), expected=f"{least} or more",
                do="count them in the data" + (", the background among them" if key == "classes" else ""),
            )  # fmt: skip
        if key in options:
            raise OptionError(f"{key} is no option of {name}: it follows from the data.", found=f"{key}={options[key]}")
    return config.from_dict(NETWORKS[name][0], {"channels": channels, "classes": classes, **options}, f"{name}")


def build_network(name: str, *, channels: int, classes: int, options: Mapping[str, Any] | None = None) -> Network:
    """The network `name`, weights random and normalisation the identity.

    options: fields of its configuration besides channels and classes.
    """
    built_from = network_config(name, channels=channels, classes=classes, options=options or {})
    return NETWORKS[name][1](built_from)


def is_listed(network: object) -> bool:
    """Whether `network` is of a class in NETWORKS itself, so that `network_recipe` knows how to build it again."""
    return any(type(network) is kind for _, kind in NETWORKS.values())


def network_recipe(network: Network) -> tuple[str, dict[str, Any]]:
    """(name, options): what `build_network` needs, beside channels and classes, to build it again. JSON-ready."""
    name = next(name for name, (_, kind) in NETWORKS.items() if type(network) is kind)
    options = config.to_dict(network.config)
    return name, {key: value for key, value in options.items() if key not in ("channels", "classes")}
