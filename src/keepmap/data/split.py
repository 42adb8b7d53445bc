"""Which images are held out for validation: a seeded choice by name.

Knows names and which classes each holds; no files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from keepmap.errors import DataError


def hold_out(
    classes: Mapping[str, Collection[int]], *, seed: int, share: float = 0.15, most: int = 40
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training, validation) stems, each sorted: `share` of them, 1 to `most`, are held out.

    classes: stem -> the classes in its mask. Each name is ranked by a hash of itself and the seed, so file order does
    not matter and a file that is added moves hardly any other. The rarest classes choose first: each that at least two
    images hold gets one into validation while there is room. Raises DataError for fewer than two stems.
    """
    stems = list(classes)
    if len(stems) < 2:
        raise DataError("One image cannot be split.", found=f"{len(stems)} images", expected="at least 2")
    count = max(1, min(round(share * len(stems)), most, len(stems) - 1))
    ranked = sorted(stems, key=lambda stem: hashlib.sha256(f"{seed}:{stem}".encode()).digest())
    held_out = _covering(ranked, classes, count)
    held_out += [stem for stem in ranked if stem not in held_out][: count - len(held_out)]
    return tuple(sorted(set(ranked) - set(held_out))), tuple(sorted(held_out))


def _covering(ranked: Sequence[str], classes: Mapping[str, Collection[int]], count: int) -> list[str]:
    """Up to `count` stems that hold as many classes as they can, the rarest first."""
    images = Counter(kind for stem in ranked for kind in set(classes[stem]))
    chosen: list[str] = []
    for kind in sorted(images, key=lambda kind: (images[kind], kind)):
        if images[kind] < 2 or len(chosen) == count or any(kind in classes[stem] for stem in chosen):
            continue
        chosen.append(next(stem for stem in ranked if kind in classes[stem]))
    return chosen
