"""The plan of a training: every number with the reason for it, from the data's figures and a few measured steps.

Pure: reads no file and runs no network. What a step costs it learns from the functions that it is handed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from keepmap.config import from_dict
from keepmap.errors import RunError
from keepmap.planning.recipe import LOSSES, LossConfig

T = TypeVar("T")
Chance = tuple[float, float]
"""(share of the crops that something happens to, how far it goes at most), see `data.augment`."""
MemoryFormat = Literal["contiguous", "channels_last"]
FORMAT = 1
"""Format number of plan.json."""
GROUPS: dict[str, tuple[str, ...]] = {
    "network": ("network", "options", "pretrained", "reach", "mean", "deviation"),
    "machine": ("device", "processes", "precision", "memory_format", "memory", "cache", "workers"),
    "step": ("crop", "batch", "micro", "checkpointing", "step_seconds", "step_bytes"),
    "length": ("seconds", "steps", "replanned_at", "validate_every", "validation_images", "validation_seconds"),
    "optimiser": ("optimiser", "learning_rate", "encoder_rate", "schedule", "warm_up", "weight_decay", "clipping",
                  "averaging", "frozen_statistics"),
    "loss": ("cross_entropy", "dice", "focal", "tversky", "smoothing", "weighting", "class_weights", "focal_gamma",
             "tversky_alpha", "tversky_beta", "border", "sigma"),
    "augmentation": ("scale", "upright", "invert", "gain", "shift", "value_range", "rotation", "shear", "elastic",
                     "colour", "contrast", "gamma", "noise", "blur", "coarse"),
    "sampling": ("area_power", "class_rate", "seed"),
}
"""Title -> entries: every entry in the order in which it is shown."""


@dataclass(frozen=True)
class Plan:
    """All that a training needs to know beside the data. Lengths in pixels, times in seconds, sizes in bytes.

    Every field but `because` has an entry in `because`: the sentence that says where its value came from. What has a
    default here was not always planned; the default is what was done before. What the entries of the optimiser do is
    told in `recipe.OptimiserConfig`, of augmentation in `data.augment.Augmentation`, of sampling in `data.sampling`.

    cross_entropy, dice, focal, tversky: weights of the terms of the loss. weighting: where class_weights come from.
    memory_format: None for what the engine finds fastest. workers: that draw batches, 0 for a thread. processes: that
    share a batch. micro: crops of one pass, 0 for all that a process has. memory: of a step; cache: of decoded images.
    validation_images: of those held out, that a validation scores, 0 for all.
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
    reach: tuple[int, int] = (0, 0)
    micro: int = 0
    checkpointing: bool = False
    memory: int = 1 << 31
    cache: int = 1 << 30
    step_bytes: int = 0
    optimiser: Literal["adamw", "sgd"] = "adamw"
    encoder_rate: float = 1.0
    schedule: Literal["cosine", "poly"] = "cosine"
    clipping: float | None = None
    averaging: float = 0.0
    frozen_statistics: bool = False
    cross_entropy: float = 1.0
    dice: float = 1.0
    focal: float = 0.0
    tversky: float = 0.0
    smoothing: float = 0.0
    weighting: Literal["equal", "root_median_frequency", "median_frequency", "effective_number"] = "equal"
    class_weights: tuple[float, ...] | None = None
    focal_gamma: float = 2.0
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    border: float = 0.0
    sigma: float = 5.0
    rotation: Chance = (0.0, 0.0)
    shear: Chance = (0.0, 0.0)
    elastic: Chance = (0.0, 0.0)
    colour: Chance = (0.0, 0.0)
    contrast: Chance = (0.0, 0.0)
    gamma: Chance = (0.0, 1.0)
    noise: Chance = (0.0, 0.0)
    blur: Chance = (0.0, 0.0)
    coarse: Chance = (0.0, 1.0)
    class_rate: float = 0.0
    processes: int = 1
    memory_format: MemoryFormat | None = None
    workers: int = 0
    validation_images: int = 0
    area_power: float = 0.0

    @property
    def loss(self) -> LossConfig:
        """The loss that the entries of its group describe."""
        return loss_of_entries(vars(self))

    @property
    def validations(self) -> int:
        """How often the held-out images are scored."""
        return math.ceil(self.steps / self.validate_every)

    @property
    def expected_seconds(self) -> float:
        """What the steps and the validations should take together."""
        return self.steps * self.step_seconds + self.validations * self.validation_seconds

    @property
    def expected_bytes(self) -> int:
        """What a step and the decoded images should take together, beside Python and its packages."""
        return self.step_bytes + self.cache

    def rows(self) -> dict[str, Any]:
        """The content of plan.json: name -> {value, because}."""
        return {name: {"value": getattr(self, name), "because": self.because[name]} for name in ENTRIES}

    def part(self, cls: type[T], **others: Any) -> T:
        """The dataclass `cls` with the entries that bear the names of its fields; `others`: what is no entry."""
        names = [f.name for f in fields(cls) if f.name in ENTRIES]  # type: ignore[arg-type]
        return cls(**{name: getattr(self, name) for name in names}, **others)


ENTRIES: dict[str, Any] = {f.name: f for f in fields(Plan) if f.name != "because"}
"""The names in plan.json, in its order."""


def loss_of_entries(entries: Mapping[str, Any]) -> LossConfig:
    """The loss that entries of the plan describe. Raises OptionError for what cannot be."""
    return LossConfig(
        terms={name: entries[name] for name in LOSSES if entries[name]},
        smoothing=entries["smoothing"],
        class_weights=entries["class_weights"],
        gamma=entries["focal_gamma"],
        alpha=entries["tversky_alpha"],
        beta=entries["tversky_beta"],
        border=entries["border"],
        sigma=entries["sigma"],
    )


def plan_from_rows(rows: dict[str, Any], where: str) -> Plan:
    """The Plan that `rows()` came from. Raises RunError where a row is missing, unknown or of another type."""
    try:
        values = {name: row["value"] for name, row in rows.items()}
        reasons = {name: row["because"] for name, row in rows.items()}
    except (TypeError, KeyError) as error:
        raise RunError(f"{where} is no plan.", found=repr(error), expected="name: {value, because}") from error
    unplanned = dict.fromkeys(ENTRIES.keys() - rows.keys(), "not planned when this training began")
    return from_dict(Plan, {**values, "because": {**unplanned, **reasons}}, where, RunError)


@dataclass(frozen=True)
class Setting:
    """How a step is taken. crop: side in pixels; batch: crops of a step; micro: crops of one pass."""

    crop: int
    batch: int
    micro: int
    checkpointing: bool


@dataclass(frozen=True)
class Cost:
    """What one optimiser step was measured to take: seconds, and bytes of memory at the peak."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Drawing:
    """Seconds that a process was measured to draw its part of a batch in: of images read anew, and of those at hand.

    between: whether a thread would draw between the steps, not beside them.
    """

    read: float
    kept: float
    between: bool = False


Measure = Callable[[Setting], Cost]
"""What a training step costs on this machine, from real ones."""
Needs = Callable[[Setting], int]
"""The bytes that a training step needs, computed without one."""
Draw = Callable[[Plan], Drawing]
"""What drawing the batches of a plan costs on this machine, from real ones."""
