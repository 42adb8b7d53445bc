"""Measuring a step takes real steps and leaves the network as it was."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from keepmap.data.pipeline import Own
from keepmap.data.sampling import Sampler
from keepmap.networks.catalogue import build_network
from keepmap.planning.plan import Drawing, Setting
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from keepmap.training.measure import measure_drawing, measure_step, step_bytes

make = partial(Engine, device="cpu", precision="float32")


def test_measuring_changes_nothing_and_memory_grows_with_the_batch() -> None:
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    before = {name: t.clone() for name, t in network.state_dict().items()}
    settings = [Setting(32, n, n, False) for n in (1, 4)]
    one, four = (measure_step(network, s, make=make, limit=60.0) for s in settings)
    assert one.seconds > 0
    weights = 16 * sum(p.numel() for p in network.parameters())
    assert four.bytes - weights == 4 * (one.bytes - weights) > 0
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_parts_and_recomputing_need_less() -> None:
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    ways = [Setting(32, 4, micro, on) for micro, on in ((4, False), (2, False), (4, True))]
    whole, parts, again = (step_bytes(network, way, precision="float32") for way in ways)
    weights = 16 * sum(p.numel() for p in network.parameters())
    assert whole - weights == 2 * (parts - weights)
    assert again < whole
    assert not network.checkpointing
    passes = []
    network.register_forward_hook(lambda module, taken, _: passes.append((len(taken[0]), module.checkpointing)))
    measure_step(network, Setting(32, 4, 2, True), make=make, limit=0.0)
    assert passes == [(2, True), (2, True)]


def test_the_limit_ends_the_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    real = Engine.step

    def step(self: Engine, *arguments: Any) -> float:
        steps.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(Engine, "step", step)
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    measure_step(network, Setting(32, 2, 2, False), make=make, limit=0.0)
    assert len(steps) == 1


def test_drawing_is_timed_with_reading_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that reading moves by 4 s and cropping by 3 s; two of the four crops of a batch are ours."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    class Store:
        def get(self, index: int) -> None:
            clock[0] += 4

    def draw(self: Batches, step: int) -> None:
        self.store.get(self.sampler.image(step, self.share[0]))
        clock[0] += 3

    monkeypatch.setattr(Batches, "draw", draw)
    batches = Batches(Store(), Sampler(3, 4, 0), 32, None, share=(1, 2))  # type: ignore[arg-type]
    assert measure_drawing(batches) == Drawing(14, 6)
    assert clock[0] == 2 * (7 + 4)
    assert measure_drawing(replace(batches, own=Own(lambda **_: {}, 2))).between
