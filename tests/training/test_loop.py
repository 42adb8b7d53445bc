"""The loop: what it leaves in the RUN, and how it ends when the loss is no number or the disk is full."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from keepmap.errors import OutOfMemory, OutputError, RunError, TrainingError
from keepmap.metrics.confusion import ConfusionMatrix, ImageScores, Scores
from keepmap.networks.catalogue import build_network
from keepmap.planning.plan import Plan
from keepmap.planning.recipe import OptimiserConfig
from keepmap.protocols import Progress, Silent
from keepmap.runs import RunFolder, read_tensors, write_tensors
from keepmap.training.batches import Batches
from keepmap.training.checkpoint import restore
from keepmap.training.engine import Engine
from keepmap.training.loop import fit

PLAN = Plan(
    network="unet", options={"widths": (4, 8)}, pretrained=False, mean=(0.0,), deviation=(1.0,), device="cpu",
    precision="float32", crop=16, batch=2, step_seconds=0.01, steps=6, seconds=None, validate_every=2,
    validation_seconds=0.1, replanned_at=0,
    learning_rate=1e-2, warm_up=1, weight_decay=0.0, scale=(0.5, 2.0), upright=False, invert=0.0, gain=0.1, shift=1.0,
    value_range=(0.0, 1.0), seed=0,
)  # fmt: skip


class Noise(Batches):
    """Batches of noise; from step `broken` on they hold NaN."""

    def __init__(self, broken: int = 10**9) -> None:
        self.broken = broken

    def files(self, step: int) -> list[str]:
        return [f"{step}a.png", f"{step}b.png"]

    def stream(self, first: int, progress: Progress) -> Iterator[tuple[int, Tensor, Tensor]]:
        for step in count(first):
            generator = torch.Generator().manual_seed(step)
            x = torch.rand(2, 1, 16, 16, generator=generator)
            if step >= self.broken:
                x[:] = float("nan")
            yield step, x, torch.randint(0, 2, (2, 16, 16), generator=generator)


class Stopped(Noise):
    """Batches of noise; Ctrl-C arrives in the course of a step."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def stream(self, first: int, progress: Progress) -> Iterator[tuple[int, Tensor, Tensor]]:
        for step, x, y in super().stream(first, progress):
            if step + 1 == self.after:
                signal.raise_signal(signal.SIGINT)
            yield step, x, y


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Noise]:
    """Batches of noise that take a fiftieth of a second each, by a clock on which nothing else takes time."""
    now = 0.0

    class Watch:
        def __init__(self) -> None:
            self.start = now

        @property
        def seconds(self) -> float:
            return now - self.start

    class Paced(Noise):
        def took(self, step: int) -> float:
            return 0.02

        def stream(self, first: int, progress: Progress) -> Iterator[tuple[int, Tensor, Tensor]]:
            nonlocal now
            for drawn in super().stream(first, progress):
                now += self.took(drawn[0])
                yield drawn

    monkeypatch.setattr("keepmap.training.loop.Stopwatch", Watch)
    return Paced


def engine() -> Engine:
    torch.manual_seed(0)
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    return Engine(network, device="cpu", precision="float32", optimiser=OptimiserConfig(weight_decay=0.0))


def scores(mean_iou: float, images: int = 0) -> Scores:
    """Scores of as many images, nearly the same for each."""
    alone = [ImageScores(f"{i}", f"{i}", 1, mean_iou + i / 3000, *[None] * 9, iou=()) for i in range(images)]
    return replace(ConfusionMatrix(2).scores(), mean_iou=mean_iou, images=tuple(alone))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


@pytest.mark.parametrize(
    ("means", "images", "kept"),
    [
        ([0.2, 0.9, 0.5], 0, 4),
        ([0.9, 0.4, 0.3], 0, 4),
        ([0.9, 0.3, 0.4], 7, 6),
        ([0.9, 0.3, 0.4], 8, 2),
        ([0.9, 0.3, 0.95], 8, 6),
    ],
)
def test_the_best_of_the_last_third_is_kept_unless_what_came_before_is_clearly_better(
    means: list[float], images: int, kept: int, run: RunFolder
) -> None:
    ahead = iter(means)
    at = fit(engine(), PLAN, Noise(), lambda: scores(next(ahead), images), run, Silent())
    assert at.best_step == kept and at.best == means[kept // 2 - 1] == read_tensors(run.model_file)[1]["mean_iou"]
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("kept")][-1] == kept


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


