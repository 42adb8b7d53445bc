"""Images and masks whose names differ in no more than case, Unicode form, separators, suffix or a word such as "mask".

Looks at names only, and never decides by itself: `pairing` reports such partners and `repair` renames copies of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

_WORDS = frozenset((
    "mask", "masks", "label", "labels", "labelids", "lbl", "gt", "groundtruth", "truth", "seg", "segmentation",
    "target", "annotation", "annotations", "image", "images", "img", "im", "leftimg8bit", "gtfine", "png", "jpg",
))
"""Words that say what a file is, not what it shows."""


def plain_name(path: Path, folder: Path) -> str:
    """What is left of a name: words in lower case, numbers without leading zeros, "_" between them."""
    text = unicodedata.normalize("NFKC", path.relative_to(folder).with_suffix("").as_posix()).casefold()
    words = [word for word in re.split(r"[\W_]+", text) if word and word not in _WORDS]
    return "_".join(word.lstrip("0") or "0" if word.isdigit() else word for word in words)


def likely_partners(
    images: Iterable[Path], image_folder: Path, masks: Iterable[Path], mask_folder: Path
) -> list[tuple[Path, Path]]:
    """Image and mask of the same plain name, where no other of these images and masks has it."""
    found: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, (paths, folder) in enumerate(((images, image_folder), (masks, mask_folder))):
        for path in paths:
            found[plain_name(path, folder)][side].append(path)
    return [(ours[0], theirs[0]) for name, (ours, theirs) in found.items() if name and len(ours) == len(theirs) == 1]
