"""The plan: lengths that fit the time, what was fixed left alone, and a reason for every entry."""

from dataclasses import fields, replace
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.options import TrainOptions
from keepmap.planning.choice import Choice, Situation
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import Cost, Drawing, Plan
from keepmap.planning.planner import FIXED, coverage, make_plan, recipe_of, replan, without_objects
from keepmap.planning.recipe import LossConfig, OptimiserConfig
from keepmap.planning.settings import asked

NUCLEI = Fingerprint(
    images=100, channels=3, dtype="uint8", heights=(200, 256, 520), widths=(256, 320, 520),
    mean=(40.0, 40.0, 40.0), deviation=(30.0, 30.0, 30.0), value_range=(0.0, 255.0),
    class_shares=(0.8, 0.2), image_shares=(1.0, 1.0), median_frequency=(0.6, 2.5),
    row_offsets=(0.0, 0.01), brighter=0.8,
)  # fmt: skip
HERE = Situation(device="cpu", precision="bfloat16", memory=8 << 30, validation_pixels=1_000_000, offers=())
UNET = Choice("unet", {"widths": (4, 8)}, False, (40.0,) * 3, (30.0,) * 3, "--model unet")


def planned(
    options: TrainOptions = TrainOptions(),  # noqa: B008
    *,
    figures: Fingerprint = NUCLEI,
    seconds: float = 300.0,
    cost: float = 0.5,
    gigabytes: int = 1,
    here: Situation = HERE,
    drawing: Drawing = Drawing(0.01, 0.01),  # noqa: B008
) -> Plan:
    """The plan where a step of 8 crops takes `cost` seconds, and a crop of a pass `gigabytes`, recomputed half."""
    return make_plan(
        UNET, figures, asked(options), here, seconds_left=lambda: seconds,
        needs=lambda setting: (gigabytes << 30) * setting.micro // (1 + setting.checkpointing),
        measure=lambda setting: Cost(cost * setting.batch / 8, 1), draw=lambda plan: drawing,
    )  # fmt: skip


@pytest.mark.parametrize(("batch", "power"), [(2, 0.0), (8, 0.5)])
def test_large_images_come_more_often_where_a_batch_is_steady(batch: int, power: float) -> None:
    plan = planned(TrainOptions(set={"batch": batch}))
    assert plan.area_power == power
    assert ("2 crops" in plan.because["area_power"]) == (batch == 2)
    assert planned(TrainOptions(set={"batch": batch, "area_power": 1.0})).area_power == 1.0


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
        assert plan.steps * plan.step_seconds + (count + 3) * validation >= seconds - 2 * plan.step_seconds


@given(seconds=st.floats(5, 100), cost=st.floats(0.1, 3), images=st.integers(1, 60))
@settings(deadline=None)
def test_a_validation_leaves_the_time_to_the_steps(seconds: float, cost: float, images: int) -> None:
    here = replace(HERE, validation_images=images, validation_pixels=images * 500_000)
    plan = planned(here=here, seconds=seconds, cost=cost)
    each = 500_000 * plan.step_seconds / (3 * plan.batch * plan.crop**2)
    scored = plan.validation_images or images
    assert plan.validation_seconds == pytest.approx(scored * each, abs=1e-3)
    assert scored == 1 or scored * each <= 0.1 * seconds * (1 + 1e-9)
    assert scored == images or (scored + 1) * each > 0.1 * seconds
    assert f" {images}" in plan.because["validation_images"]


def test_all_held_out_images_are_scored_unless_the_time_is_short() -> None:
    here = replace(HERE, validation_images=40, validation_pixels=40_000_000)
    assert planned(here=here, seconds=1e4).validation_images == 0
    assert planned(TrainOptions(steps=3), here=here, seconds=1.0).validation_images == 0
    wanted = planned(TrainOptions(set={"validation_images": 4}), here=here, seconds=1e4)
    assert (wanted.validation_images, wanted.because["validation_images"]) == (4, FIXED)
    more = planned(TrainOptions(set={"validation_images": 400}), here=here, seconds=1e4)
    assert more.validation_seconds == pytest.approx(10 * wanted.validation_seconds, rel=1e-2)


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


