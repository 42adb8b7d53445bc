"""The plan of a training: every number with the reason for it, from the data's figures and a few measured steps.

Pure: reads no file and runs no network. What a step costs it learns from the function that it is handed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from keepmap.config import from_dict
from keepmap.errors import RunError

FORMAT = 1
"""Format number of plan.json."""


@dataclass(frozen=True)
class Plan:
    """All that a training needs to know beside the data. Lengths in pixels, times in seconds.

    Every field but `because` has an entry in `because`: the sentence that says where its value came from.
    """

    network: str
    options: dict[str, Any]
    pretrained: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    device: str
    precision: str
    crop: int
    batch: int
    step_seconds: float
    steps: int
    seconds: float | None
    replanned_at: int
    validate_every: int
    validation_seconds: float
    learning_rate: float
    warm_up: int
    weight_decay: float
    scale: tuple[float, float]
    upright: bool
    invert: float
    gain: float
    shift: float
    value_range: tuple[float, float]
    seed: int
    because: dict[str, str] = field(default_factory=dict)

    def rows(self) -> dict[str, Any]:
        """The content of plan.json: name -> {value, because}."""
        names = [f.name for f in fields(self) if f.name != "because"]
        return {name: {"value": getattr(self, name), "because": self.because[name]} for name in names}


def plan_from_rows(rows: dict[str, Any], where: str) -> Plan:
    """The Plan that `rows()` came from. Raises RunError where a row is missing, unknown or of another type."""
    try:
        values = {name: row["value"] for name, row in rows.items()}
        reasons = {name: row["because"] for name, row in rows.items()}
    except (TypeError, KeyError) as error:
        raise RunError(f"{where} is no plan.", found=repr(error), expected="name: {value, because}") from error
    return from_dict(Plan, {**values, "because": reasons}, where, RunError)


@dataclass(frozen=True)
class Cost:
    """What one optimiser step was measured to take: seconds, and bytes of memory at the peak."""

    seconds: float
    bytes: int


Measure = Callable[[int, int], Cost]
"""(crop, batch) -> what a training step costs on this machine."""
