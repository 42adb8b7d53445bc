"""Which images are held out for validation: a seeded choice by name.

Knows names only; neither files nor classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from keepmap.errors import DataError


def hold_out(
    stems: Sequence[str], *, seed: int, share: float = 0.15, most: int = 40
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training, validation) stems, each sorted: `share` of them, 1 to `most`, are held out.

    Each name is ranked by a hash of itself and the seed, so file order does not matter and a file that is added
    moves hardly any other. Raises DataError for fewer than two stems.
    """
    if len(stems) < 2:
        raise DataError("One image cannot be split.", found=f"{len(stems)} images", expected="at least 2")
    count = max(1, min(round(share * len(stems)), most, len(stems) - 1))
    ranked = sorted(stems, key=lambda stem: hashlib.sha256(f"{seed}:{stem}".encode()).digest())
    return tuple(sorted(ranked[count:])), tuple(sorted(ranked[:count]))