def metrics(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


def test_losses_that_are_no_numbers_stop_it_with_good_weights_and_named_images(run: RunFolder) -> None:
    batches, plan = Noise(broken=3), replace(PLAN, steps=50)
    with pytest.raises(TrainingError, match="no number 10 times in a row, at step 13; the state of step 3") as caught:
        fit(engine(), plan, batches, lambda: scores(0.5), run, Silent())
    assert "12a.png" in caught.value.found
    good = engine()
    at = restore(good, run, plan, Silent())
    assert (at.step, at.bad, at.skipped) == (3, 0, 0)
    assert good.optimiser.state and all(int(state["step"]) == 3 for state in good.optimiser.state.values())
    assert torch.isfinite(read_tensors(run.model_file)[0]["head.weight"]).all()
    skipped = [line for line in metrics(run) if "skipped" in line]
    assert [line["step"] for line in skipped] == list(range(4, 14))
    assert skipped[0]["skipped"] == ["3a.png", "3b.png"]


def test_single_losses_that_are_no_numbers_are_skipped_counted_and_said(run: RunFolder, lines: Any) -> None:
    class Once(Noise):
        def stream(self, first: int, progress: Progress) -> Iterator[tuple[int, Tensor, Tensor]]:
            for step, x, y in super().stream(first, progress):
                yield step, x * float("nan") if step in (1, 5) else x, y

    at = fit(engine(), PLAN, Once(), lambda: scores(0.5), run, lines)
    assert (at.step, at.skipped, at.bad, at.validated) == (6, 2, 1, 6)
    assert [line["step"] for line in metrics(run) if "skipped" in line] == [2, 6]
    assert ["2 steps were skipped" in line for line in lines.said].count(True) == 1
    assert any("the loss of step 2 was no number" in line and "1a.png" in line for line in lines.said)


def test_a_full_disk_is_an_error_and_keeps_what_was_there(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(engine(), replace(PLAN, steps=2), Noise(), lambda: scores(0.5), run, Silent())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        fit(engine(), PLAN, Noise(), lambda: scores(0.9), run, Silent())
    monkeypatch.undo()
    assert restore(engine(), run, PLAN, Silent()).step == 2


def short_of_memory(trained: Engine, most: int, from_step: int = 0) -> Engine:
    """Makes passes of more than `most` crops fail, as an allocator does, from a step on."""

    def run_out(network: object, arguments: tuple[Tensor]) -> None:
        steps = [int(state["step"]) for state in trained.optimiser.state.values()]
        if len(arguments[0]) > most and max(steps, default=0) >= from_step:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    trained.network.register_forward_pre_hook(run_out)
    return trained


def test_a_lack_of_memory_is_told_by_level_and_what_was_saved_goes_on(run: RunFolder) -> None:
    """The fourth step fails even with one crop at a time; the state of the second, which was validated, is whole."""
    short = short_of_memory(engine(), 0, from_step=3)
    with pytest.raises(OutOfMemory, match=r"a training step of 1 image of 16x16 px") as caught:
        fit(short, PLAN, Noise(), lambda: scores(0.5), run, Silent())
    assert "keepmap models unet --size 16x16" in str(caught.value)
    assert "--checkpointing" in caught.value.do
    assert restore(engine(), run, PLAN, Silent()).step == 2
    assert fit(engine(), PLAN, Noise(), lambda: scores(0.5), run, Silent()).step == PLAN.steps


def test_a_lack_of_memory_makes_the_parts_of_a_step_smaller_and_resume_keeps_that(
    run: RunFolder, tmp_path: Path, lines: Any
) -> None:
    """The same weights as if the parts had been small from that step on, whether or not it is interrupted after it."""
    other = RunFolder(tmp_path / "other")
    other.create()
    fit(short_of_memory(engine(), 1, from_step=2), PLAN, Noise(), lambda: scores(0.5), run, lines)
    assert ["1 at once, 2 a step as before" in line for line in lines.said].count(True) == 1
    assert [line["step"] for line in metrics(run) if line.get("crops_at_once") == 1] == [3]
    first = engine()
    fit(first, PLAN, Stopped(2), lambda: scores(0.5), other, Silent())
    write_tensors(other.last_file, first.state(), position={"step": 2, "micro": 1})
    for stop in (4, PLAN.steps):
        at = fit(again := engine(), PLAN, Stopped(stop), lambda: scores(0.5), other, Silent())
        assert (at.step, at.micro, again.micro) == (stop, 1, 1)
    expected = read_tensors(run.last_file)[0]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state().items())


def test_a_foreign_state_is_refused(run: RunFolder) -> None:
    write_tensors(run.last_file, {"a": torch.zeros(1)}, position={"step": 1, "speed": 9})
    with pytest.raises(RunError, match=r"last\.safetensors has no field speed"):
        restore(engine(), run, PLAN, Silent())


def test_the_steps_are_counted_anew_once_at_the_real_pace(run: RunFolder, clock: type[Noise]) -> None:
    """Planned for steps of a tenth of a second; they take a fiftieth, so more of them fit, and plan.json says so."""
    plan = replace(PLAN, steps=20, seconds=4.0, step_seconds=0.1, validate_every=5, learning_rate=1e-4)
    plan = replace(plan, because=dict.fromkeys(PLAN.__dataclass_fields__, "a reason"))
    at = fit(engine(), plan, clock(), lambda: scores(0.5), run, Silent())
    rows = json.loads(run.plan_file.read_text())
    assert 3 <= rows["replanned_at"]["value"] <= 20
    assert "counted anew at step" in rows["steps"]["because"]
    assert rows["steps"]["value"] > 100
    assert at.step > 100
    assert at.seconds < 4.0


def test_steps_that_read_their_images_first_do_not_count_for_the_pace(run: RunFolder, clock: type[Noise]) -> None:
    """The first three take six times as long as the others."""

    class Cold(clock):  # type: ignore[misc, valid-type]
        def took(self, step: int) -> float:
            return 0.12 if step < 3 else 0.02

    plan = replace(PLAN, steps=60, seconds=10.0, step_seconds=0.1, validation_seconds=0.0, validate_every=200)
    plan = replace(plan, because=dict.fromkeys(PLAN.__dataclass_fields__, "a reason"))
    at = fit(engine(), plan, Cold(), lambda: scores(0.5), run, Silent())
    rows = json.loads(run.plan_file.read_text())
    assert rows["step_seconds"]["value"] == pytest.approx(0.02, rel=0.01)
    assert at.seconds > 9.5


@pytest.mark.parametrize("disturbed", [20, 40])
def test_a_machine_that_was_busy_in_the_beginning_does_not_shorten_the_training(
    run: RunFolder, clock: type[Noise], disturbed: int
) -> None:
    """Planned while a step took four times as long as soon after; the time is used up all the same."""

    class Freed(clock):  # type: ignore[misc, valid-type]
        def took(self, step: int) -> float:
            return 0.08 if step < disturbed else 0.02

    plan = replace(PLAN, steps=120, seconds=10.0, step_seconds=0.08, validation_seconds=0.0, learning_rate=1e-4)
    plan = replace(plan, validate_every=12, because=dict.fromkeys(PLAN.__dataclass_fields__, "a reason"))
    at = fit(engine(), plan, Freed(), lambda: scores(0.5), run, Silent())
    rows = json.loads(run.plan_file.read_text())
    assert rows["step_seconds"]["value"] == pytest.approx(0.02, rel=0.01)
    assert disturbed < rows["replanned_at"]["value"] < 2.2 * disturbed
    assert 0.98 * rows["steps"]["value"] < at.step
    assert 9.5 < at.seconds < 10.0


def test_a_machine_that_is_busy_for_a_while_costs_that_while(run: RunFolder, clock: type[Noise]) -> None:
    class Disturbed(clock):  # type: ignore[misc, valid-type]
        def took(self, step: int) -> float:
            return 0.08 if 100 <= step < 115 else 0.02

    plan = replace(PLAN, steps=480, seconds=10.0, step_seconds=0.02, validation_seconds=0.0, learning_rate=1e-4)
    plan = replace(plan, validate_every=48, because=dict.fromkeys(PLAN.__dataclass_fields__, "a reason"))
    at = fit(engine(), plan, Disturbed(), lambda: scores(0.5), run, Silent())
    assert at.step > 0.98 * json.loads(run.plan_file.read_text())["steps"]["value"]
    assert at.step > 440


def test_steps_that_fit_the_time_are_not_counted_anew(run: RunFolder, clock: type[Noise]) -> None:
    plan = replace(PLAN, steps=97, seconds=2.0, step_seconds=0.02, validation_seconds=0.0, learning_rate=1e-4)
    fit(engine(), plan, clock(), lambda: scores(0.5), run, Silent())
    assert not run.plan_file.exists()


def test_a_training_that_used_its_time_up_says_so_and_is_not_taken_up_again(
    run: RunFolder, clock: type[Noise], lines: Any
) -> None:
    """Its last validation may have been so quick that, by what is known afterwards, a step would still have fitted."""
    plan = replace(PLAN, steps=1000, seconds=1.0, validation_seconds=0.6, replanned_at=1)
    first = fit(engine(), plan, clock(), lambda: scores(0.5), run, lines)
    assert first.finished and 0 < first.step < plan.steps
    assert any(f"is up at step {first.step} of 1000" in line for line in lines.said)
    again = fit(engine(), replace(plan, validation_seconds=0.0), clock(), lambda: scores(0.5), run, Silent())
    assert again.step == first.step


def test_an_interrupted_training_is_not_finished(run: RunFolder) -> None:
    begun = fit(engine(), replace(PLAN, steps=3), Noise(), lambda: scores(0.5), run, Silent())
    assert begun.finished
    write_tensors(run.last_file, engine().state(), position={**vars(begun), "finished": False, "signal": 2, "step": 3})
    assert fit(engine(), PLAN, Noise(), lambda: scores(0.5), run, Silent()).step == PLAN.steps
