"""The planner: which network, and lengths that fit the time, with a reason for every entry."""

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import Cost, Plan
from keepmap.planning.planner import Situation, choose_network, make_plan, replan

NUCLEI = Fingerprint(
    images=100, channels=3, dtype="uint8", median_height=256, median_width=320,
    mean=(40.0, 40.0, 40.0), deviation=(30.0, 30.0, 30.0), class_shares=(0.8, 0.2), row_offsets=(0.0, 0.01),
    brighter=0.8,
)  # fmt: skip
HERE = Situation(
    device="cpu", precision="bfloat16", memory=8 << 30, validation_pixels=1_000_000,
    pretrained="efficientnet_lite0", install="pip install 'keepmap[pretrained]'",
)  # fmt: skip


def planned(
    options: TrainOptions = TrainOptions(),  # noqa: B008
    *,
    figures: Fingerprint = NUCLEI,
    seconds: float = 300.0,
    cost: float = 0.5,
    gigabytes: int = 1,
) -> Plan:
    choice = choose_network(figures, options, HERE)
    return make_plan(
        choice, figures, options, HERE, seconds_left=lambda: seconds,
        measure=lambda crop, batch: Cost(cost * batch / 8, gigabytes * batch << 30),
    )  # fmt: skip


def test_imagenet_weights_are_taken_for_rgb_and_not_otherwise() -> None:
    best = choose_network(NUCLEI, TrainOptions(), HERE)
    assert (best.network, best.options, best.pretrained) == ("encoder_unet", {"encoder": "efficientnet_lite0"}, True)
    for figures, here in (
        (replace(NUCLEI, channels=1, mean=(4.0,), deviation=(3.0,)), HERE),
        (replace(NUCLEI, dtype="uint16"), HERE),
        (NUCLEI, replace(HERE, pretrained=None)),
    ):
        choice = choose_network(figures, TrainOptions(), here)
        assert not choice.pretrained
        assert choice.mean == figures.mean


def test_a_missing_package_is_said_with_its_install_line() -> None:
    assert HERE.install in choose_network(NUCLEI, TrainOptions(), replace(HERE, pretrained=None)).because


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(model="unet", encoder="resnet18"), "has no encoder"),
        (TrainOptions(weights="imagenet", encoder="resnet50"), "cannot be had"),
    ],
)
def test_contradictions_are_errors(options: TrainOptions, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        choose_network(NUCLEI, options, HERE)


def test_every_entry_has_a_reason() -> None:
    plan = planned()
    assert set(plan.because) == {f.name for f in fields(Plan)} - {"because"}
    assert all(plan.because.values())


@given(seconds=st.floats(20, 5000), cost=st.floats(0.01, 3))
@settings(deadline=None)
def test_steps_and_validations_fit_the_time(seconds: float, cost: float) -> None:
    plan = planned(seconds=seconds, cost=cost)
    validation = HERE.validation_pixels * plan.step_seconds / (3 * plan.batch * plan.crop**2)
    count = -(-plan.steps // plan.validate_every)
    if plan.steps > 1:
        assert plan.steps * plan.step_seconds + count * validation <= seconds
        assert plan.steps * plan.step_seconds + (count + 2) * validation >= seconds - 2 * plan.step_seconds


def test_too_few_steps_or_too_much_memory_shrink_the_batch() -> None:
    assert planned(seconds=300, cost=0.5).batch == 8
    assert planned(seconds=100, cost=1.5).batch == 4
    assert "steps in the time" in planned(seconds=100, cost=1.5).because["batch"]
    assert planned(gigabytes=2).batch == 4
    assert planned(TrainOptions(batch=16), gigabytes=2).batch == 16


def test_steps_and_epochs_fix_the_length() -> None:
    assert (planned(TrainOptions(steps=7)).steps, planned(TrainOptions(steps=7)).seconds) == (7, None)
    assert planned(TrainOptions(epochs=4)).steps == 50


def test_up_and_down_matter_where_classes_lie_high_or_low() -> None:
    assert not planned().upright
    street = planned(figures=replace(NUCLEI, row_offsets=(0.02, -0.3)))
    assert street.upright
    assert "0.30 image heights" in street.because["upright"]
    rare = planned(figures=replace(NUCLEI, row_offsets=(0.0, -0.3), class_shares=(0.999, 0.001)))
    assert not rare.upright


def test_inversion_only_where_both_polarities_occur() -> None:
    assert planned().invert > 0
    assert planned(figures=replace(NUCLEI, brighter=1.0)).invert == 0
    assert planned(figures=replace(NUCLEI, dtype="uint16")).invert == 0


def test_small_images_get_small_crops() -> None:
    small = replace(NUCLEI, median_height=90, median_width=300)
    assert planned(figures=small).crop == 96
    assert planned(TrainOptions(crop=128), figures=small).crop == 128


@given(step=st.integers(1, 50), pace=st.floats(0.05, 3))
@settings(deadline=None)
def test_replanning_fills_the_rest_of_the_time(step: int, pace: float) -> None:
    paced = replan(planned(seconds=300), step=step, seconds=step * pace)
    validations = -(-paced.steps // paced.validate_every) * paced.validation_seconds
    assert paced.replanned_at == step
    assert paced.steps * pace + validations <= 300 + pace
    assert (paced.steps + 1) * pace + validations + 3 * paced.validation_seconds >= 300 - pace


def test_replanning_needs_a_time() -> None:
    with pytest.raises(ValueError, match="without a time"):
        replan(planned(TrainOptions(steps=5)), step=2, seconds=1.0)


def test_a_channel_that_hardly_varies_is_not_blown_up() -> None:
    figures = replace(NUCLEI, channels=3, deviation=(0.0, 50.0, 0.001))
    choice = choose_network(figures, TrainOptions(weights="none"), HERE)
    assert choice.deviation == (0.5, 50.0, 0.5)


def test_when_the_smallest_batch_is_too_slow_the_crop_shrinks_too() -> None:
    plan = planned(seconds=60, cost=4.0)
    assert (plan.crop, plan.batch) == (256, 2)
    plan = planned(seconds=60, cost=8.0)
    assert (plan.crop, plan.batch) == (128, 2)
    assert "steps in the time" in plan.because["crop"]


def test_the_dilated_fcn_has_a_resnet_and_not_the_pretrained_encoder() -> None:
    choice = choose_network(NUCLEI, TrainOptions(model="fcn_dilated"), HERE)
    assert (choice.network, choice.options, choice.pretrained) == ("fcn_dilated", {"encoder": "resnet50"}, False)


def test_what_is_hopeless_is_not_measured() -> None:
    measured = []

    def measure(crop: int, batch: int) -> Cost:
        measured.append((crop, batch))
        return Cost(2.0 * crop**2 * batch / (256**2 * 8), 1)

    choice = choose_network(NUCLEI, TrainOptions(), HERE)
    plan = make_plan(choice, NUCLEI, TrainOptions(), HERE, seconds_left=lambda: 60.0, measure=measure)
    assert measured == [(256, 8), (256, 2)]
    assert (plan.crop, plan.batch) == (256, 2)