@given(step=st.integers(1, 50), pace=st.floats(0.05, 3))
@settings(deadline=None)
def test_replanning_fills_the_rest_of_the_time(step: int, pace: float) -> None:
    paced = replan(planned(seconds=300), step=step, seconds=step * pace, pace=pace)
    validations = -(-paced.steps // paced.validate_every) * paced.validation_seconds
    assert paced.replanned_at == step
    assert paced.steps * pace + validations <= 300 + pace
    assert (paced.steps + 1) * pace + validations + 3 * paced.validation_seconds >= (paced.seconds or 0) - pace


def test_a_weight_map_says_what_its_objects_are() -> None:
    """Numbered ones where there are any, but for crops that a callable returned, which are of classes."""
    off = planned()
    assert (off.border, off.loss.border) == (0, 0) and off.because["border"].startswith("off")
    plan = planned(TrainOptions(set={"border": 10.0, "sigma": 4.0}), here=replace(HERE, instances=True))
    assert (plan.loss.border, plan.loss.sigma) == (10.0, 4.0)
    assert plan.because["border"] == f"{FIXED}; gaps between the objects of the masks"
    regions = f"{FIXED}; gaps between connected regions of a class"
    assert planned(TrainOptions(set={"border": 10.0})).because["border"] == regions
    assert without_objects(plan).because["border"] == regions


@given(
    drawing=st.floats(0.001, 4),
    cost=st.floats(0.05, 1),
    most=st.integers(0, 8),
    device=st.sampled_from(["cpu", "cuda"]),
)
@settings(deadline=None, max_examples=50)
def test_the_fewest_workers_that_hide_the_drawing_and_none_where_a_thread_does(
    drawing: float, cost: float, most: int, device: str
) -> None:
    """Each takes twice as long beside the steps as alone; a thread is in the way of a GPU, more than of a CPU."""
    plan = planned(cost=cost, here=replace(HERE, workers=most, device=device), drawing=Drawing(drawing, drawing))
    limit = 0.5 if device == "cpu" else 0.1
    assert (plan.workers == 0) == (drawing <= limit * plan.step_seconds or not most)
    assert plan.workers <= most
    if plan.workers:
        assert plan.workers == most or 2 * drawing / plan.workers <= plan.step_seconds * 1.0001
        assert 2 * drawing / max(plan.workers - 1, 0.001) > plan.step_seconds * 0.9999 or plan.workers == 1
    figures = f"a batch is drawn in {drawing:.2g} s, a step takes {plan.step_seconds:.2g} s"
    assert plan.because["workers"].startswith(figures)


def test_images_that_are_seen_again_are_read_once() -> None:
    """100 images, 8 a step: read anew in each of 12 steps, but once only in 50 times as many."""
    here, drawing = replace(HERE, workers=8), Drawing(read=1.0, kept=0.01)
    short, long = (planned(TrainOptions(steps=steps), here=here, drawing=drawing) for steps in (12, 600))
    assert (short.workers, long.workers) == (4, 0)
    assert long.because["workers"] == "a batch is drawn in 0.031 s, a step takes 0.5 s: a thread does"
    waiting = planned(TrainOptions(steps=12), here=here, drawing=Drawing(0.1, 0.1, between=True))
    assert (waiting.workers, planned(TrainOptions(steps=12), here=here, drawing=Drawing(0.1, 0.1)).workers) == (1, 0)


def test_what_drawing_took_to_be_measured_is_off_the_time() -> None:
    clock = [300.0]

    def draw(plan: Plan) -> Drawing:
        clock[0] -= 100
        return Drawing(0.01, 0.01)

    plan = make_plan(
        UNET, NUCLEI, asked(TrainOptions()), HERE, seconds_left=lambda: clock[0], needs=lambda _: 1,
        measure=lambda _: Cost(0.5, 1), draw=draw,
    )  # fmt: skip
    assert plan.seconds is not None and plan.seconds <= 200 and plan.expected_seconds <= 200


def test_replanning_believes_the_validation_that_was_measured() -> None:
    plan = planned(seconds=300)
    dear = replan(plan, step=10, seconds=9.0, pace=plan.step_seconds, validation=8.0)
    cheap = replan(plan, step=10, seconds=9.0, pace=plan.step_seconds, validation=0.5)
    assert (dear.validation_seconds, cheap.validation_seconds) == (8.0, 0.5)
    assert dear.steps < cheap.steps


def test_replanning_needs_a_time() -> None:
    with pytest.raises(ValueError, match="without a time"):
        replan(planned(TrainOptions(steps=5)), step=2, seconds=1.0, pace=0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("crop", 96), ("batch", 3), ("steps", 7), ("learning_rate", 0.01), ("scale", (0.5, 2.0)), ("upright", True),
     ("warm_up", 2), ("validate_every", 4), ("mean", (1.0, 2.0, 3.0)), ("micro", 2), ("checkpointing", False),
     ("workers", 3), ("memory_format", "channels_last")],
)  # fmt: skip
def test_what_is_fixed_stays_and_the_rest_is_planned_around_it(name: str, value: Any) -> None:
    plan, free = planned(TrainOptions(set={name: value})), planned()
    assert (getattr(plan, name), plan.because[name]) == (value, FIXED)
    if name not in ("crop", "batch", "steps", "validate_every"):
        assert {n: v for n, v in vars(plan).items() if n not in ("because", name)} == {
            n: v for n, v in vars(free).items() if n not in ("because", name)
        }


