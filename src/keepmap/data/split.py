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
    not matter and a file that is added moves hardly any other. While there is room, each class of two images or more
    is held out once, the rarest first; the other images of classes as rare as two are held out last.
    Raises DataError for fewer than two stems.
    """
    stems = list(classes)
    if len(stems) < 2:
        raise DataError("One image cannot be split.", found=f"{len(stems)} images", expected="at least 2")
    count = max(1, min(round(share * len(stems)), most, len(stems) - 1))
    ranked = sorted(stems, key=lambda stem: hashlib.sha256(f"{seed}:{stem}".encode()).digest())
    images = Counter(kind for stem in ranked for kind in set(classes[stem]))
    chosen = _covering(ranked, classes, images)[:count]
    spared = {stem for stem in ranked if any(images[kind] <= 2 for kind in classes[stem])}
    others = sorted((stem for stem in ranked if stem not in chosen), key=lambda stem: stem in spared)
    held_out = [*chosen, *others][:count]
    return tuple(sorted(set(ranked) - set(held_out))), tuple(sorted(held_out))


def _covering(ranked: Sequence[str], classes: Mapping[str, Collection[int]], images: Mapping[int, int]) -> list[str]:
    """Stems that together hold every class of two images or more, the rarest first. images: how many hold each."""
    chosen: list[str] = []
    for kind in sorted(images, key=lambda kind: (images[kind], kind)):
        if images[kind] >= 2 and not any(kind in classes[stem] for stem in chosen):
            chosen.append(next(stem for stem in ranked if kind in classes[stem]))
    return chosen
