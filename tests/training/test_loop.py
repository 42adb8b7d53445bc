"""The loop: what it leaves in the RUN, and how it ends when the loss is no number or the disk is full."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor

from keepmap.errors import OutOfMemory, OutputError, RunError, TrainingError
from keepmap.metrics.confusion import ConfusionMatrix, Scores
from keepmap.networks.catalogue import build_network
from keepmap.planning.plan import Plan
from keepmap.planning.recipe import OptimiserConfig
from keepmap.protocols import Silent
from keepmap.runs import RunFolder, read_tensors, write_tensors
from keepmap.training.batches import Batches
from keepmap.training.engine import Engine
from keepmap.training.loop import fit, restore

PLAN = Plan(
    network="unet", options={"widths": (4, 8)}, pretrained=False, mean=(0.0,), deviation=(1.0,), device="cpu",
    precision="float32", crop=16, batch=2, step_seconds=0.01, steps=6, seconds=None, validate_every=2,
    validation_seconds=0.1, replanned_at=0,
    learning_rate=1e-2, warm_up=1, weight_decay=0.0, scale=(0.5, 2.0), upright=False, invert=0.0, gain=0.1, shift=1.0,
    value_range=(0.0, 1.0), seed=0,
)  # fmt: skip


class Noise(Batches):
    """Batches of noise; from step `broken` on they hold NaN."""

    broken = 10**9

    def __init__(self) -> None: ...

    def stream(self, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        for step in count(first):
            generator = torch.Generator().manual_seed(step)
            x = torch.rand(2, 1, 16, 16, generator=generator)
            if step >= self.broken:
                x[:] = float("nan")
            yield step, x, torch.randint(0, 2, (2, 16, 16), generator=generator)


def engine() -> Engine:
    torch.manual_seed(0)
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    return Engine(network, device="cpu", precision="float32", optimiser=OptimiserConfig(weight_decay=0.0))


def scores(mean_iou: float) -> Scores:
    return replace(ConfusionMatrix(2).scores(), mean_iou=mean_iou)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_best_is_the_best_and_last_is_the_last(run: RunFolder) -> None:
    means = iter([0.2, 0.9, 0.5])
    trained = engine()
    at = fit(trained, PLAN, Noise(), lambda: scores(next(means)), run, Silent())
    assert (at.step, at.best, at.best_step) == (6, 0.9, 4)
    best, header = read_tensors(run.model_file)
    assert header == {"step": 4, "mean_iou": 0.9}
    last = read_tensors(run.last_file)[0]
    assert torch.equal(last["network/head.weight"], trained.network.state_dict()["head.weight"])
    assert not torch.equal(best["head.weight"], last["network/head.weight"])
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [line["validation_mean_iou"] for line in lines if "validation_mean_iou" in line] == [0.2, 0.9, 0.5]


def test_losses_that_are_no_numbers_stop_it_with_good_weights(run: RunFolder) -> None:
    batches = Noise()
    batches.broken = 3
    with pytest.raises(TrainingError, match="no number 10 times in a row, at step 13"):
        fit(engine(), replace(PLAN, steps=50), batches, lambda: scores(0.5), run, Silent())
    assert torch.isfinite(read_tensors(run.model_file)[0]["head.weight"]).all()


def test_a_full_disk_is_an_error_and_keeps_what_was_there(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(engine(), replace(PLAN, steps=2), Noise(), lambda: scores(0.5), run, Silent())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        fit(engine(), PLAN, Noise(), lambda: scores(0.9), run, Silent())
    monkeypatch.undo()
    assert restore(engine(), run).step == 2


def test_a_lack_of_memory_is_told_by_level_and_what_was_saved_goes_on(run: RunFolder) -> None:
    """The fourth step fails inside the network; the state of the second, which was validated, is whole."""
    short = engine()
    done = iter(range(4))

    def run_out(*_: object) -> None:
        if next(done) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    short.network.register_forward_pre_hook(run_out)
    with pytest.raises(OutOfMemory, match=r"a training step of 2 images of 16x16 px") as caught:
        fit(short, PLAN, Noise(), lambda: scores(0.5), run, Silent())
    assert "keepmap models unet --size 16x16" in str(caught.value)
    assert "--checkpointing" in caught.value.do
    assert restore(engine(), run).step == 2
    assert fit(engine(), PLAN, Noise(), lambda: scores(0.5), run, Silent()).step == PLAN.steps


def test_a_foreign_state_is_refused(run: RunFolder) -> None:
    write_tensors(run.last_file, {"a": torch.zeros(1)}, position={"step": 1, "speed": 9})
    with pytest.raises(RunError, match=r"last\.safetensors has no field speed"):
        restore(engine(), run)


def test_the_steps_are_counted_anew_once_at_the_real_pace(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planned for steps of a tenth of a second; they take a fiftieth, so more of them fit, and plan.json says so."""
    now = 0.0

    class Watch:
        def __init__(self) -> None:
            self.start = now

        @property
        def seconds(self) -> float:
            return now - self.start

    class Paced(Noise):
        def stream(self, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
            nonlocal now
            for drawn in super().stream(first):
                now += 0.02
                yield drawn

    monkeypatch.setattr("keepmap.training.loop.Stopwatch", Watch)
    plan = replace(PLAN, steps=20, seconds=4.0, step_seconds=0.1, validate_every=5, learning_rate=1e-4)
    plan = replace(plan, because=dict.fromkeys(PLAN.__dataclass_fields__, "a reason"))
    at = fit(engine(), plan, Paced(), lambda: scores(0.5), run, Silent())
    rows = json.loads(run.plan_file.read_text())
    assert 3 <= rows["replanned_at"]["value"] <= 20
    assert "counted anew at step" in rows["steps"]["because"]
    assert rows["steps"]["value"] > 100
    assert at.step > 100
    assert at.seconds < 4.0


def test_a_training_that_used_its_time_up_is_not_taken_up_again(run: RunFolder) -> None:
    """Its last validation may have been so quick that, by what is known afterwards, a step would still have fitted."""
    plan = replace(PLAN, steps=1000, seconds=1.0, validation_seconds=0.6, replanned_at=1)
    first = fit(engine(), plan, Noise(), lambda: scores(0.5), run, Silent())
    assert first.finished and first.step < plan.steps
    again = fit(engine(), replace(plan, validation_seconds=0.0), Noise(), lambda: scores(0.5), run, Silent())
    assert again.step == first.step


def test_an_interrupted_training_is_not_finished(run: RunFolder) -> None:
    begun = fit(engine(), replace(PLAN, steps=3), Noise(), lambda: scores(0.5), run, Silent())
    assert begun.finished
    write_tensors(run.last_file, engine().state(), position={**vars(begun), "finished": False, "signal": 2, "step": 3})
    assert fit(engine(), PLAN, Noise(), lambda: scores(0.5), run, Silent()).step == PLAN.steps
