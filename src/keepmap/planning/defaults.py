"""What a training does where neither the data nor the machine say otherwise.

One table; chooses nothing. A value changes only by an ablation that it wins.
"""

from __future__ import annotations

from typing import Any

_OFF = "off"
_SHARE = "off: (share of the crops, at most"

DEFAULTS: dict[str, tuple[Any, str]] = {
    "optimiser": ("adamw", "needs the least tuning"),
    "learning_rate": (2e-3, "for AdamW; another optimiser may want another"),
    "encoder_rate": (1.0, "the encoder learns as fast as the rest"),
    "schedule": ("cosine", "falls to 0 at the last step"),
    "weight_decay": (1e-2, "for AdamW"),
    "clipping": (None, _OFF),
    "averaging": (0.0, _OFF),
    "frozen_statistics": (False, _OFF),
    "cross_entropy": (1.0, "weight of the term: every pixel counts"),
    "dice": (1.0, "weight of the term: every class counts, however rare"),
    "focal": (0.0, _OFF),
    "tversky": (0.0, _OFF),
    "smoothing": (0.0, _OFF),
    "focal_gamma": (2.0, "of the term focal"),
    "tversky_alpha": (0.3, "of the term tversky: what a false positive counts"),
    "tversky_beta": (0.7, "of the term tversky: what a false negative counts"),
    "border": (0.0, "off: what a pixel in the narrowest gap between two objects counts more"),
    "sigma": (5.0, "of border: px, how wide a gap may be"),
    "scale": ((0.6, 1.7), "objects vary in size and distance"),
    "gain": (0.3, "exposure varies"),
    "rotation": ((0.0, 0.0), f"{_SHARE} degrees)"),
    "shear": ((0.0, 0.0), f"{_SHARE} degrees)"),
    "elastic": ((0.0, 0.0), f"{_SHARE} pixels)"),
    "colour": ((0.0, 0.0), f"{_SHARE} this from 1)"),
    "contrast": ((0.0, 0.0), f"{_SHARE} this from 1)"),
    "gamma": ((0.0, 1.0), f"{_SHARE} this exponent)"),
    "noise": ((0.0, 0.0), f"{_SHARE} raw values)"),
    "blur": ((0.0, 0.0), f"{_SHARE} pixels)"),
    "coarse": ((0.0, 1.0), f"{_SHARE} so many times as wide)"),
}
"""Entry of the plan -> its value and the reason."""
