"""What a training is told about its loss and its optimiser, and the weights of classes that are rare.

Plain values that fit plan.json. What is computed from them is in `training`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from keepmap.errors import OptionError, nearest
from keepmap.protocols import Array

LOSSES = ("cross_entropy", "dice", "focal", "tversky")
"""The terms that a loss may be a sum of."""


@dataclass(frozen=True)
class LossConfig:
    """A weighted sum of terms, and what they are computed with. Raises OptionError for what cannot be.

    terms: name, one of LOSSES -> its weight, above 0.
    smoothing: of the truth in cross_entropy: this share of it is spread over all classes (Szegedy 2016, section 7).
    class_weights: of the pixels of each class in cross_entropy and focal; None: all count 1.
    gamma: exponent of focal (Lin 2017, section 3.2; 0: cross-entropy).
    alpha, beta: what false positives and false negatives count in tversky (Salehi 2017; 0.5 each: Dice).
    border, sigma: w0 and sigma (pixels) of the U-Net's weight map (Ronneberger 2015, equation 2: 10 and 5). It weighs
    each pixel in cross_entropy and focal, and holds the class weights. border 0: there is no map.
    """

    terms: dict[str, float] = field(default_factory=lambda: {"cross_entropy": 1.0, "dice": 1.0})
    smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    gamma: float = 2.0
    alpha: float = 0.3
    beta: float = 0.7
    border: float = 0.0
    sigma: float = 5.0

    def __post_init__(self) -> None:
        for name in self.terms:
            if name not in LOSSES:
                raise OptionError(f"There is no loss {name}.", found=name, expected=nearest(name, LOSSES))
        if not self.terms:
            raise OptionError("A loss is a sum of one term at least.", expected=f"one of {', '.join(LOSSES)}")
        for name, weight in self.terms.items():
            _check(f"the weight of {name}", weight, 1e-6)
        for weight in self.class_weights or ():
            _check("the weight of a class", weight, 0.0)
        if self.class_weights is not None and not any(self.class_weights):
            raise OptionError("One class at least must count.", found=f"class_weights {self.class_weights}")
        _check("smoothing", self.smoothing, 0.0, 1.0)
        for name in ("gamma", "alpha", "beta", "border"):
            _check(name, getattr(self, name), 0.0)
        _check("sigma", self.sigma, 0.1)


@dataclass(frozen=True)
class OptimiserConfig:
    """How weights follow from gradients. Raises OptionError for what cannot be.

    optimiser: adamw (betas 0.9, 0.999) or sgd with Nesterov's momentum of 0.9.
    learning_rate: the highest. encoder_rate: what the encoder learns at, as a share of it.
    weight_decay: of kernels alone, not of norms and biases.
    schedule: after warm_up steps of rising linearly, half a cosine to 0 (Loshchilov 2017, without restarts), or poly:
    the share of the steps that are left, to the power 0.9 (Liu 2015).
    clipping: norm that all gradients together are cut down to; None: they are left alone.
    averaging: decay of a moving average of the weights, which is what is validated and kept; 0: the weights themselves.
    frozen_statistics: whether batch norm normalises in training by the statistics that it began with.
    """

    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    encoder_rate: float = 1.0
    weight_decay: float = 1e-2
    schedule: Literal["cosine", "poly"] = "cosine"
    warm_up: int = 30
    clipping: float | None = None
    averaging: float = 0.0
    frozen_statistics: bool = False

    def __post_init__(self) -> None:
        for name, kinds in (("optimiser", ("adamw", "sgd")), ("schedule", ("cosine", "poly"))):
            value = getattr(self, name)
            if value not in kinds:
                raise OptionError(f"There is no {name} {value}.", found=value, expected=nearest(value, kinds))
        for name in ("learning_rate", "encoder_rate", "weight_decay", "warm_up"):
            _check(name, getattr(self, name), 0.0)
        _check("clipping", 1.0 if self.clipping is None else self.clipping, 1e-6)
        _check("averaging", self.averaging, 0.0, 0.999999)


def _check(name: str, value: float, least: float, most: float = math.inf) -> None:
    """Raise OptionError unless `value` is a finite number from `least` to `most`."""
    if not (math.isfinite(value) and least <= value <= most):
        ceiling = f" and at most {most:g}" if most < math.inf else ""
        raise OptionError(f"{name} {value} cannot be.", found=str(value), expected=f"at least {least:g}{ceiling}")


def learning_rate(step: int, steps: int, config: OptimiserConfig) -> float:
    """The learning rate of step `step` of `steps`, counted from 0: linear warm-up times the schedule."""
    rising = min(1.0, (step + 1) / max(1, config.warm_up))
    falling = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    if config.schedule == "poly":
        falling = (1 - step / steps) ** 0.9
    return config.learning_rate * rising * falling


def median_frequency(pixels: Array) -> tuple[float, ...]:
    """Weights of the K classes by median frequency balancing (Eigen and Fergus 2015).

    pixels: (M, K) of each of M images, by class. A class counts the median of all frequencies over its own, which is
    its share of the labelled pixels in the images where it occurs; one that never occurs counts 1.
    """
    counts = np.asarray(pixels, float)
    own = counts.sum(0)
    where_it_is = (counts.sum(1, keepdims=True) * (counts > 0)).sum(0)
    present = own > 0
    frequency = own[present] / where_it_is[present]
    weights = np.ones(len(own))
    weights[present] = np.median(frequency) / frequency if present.any() else 1.0
    return tuple(float(weight) for weight in weights)


def effective_number(samples: Array, beta: float = 0.9999) -> tuple[float, ...]:
    """Weights of the K classes by their effective number of samples (Cui 2019), of mean 1.

    samples: (K,) of each class. Pixels are many and alike: far above 1 / (1 - beta) of them all classes count the
    same, so that counts of images or objects tell more. A class without samples counts 1.
    """
    counts = np.asarray(samples, float)
    present = counts > 0
    weights = np.ones(len(counts))
    raw = (1 - beta) / -np.expm1(counts[present] * math.log(beta)) if beta > 0 else np.ones(int(present.sum()))
    weights[present] = raw / raw.mean() if present.any() else 1.0
    return tuple(float(weight) for weight in weights)