@given(every=st.integers(1, 50), seconds=st.floats(30, 900))
@settings(deadline=None)
def test_a_fixed_interval_of_validation_costs_steps(every: int, seconds: float) -> None:
    plan = planned(TrainOptions(set={"validate_every": every}), seconds=seconds)
    assert plan.validate_every == every
    if plan.steps > 1:
        unused = seconds - plan.expected_seconds
        assert 0 <= unused <= plan.step_seconds * (every + 2) + 3 * plan.validation_seconds
    paced = replan(plan, step=3, seconds=3 * plan.step_seconds, pace=plan.step_seconds)
    assert (paced.validate_every, paced.because["validate_every"]) == (every, FIXED)


def test_short_memory_is_met_by_smaller_parts_then_by_recomputing() -> None:
    assert (planned().micro, planned().checkpointing) == (8, False)
    half = planned(gigabytes=2)
    assert (half.batch, half.micro, half.checkpointing) == (8, 4, False)
    assert half.because["micro"] == "without, 8 crops at once need 16 GiB, more than 8 GiB"
    again = planned(gigabytes=4)
    assert (again.batch, again.micro, again.checkpointing) == (8, 4, True)
    assert again.options == {"widths": (4, 8), "checkpointing": True}
    assert planned(TrainOptions(set={"checkpointing": False}), gigabytes=4).micro == 2


def test_the_recipe_is_that_of_the_plan_before_there_is_one() -> None:
    fixed = {"weighting": "median_frequency", "dice": 0.0, "focal": 2.0, "focal_gamma": 1.0, "warm_up": 5}
    plan = planned(TrainOptions(set=fixed))
    assert recipe_of(fixed, NUCLEI) == (plan.loss, plan.part(OptimiserConfig))
    assert (plan.loss.terms, plan.loss.gamma) == ({"cross_entropy": 1.0, "focal": 2.0}, 1.0)
    assert plan.class_weights == NUCLEI.median_frequency
    assert plan.because["class_weights"] == "shares of the pixels 80.00%, 20.00%"
    assert planned().loss == LossConfig()
    assert planned(TrainOptions(set={"weighting": "effective_number"})).class_weights == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize(
    ("shares", "weighting"),
    [((0.9, 0.09, 0.01), "root_median_frequency"), ((0.9, 0.07, 0.03), "equal"), ((0.99, 0.01), "equal")],
)
def test_rare_classes_among_several_count_more(shares: tuple[float, ...], weighting: str) -> None:
    figures = replace(NUCLEI, class_shares=shares, median_frequency=(0.25, 1.0, 9.0)[: len(shares)])
    loss, _ = recipe_of({}, figures)
    assert loss.class_weights == ((0.5, 1.0, 3.0) if weighting == "root_median_frequency" else None)
    assert recipe_of({"weighting": "equal"}, figures)[0].class_weights is None


def test_what_the_network_sees_is_held_against_the_objects() -> None:
    figures = replace(NUCLEI, object_sizes=((), (4.0, 10.0, 80.0), (), (4.0, 10.0, 90.0)))
    assert coverage((50, 49), figures) == "it sees 100 px; of the objects one in ten is larger than 85 px"
    assert coverage((20, 20), figures) == "it sees 41 px, too few: of the objects one in ten is larger than 85 px"
    assert coverage((20, 20), NUCLEI) == "no object was measured"


def test_expected_seconds_are_those_of_steps_and_validations() -> None:
    plan = planned(TrainOptions(steps=70))
    assert plan.expected_seconds == pytest.approx(
        70 * 0.5 + ceil(70 / plan.validate_every) * plan.validation_seconds
    )
