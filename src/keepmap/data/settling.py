"""What the values or colours of a damaged data set's masks are to become: which are labels, and which id each gets.

Knows the masks by their counts only and reads no file.

The rule. What `--classes` lists are the labels. Else the form that most masks have, numbers or colours, is that of the
data set. Numbers keep their meaning where they fit a rule of `label_rules`: those of the undamaged masks; else without
the values of few masks; else the main ones of `smoothing` alone. Two main values near 0 and 255 are these. What fits no
rule is numbered from 0 in ascending order; colours are, too, so that black, if there is any, is 0. The value that
`--ignore` names becomes 255 among these numbers. Masks that number objects keep all their values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keepmap.data import smoothing
from keepmap.data.classes import ClassNames
from keepmap.data.instances import number_their_objects
from keepmap.data.label_rules import find_labels, ignored_value
from keepmap.data.labels import LabelSet
from keepmap.data.strays import beside_binary, total_counts, without_strays
from keepmap.data.values import is_coloured, value_text
from keepmap.errors import DataError, OptionError

_MOST_CLASSES = 64
_IGNORED = 255


@dataclass(frozen=True)
class Look:
    """What one mask holds. coloured: whether its values are colours; None where there are only greys, of an RGB file.

    lossy: whether it was smoothed or compressed. counts: pixels per value, of at most 1000, the most frequent.
    mains: `smoothing.main_values`. solid: `smoothing.solid_values`. objects: `instances.holds_objects`.
    """

    coloured: bool | None
    lossy: bool
    counts: Mapping[int, int]
    mains: Mapping[int, int]
    solid: tuple[int, ...]
    objects: bool | None = None


class Key(NamedTuple):
    """What the values of a data set's masks stand for: `values[i]` is written for `mains[i]`, of the class `names[i]`.

    names: where masks are renumbered, as many as there are classes: those given, else the former values.
    Neither mains nor values where the masks number objects.
    """

    coloured: bool
    mains: tuple[int, ...]
    values: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def renumbered(self) -> bool:
        """Whether masks get other values than they have."""
        return self.mains != self.values

    @property
    def classes(self) -> list[tuple[str, int]]:
        """Name and value of each class, where masks are renumbered; not of the ignored one, the last."""
        return list(zip(self.names, self.values, strict=False))


def settle(looks: Sequence[Look], *, class_names: ClassNames | None, ignore: str, instances: str) -> Key:
    """What the values of these masks stand for.

    Raises DataError where that cannot be told, OptionError for `ignore`.
    """
    if not looks:
        raise DataError("No mask can be read.", expected="masks", do="look at the findings of keepmap check")
    told = [(seen.counts, seen.objects) for seen in looks if not seen.lossy]
    _, stray = beside_binary(told, class_names=class_names, ignore=ignore, instances=instances)
    looks = [seen for seen in looks if not stray & seen.counts.keys()]
    if number_their_objects(instances, class_names is not None, {seen.objects for seen in looks if not seen.lossy}):
        return Key(False, (), ())
    ignored = ignored_value(ignore)
    table = None if class_names is None else class_names.values
    kinds = Counter(seen.coloured for seen in looks)
    coloured = kinds[True] > kinds[False] if table is None else is_coloured(table)
    if coloured and class_names is not None:
        if table is None:
            find_labels(total_counts(seen.counts for seen in looks), class_names=class_names, ignore=ignore)
        return _numbered(class_names.names, table or (), ignored, coloured)
    looks = [seen for seen in looks if seen.coloured in (coloured, None)]
    exact = [seen for seen in looks if not seen.lossy]
    labels = None if coloured else _labels(exact, class_names, ignore)
    if labels is not None:
        values = tuple(sorted({*labels.values, *([] if labels.ignore is None else [labels.ignore])}))
        return Key(False, values, values)
    if table is not None:
        return Key(False, table, table)
    mains = tuple(sorted(_exact_values(exact))) if exact else ()
    if len(mains) < 2:
        mains = smoothing.merge_values(total_counts(seen.mains for seen in looks), coloured)
    if not 2 <= len(mains) <= _MOST_CLASSES:
        raise DataError(
            "The labels of the masks cannot be told from the damage.", found=f"{len(mains)} values that fill areas",
            expected=f"2 to {_MOST_CLASSES}", do="save the masks from their source, or list the classes with --classes",
        )
    known = None if coloured else _known(mains, class_names, ignore)
    return known or _numbered((), mains, ignored, coloured)


def _labels(exact: Sequence[Look], class_names: ClassNames | None, ignore: str) -> LabelSet | None:
    """The labels that the undamaged masks have by themselves."""
    for masks in ([seen.counts for seen in exact], [seen.mains for seen in exact]):
        try:
            return find_labels(total_counts(masks), class_names=class_names, ignore=ignore)[0]
        except DataError:
            found = without_strays(masks, class_names=class_names, ignore=ignore, solid=None)
        if found is not None:
            return found[0]
    return None


def _exact_values(exact: Sequence[Look]) -> set[int]:
    """Values that fill areas in some undamaged mask, or occur in most, as lines do that are thin everywhere."""
    held = Counter(value for seen in exact for value in seen.counts)
    return {value for seen in exact for value in seen.mains} | {v for v in held if 2 * held[v] > len(exact)}


def _known(mains: tuple[int, ...], class_names: ClassNames | None, ignore: str) -> Key | None:
    """Numbers as they are if they fit a rule, as 0 and 255 if they are near."""
    near = [value for value in mains if min(value, abs(255 - value)) < smoothing.APART]
    if len(mains) == 2 and near == list(mains):
        return Key(False, mains, (0, 255))
    try:
        find_labels(dict.fromkeys(mains, 1), class_names=class_names, ignore=ignore)
    except DataError:
        return None
    return Key(False, mains, mains)


def _numbered(names: tuple[str, ...], mains: tuple[int, ...], ignored: int | None, coloured: bool) -> Key:
    """The ids 0, 1, ... for `mains`, and 255 for the ignored one. names: of `mains`, or none."""
    names = names or tuple(value_text(main, coloured) for main in mains)
    kept = {main: name for main, name in zip(mains, names, strict=True) if main != ignored}
    last = () if ignored is None else (ignored,)
    if last and len(kept) > _IGNORED:
        raise OptionError(f"--ignore leaves no number for {len(kept)} classes.", expected=f"at most {_IGNORED}")
    return Key(coloured, (*kept, *last), (*range(len(kept)), *(_IGNORED for _ in last)), tuple(kept.values()))
