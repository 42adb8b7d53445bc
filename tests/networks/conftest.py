"""One thread for small tensors: on a busy machine two threads wait for each other longer than they compute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from keepmap.networks.ledger import Ledger


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def ledger() -> Ledger:
    """A mode that counts the bytes of every tensor made while it is on."""
    return Ledger()
