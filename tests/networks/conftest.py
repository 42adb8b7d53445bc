"""One thread for small tensors: on a busy machine two threads wait for each other longer than they compute."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ledger() -> Any:
    """A mode that counts the bytes of every tensor made while it is on: the one that the benchmarks use."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "ledger.py"
    spec = importlib.util.spec_from_file_location("ledger", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Ledger()
