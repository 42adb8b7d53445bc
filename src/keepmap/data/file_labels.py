"""What the values in a list of mask files mean, where there are no images beside them.

Does not check the masks against anything; `scan` does that for pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keepmap.data.classes import ClassNames
from keepmap.data.instances import collapse, holds_objects, number_their_objects
from keepmap.data.label_rules import find_labels, ignored_value, instance_labels
from keepmap.data.labels import LabelSet, unknown_values
from keepmap.data.masks import read_mask
from keepmap.data.smoothing import solid_values
from keepmap.data.strays import beside_binary
from keepmap.options import ImageOptions
from keepmap.protocols import Progress


def find_file_labels(
    masks: Sequence[Path],
    *,
    class_names: ClassNames | None,
    ignore: str,
    instances: str,
    progress: Progress,
    reading: ImageOptions = ImageOptions(),  # noqa: B008
) -> tuple[LabelSet, str]:
    """The labels of mask files and the sentence that says what they are taken for, as `scan` finds them.

    Raises DataError where a file cannot be read or the values fit no rule, OptionError.
    """
    ignored = ignored_value(ignore)
    counts: Counter[int] = Counter()
    solid: set[int] = set()
    told: list[bool | None] = []
    held: list[dict[int, int]] = []
    with progress.track("read masks", len(masks), "masks") as tracker:
        for path in masks:
            mask = read_mask(path, reading)
            mask = collapse(mask, ignored) if instances == "yes" else mask
            values, pixels = np.unique(mask, return_counts=True)
            found = dict(zip(values.tolist(), pixels.tolist(), strict=True))
            counts.update(found)
            held.append(found)
            solid.update(solid_values(mask, found))
            told.append(holds_objects(mask))
            tracker.advance()
    pair, stray = beside_binary(
        list(zip(held, told, strict=True)), class_names=class_names, ignore=ignore, instances=instances
    )
    for path, found in zip(masks, held, strict=True):
        if unknown := {value: pixels for value, pixels in found.items() if value in stray}:
            labels, _ = find_labels(dict.fromkeys(pair, 1), class_names=None, ignore=ignore)
            raise unknown_values(path, unknown, sum(found.values()), labels)
    if number_their_objects(instances, class_names is not None, told):
        apart = {value: count for value, count in counts.items() if value in (0, ignored)}
        return instance_labels(apart | {1: counts.total() - sum(apart.values())}, ignore=ignore)
    return find_labels(counts, class_names=class_names, ignore=ignore, solid=solid)
