"""plan.json holds the plan with its reasons, and only that."""

import json
from dataclasses import dataclass

import pytest

from keepmap.errors import RunError
from keepmap.planning.plan import ENTRIES, GROUPS, Plan, plan_from_rows

PLAN = Plan(
    network="unet", options={"widths": (4, 8)}, pretrained=False, mean=(1.0,), deviation=(2.0,), device="cpu",
    precision="float32", crop=64, batch=2, step_seconds=0.1, steps=5, seconds=None, validate_every=2,
    validation_seconds=0.1, replanned_at=0,
    learning_rate=1e-3, warm_up=1, weight_decay=0.0, scale=(0.5, 2.0), upright=False, invert=0.0, gain=0.1, shift=1.0,
    value_range=(0.0, 255.0), seed=3, because={},
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    crop: int
    fill: int


def reasoned() -> Plan:
    names = [name for name in Plan.__dataclass_fields__ if name != "because"]
    return Plan(**{name: getattr(PLAN, name) for name in names}, because=dict.fromkeys(names, "a reason"))


def test_a_plan_survives_json() -> None:
    rows = json.loads(json.dumps(reasoned().rows()))
    loaded = plan_from_rows(rows, "plan.json")
    assert loaded.options == {"widths": [4, 8]}
    assert loaded == Plan(**{**vars(reasoned()), "options": {"widths": [4, 8]}})


def test_a_plan_of_before_does_what_was_done_then() -> None:
    rows = reasoned().rows()
    del rows["micro"]
    loaded = plan_from_rows(rows, "plan.json")
    assert (loaded.micro, loaded.because["micro"]) == (0, "not planned when this training began")


def test_every_entry_has_its_place_and_parts_take_theirs() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(ENTRIES)
    assert reasoned().part(Pair, fill=7) == Pair(64, 7)


def test_a_broken_plan_is_named() -> None:
    with pytest.raises(RunError, match=r"run/plan.json is no plan"):
        plan_from_rows({"steps": 3}, "run/plan.json")
    rows = reasoned().rows()
    rows["stepz"] = rows.pop("steps")
    with pytest.raises(RunError, match="did you mean steps"):
        plan_from_rows(rows, "run/plan.json")
