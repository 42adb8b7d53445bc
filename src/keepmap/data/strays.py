"""Which label values are those of a data set, and which ones strayed into a few of its masks.

Knows counts only; which values can be labels at all is decided by `label_rules`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from keepmap.data.classes import ClassNames
from keepmap.data.label_rules import find_labels
from keepmap.data.labels import LabelSet
from keepmap.errors import InputError

_ONE_BY_ONE = 50  # stray values that are left out one after the other; beyond, all of equal rarity at once


def total_counts(masks: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Pixels per label value over all masks, ascending."""
    total: Counter[int] = Counter()
    for counts in masks:
        total.update(counts)
    return dict(sorted(total.items()))


def beside_binary(
    masks: Sequence[tuple[Collection[int], bool | None]],
    *,
    class_names: ClassNames | None,
    ignore: str,
    instances: str,
) -> tuple[tuple[int, int], set[int]]:
    """The two values that most masks hold alone, and those beside them, which strayed into the others.

    masks: the values of each, and what `instances.holds_objects` says of it. 0 and 255 count where more masks hold
    these two alone than any others, else 255 would be ignored; 0 and 1 where they do so in many regions, else one mask
    of numbers would make each of the others a single object. Nothing strayed where that is not so, and where the user
    said what the values mean.
    """
    if class_names is not None or ignore != "auto" or instances == "yes":
        return (0, 255), set()
    strangers = [set(values) - {0, 255} for values, _ in masks]
    alone = sum(not other and 255 in values for (values, _), other in zip(masks, strangers, strict=True))
    if alone > sum(map(bool, strangers)):
        return (0, 255), set().union(*strangers)
    strangers = [set(values) - {0, 1} for values, _ in masks]
    alone = sum(not other and told is False for (_, told), other in zip(masks, strangers, strict=True))
    numbered = instances == "auto" and any(told for _, told in masks)
    return (0, 1), set().union(*strangers) if numbered and 2 * alone > len(masks) else set()


def without_strays(
    masks: Sequence[Mapping[int, int]], *, class_names: ClassNames | None, ignore: str, solid: Collection[int] | None
) -> tuple[LabelSet, set[int]] | None:
    """The labels of masks, each given as pixels per value, once the rarest values are left out, and those values.

    None where that does not help, or more than half of the masks hold such a value.
    """
    counts = total_counts(masks)
    in_files = Counter(value for mask in masks for value in mask)
    order = sorted(counts, key=lambda value: (in_files[value], counts[value]))
    for number, value in enumerate(order, start=1):
        after = order[number] if number < len(order) else None
        if number > _ONE_BY_ONE and after is not None and in_files[after] == in_files[value]:
            continue
        stray = set(order[:number])
        try:
            rest = {other: count for other, count in counts.items() if other not in stray}
            labels, _ = find_labels(rest, class_names=class_names, ignore=ignore, solid=solid)
        except InputError:
            continue
        blamed = sum(bool(stray & mask.keys()) for mask in masks)
        return None if 2 * blamed > len(masks) else (labels, stray)
    return None
