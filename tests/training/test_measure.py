"""Measuring a step takes real steps and leaves the network as it was."""

from typing import Any

import pytest
import torch

from keepmap.networks.catalogue import build_network
from keepmap.training.engine import Engine
from keepmap.training.measure import measure_step


def test_measuring_changes_nothing_and_memory_grows_with_the_batch() -> None:
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    before = {name: t.clone() for name, t in network.state_dict().items()}
    one, four = (measure_step(network, 32, n, device="cpu", precision="float32", limit=60.0) for n in (1, 4))
    assert one.seconds > 0
    weights = 16 * sum(p.numel() for p in network.parameters())
    assert four.bytes - weights == 4 * (one.bytes - weights) > 0
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_limit_ends_the_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    real = Engine.step

    def step(self: Engine, *arguments: Any) -> float:
        steps.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(Engine, "step", step)
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    measure_step(network, 32, 2, device="cpu", precision="float32", limit=0.0)
    assert len(steps) == 1
