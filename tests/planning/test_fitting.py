"""The first setting that fits memory and time, what spoke against the better ones, and what is not tried at all."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.fitting import Fit, crop_of, fit, possible
from keepmap.planning.plan import Cost, Setting

NUCLEI = Fingerprint(
    images=100, channels=3, dtype="uint8", heights=(200, 256, 520), widths=(256, 320, 520),
    mean=(40.0, 40.0, 40.0), deviation=(30.0, 30.0, 30.0), value_range=(0.0, 255.0),
    class_shares=(0.8, 0.2), image_shares=(1.0, 1.0), median_frequency=(0.6, 2.5),
    row_offsets=(0.0, 0.01), brighter=0.8,
)  # fmt: skip


def ways(options: TrainOptions = TrainOptions(), again: Sequence[bool] = (False, True)) -> list[list[Setting]]:  # noqa: B008
    return possible(NUCLEI, options, {}, again)[0]


def fitted(
    options: TrainOptions = TrainOptions(), *, memory: int = 8, seconds: float = 300.0, cost: float = 0.5  # noqa: B008
) -> Fit:
    """With steps that take `cost` seconds at 8 crops of 256, and need a unit of memory for each crop of a pass."""
    return fit(
        ways(options), memory, lambda: seconds, lambda s: s.micro * s.crop**2 // (256**2 * (1 + s.checkpointing)),
        lambda s: Cost(cost * s.batch * s.crop**2 / (8 * 256**2), 1),
    )  # fmt: skip


@given(memory=st.integers(1, 9))
@settings(deadline=None)
def test_what_is_taken_fits_and_nothing_before_it_does(memory: int) -> None:
    found = fitted(memory=memory).setting
    flat = [setting for several in ways() for setting in several]
    needs = [s.micro * s.crop**2 // (256**2 * (1 + s.checkpointing)) for s in flat]
    assert needs[flat.index(found)] <= memory
    assert min(needs[: flat.index(found)], default=memory + 1) > memory


def test_the_ways_of_a_batch_go_from_fast_to_small() -> None:
    assert [(s.micro, s.checkpointing) for s in ways()[0]] == [(8, False), (4, False), (8, True), (4, True), (2, True)]
    assert [(s.micro, s.checkpointing) for s in ways(again=(False,))[0]] == [(8, False), (4, False), (2, False)]
    assert [s.micro for s in ways(TrainOptions(batch=5), (True,))[0]] == [5, 3, 2]
    assert [s.micro for s in ways(TrainOptions(batch=1), (True,))[0]] == [1]


def test_too_few_steps_shrink_the_batch_then_the_crop() -> None:
    assert fitted().setting.batch == 8
    slow = fitted(seconds=100, cost=1.5)
    assert slow.setting.batch == 4
    assert slow.because["batch"] == "8 crops of 256 px take 1.50 s a step, fewer than 120 steps in the time"
    assert (fitted(seconds=60, cost=4.0).setting.crop, fitted(seconds=60, cost=4.0).setting.batch) == (256, 2)
    slowest = fitted(seconds=60, cost=8.0)
    assert (slowest.setting.crop, slowest.setting.batch) == (128, 2)
    assert "steps in the time" in slowest.because["crop"]
    assert fitted(TrainOptions(batch=16), seconds=60, memory=16, cost=9.0).setting.batch == 16


def test_what_is_hopeless_or_too_large_is_not_tried() -> None:
    tried = []

    def measure(setting: Setting) -> Cost:
        tried.append((setting.crop, setting.batch))
        return Cost(2.0 * setting.crop**2 * setting.batch / (256**2 * 8), 1)

    fit(ways(), 1, lambda: 60.0, lambda _: 1, measure)
    assert tried == [(256, 8), (256, 2)]
    tried.clear()
    fit(ways(), 1, lambda: 6000.0, lambda s: 2 if s.crop == 256 else 1, measure)
    assert tried == [(128, 2)]


def test_a_memory_that_holds_no_step_is_an_error() -> None:
    with pytest.raises(OptionError, match="2 crops of 128 px need 8 GiB, more than 7 GiB"):
        fit(ways(), 7 << 30, None, lambda _: 8 << 30, lambda _: Cost(1.0, 1))


def test_small_images_get_small_crops() -> None:
    assert crop_of(NUCLEI, TrainOptions())[0] == 256
    small = Fingerprint(**{**vars(NUCLEI), "heights": (80, 90, 99)})
    assert crop_of(small, TrainOptions()) == (96, "the median image is 90x320, and 256 is enough context")
    assert crop_of(small, TrainOptions(crop=128)) == (128, "--crop")


@pytest.mark.parametrize(
    ("processes", "batches"), [(1, [8, 4, 2, 2]), (2, [8, 4, 2, 2]), (4, [8, 4, 4]), (16, [16, 16])]
)
def test_processes_share_a_batch_equally(processes: int, batches: list[int]) -> None:
    """Parts are those of the crops that one process has."""
    settings, because = possible(NUCLEI, TrainOptions(), {}, (False,), processes)
    assert [ways[0].batch for ways in settings] == batches
    assert all(ways[0].micro == ways[0].batch // processes for ways in settings)
    assert (f"by {processes} processes" in because["batch"]) == (processes > 1)
    with pytest.raises(OptionError, match="cannot share 37 crops"):
        possible(NUCLEI, TrainOptions(batch=37), {}, (False,), processes + 1)
