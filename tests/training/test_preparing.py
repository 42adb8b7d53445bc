"""What a training begins with: planned, built and divided, with nothing written."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from keepmap.data.drawn import draw_dataset
from keepmap.errors import OptionError
from keepmap.networks.catalogue import build_network
from keepmap.options import TrainOptions
from keepmap.planning.plan import Cost, Drawing
from keepmap.planning.recipe import OptimiserConfig
from keepmap.protocols import Silent
from keepmap.training.preparing import prepare


def test_the_network_is_the_planned_one_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(1.0, 1))
    monkeypatch.setattr("keepmap.training.preparing.measure_drawing", lambda _: Drawing(1.0, 0.1))
    draw_dataset(tmp_path, count=4, seed=0)
    before = sorted(tmp_path.rglob("*"))
    options = TrainOptions(
        model="unet", steps=2, device="cpu", memory="4G", set={"widths": (4, 8)}, classes=str(tmp_path / "classes.txt")
    )
    one, other = (prepare(tmp_path / "images", tmp_path / "masks", options, Silent()) for _ in range(2))
    assert sorted(tmp_path.rglob("*")) == before
    assert one.plan.options == one.config.options == {"widths": (4, 8)}
    assert one.plan.mean == tuple(one.network.mean.tolist())
    stems = [fact.stem for fact in (*one.parts.train, *one.parts.validation)]
    assert stems == [*one.split.train, *one.split.validation]
    assert one.plan == other.plan
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, other.network.state_dict()[name]), name


def test_batch_norm_of_several_processes_on_a_cpu_keeps_its_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot be synchronised there; a unet that is planned has group norm instead, and nothing is frozen."""
    seen: list[OptimiserConfig] = []
    monkeypatch.setattr(
        "keepmap.training.preparing.measure_step",
        lambda *_, make, **__: seen.append(make.keywords["optimiser"]) or Cost(1.0, 1),
    )
    draw_dataset(tmp_path, count=4, seed=0)
    folders = tmp_path / "images", tmp_path / "masks"
    options = TrainOptions(steps=2, device="cpu", memory="4G", devices=2, batch=4, crop=32)
    given = build_network("unet", channels=3, classes=3, options={"widths": (4, 8)})
    plan = prepare(*folders, options, Silent(), given).plan
    assert plan.frozen_statistics and seen[-1].frozen_statistics and plan.processes == 2
    assert "2 processes on the CPU" in plan.because["frozen_statistics"]
    unet = prepare(*folders, replace(options, model="unet", set={"widths": (4, 8)}), Silent()).plan
    assert unet.options["norm"] == "group" and not unet.frozen_statistics and not seen[-1].frozen_statistics
    for wanted, own in (({"frozen_statistics": False}, given), ({"widths": (4, 8), "norm": "batch"}, None)):
        model = "auto" if own is not None else "unet"
        with pytest.raises(OptionError, match="synchronised on GPUs only"):
            prepare(*folders, replace(options, model=model, set=wanted), Silent(), own)


@pytest.mark.parametrize(("cost", "warned"), [(30.0, True), (0.1, False)])
def test_a_time_for_a_few_steps_is_said(
    cost: float, warned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(cost, 1))
    draw_dataset(tmp_path, count=4, seed=0)
    said: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "say", said.append)
    options = TrainOptions(model="unet", time="1m", device="cpu", set={"widths": (4, 8)})
    plan = prepare(tmp_path / "images", tmp_path / "masks", options, progress).plan
    assert any(f"suffices for {plan.steps} steps" in line for line in said) is warned
    assert any("unet: it sees" in line and "too few" in line for line in said)
