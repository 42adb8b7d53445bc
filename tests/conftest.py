"""What tests of several parts share: other people's implementations as oracles."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import pytest
import torch

_NAMESPACES: list[torch.library.Library] = []
"""Keeps what `peers` defines alive: an operator goes with the library object that defined it."""


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers a core of its own: two that both use all of them wait for each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})
        torch.set_num_threads(1)  # it counted the cores when it was imported


@pytest.fixture(scope="session")
def peers() -> None:
    """Make torchvision, timm and segmentation_models_pytorch importable, also beside a torch from another source.

    Their import needs two operators of torchvision's extension, which does not load there. They are declared, not
    implemented: no network calls them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    try:
        torch.ops.load_library(str(next(Path(found.origin).parent.glob("_C*"))))
    except (OSError, StopIteration):
        namespace = torch.library.Library("torchvision", "DEF")
        namespace.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        namespace.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _NAMESPACES.append(namespace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import segmentation_models_pytorch  # noqa: F401
        import timm  # noqa: F401
        import torchvision  # noqa: F401
