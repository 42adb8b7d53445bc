"""Which label values are classes: the rules, tried on how often each value occurs.

Does not read masks; when no rule fits, the error says which one was missed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from keepmap.data.classes import ClassNames
from keepmap.data.labels import SHOWN, LabelSet, default_colours, describe_counts
from keepmap.data.values import (
    LARGEST_VALUE,
    Colour,
    colours_between,
    is_coloured,
    parse_value,
    unpack_colours,
    value_text,
)
from keepmap.errors import DataError, OptionError

_MOST_IDS = 200  # with more, 0 to 255 may be the greys of a smoothed mask
_MOST_COLOURS = 64  # with more, they are not taken for classes unless a table says so


def find_labels(
    counts: Mapping[int, int],
    *,
    class_names: ClassNames | None,
    ignore: str,
    solid: Collection[int] | None = None,
) -> tuple[LabelSet, str]:
    """The label set that masks with these values stand for, and a sentence that says what they are taken for.

    counts: pixels per value over the data set. class_names: K classes, some of which may be absent.
    ignore: "auto" (255 beside ids), "none" or a value. solid: the values that do not occur in thin lines only, by which
    smoothed colours are told from classes; None if unknown.
    Raises DataError where the values fit no rule, OptionError.
    """
    left_out = ignored_value(ignore)
    rest = {value for value in counts if value != left_out}
    coloured = is_coloured(rest) or (class_names is not None and is_coloured(class_names.values or ()))
    if class_names is not None and class_names.values is not None:
        values = _listed_values(counts, rest, (class_names.names, class_names.values), left_out, ignore)
    elif coloured:
        values = _colour_values(counts, rest, solid, named=class_names is not None)
    elif class_names is not None:
        values = _named_values(counts, rest, class_names.names, left_out, ignore)
    else:
        values = _plain_values(counts, rest, left_out, ignore)
    if left_out is None and ignore == "auto" and not coloured and 255 in rest and 255 not in values:
        left_out = 255
    names = _names(values, class_names, left_out, coloured)
    labels = LabelSet(values, names, left_out, _colours(values, names, coloured))
    return labels, _sentence(labels, counts)


def instance_labels(counts: Mapping[int, int], *, ignore: str) -> tuple[LabelSet, str]:
    """The label set of instance masks, where every value but 0 and the ignored one numbers an object, and a sentence.

    counts: pixels per value, all objects counted as 1. Raises DataError where there is no object, OptionError.
    """
    left_out = ignored_value(ignore)
    if left_out in (0, 1):
        raise OptionError(
            f"--ignore {ignore} cannot be left out of instance masks.", expected="a value that no object has"
        )
    if not counts.get(1) or not counts.get(0):
        raise _too_few(counts, left_out)
    labels = LabelSet((0, 1), ("background", "object"), left_out, default_colours(2), instances=True)
    text = "each value above 0 is taken for the number of an object: 0 background, 1 object"
    return labels, text + _ignored_text(labels, counts) + "."


def ignored_value(ignore: str) -> int | None:
    """The value that `--ignore` names; None for "auto" and "none". Raises OptionError."""
    if ignore in ("auto", "none"):
        return None
    value = parse_value(ignore)
    if value is None:
        raise OptionError(
            f"--ignore {ignore} is no label value.", found=ignore,
            expected=f"auto, none, a number 0..{LARGEST_VALUE}, or a colour such as 255,0,0",
        )
    return value


def _named_values(
    counts: Mapping[int, int], rest: Collection[int], names: tuple[str, ...], ignored: int | None, ignore: str
) -> tuple[int, ...]:
    """The class values where the user named the classes in the order of their ids."""
    ids = tuple(value for value in range(len(names)) if value != ignored)
    _require_two(ids, names)
    if len(ids) == 2 and 255 in rest and set(rest) <= {0, 255}:
        return (0, 255)
    strangers = {v: counts[v] for v in rest if v not in ids and not (v == 255 and ignore == "auto")}
    if strangers:
        raise DataError(
            "The masks contain values for which --classes has no name.",
            found=describe_counts(strangers, sum(counts.values())), expected=f"0..{len(names) - 1}: {', '.join(names)}",
            do="add the missing names in the order of the values, correct the masks, or pass --ignore VALUE",
        )
    return ids


def _require_two(values: Collection[int], names: Collection[str]) -> None:
    if len(values) < 2:
        raise OptionError(
            "--classes leaves fewer than two classes.", found=", ".join(names), expected="two names or more, one a line"
        )


def _listed_values(
    counts: Mapping[int, int], rest: set[int], listed: tuple[tuple[str, ...], tuple[int, ...]],
    ignored: int | None, ignore: str,
) -> tuple[int, ...]:
    """The class values where a table gives them. listed: its names and values."""
    names, values = listed
    kept = tuple(value for value in values if value != ignored)
    _require_two(kept, names)
    coloured = is_coloured(values)
    strangers = {v: counts[v] for v in rest if v not in kept and not (v == 255 and ignore == "auto" and not coloured)}
    if strangers:
        kind = "colours" if coloured or is_coloured(strangers) else "values"
        given = [f"{value_text(v, coloured)} {name}" for v, name in zip(values, names, strict=True)]
        raise DataError(
            f"The masks contain {kind} that --classes does not list.",
            found=describe_counts(strangers, sum(counts.values()), coloured=kind == "colours"),
            expected=", ".join(given),
            do=f"add a line for each, correct the masks, or pass --ignore {'R,G,B' if coloured else 'VALUE'}",
        )  # fmt: skip
    return kept


def _colour_values(
    counts: Mapping[int, int], rest: set[int], solid: Collection[int] | None, *, named: bool
) -> tuple[int, ...]:
    """The class colours where the colours alone must tell."""
    if named:
        raise DataError(
            "The masks are colour-coded, and --classes names no colours.", found=describe_counts(counts),
            expected="a table with a line NAME,R,G,B for each class", do="put the colour of each class behind its name",
        )
    mixed = set() if solid is None else colours_between({value: counts[value] for value in rest}, solid)
    if len(rest) <= _MOST_COLOURS and not mixed:
        return tuple(sorted(rest))
    what = f"{len(rest)} colours" + (f", {len(mixed)} of them mixtures in thin lines" if mixed else "")
    raise DataError(
        "The colours of the masks fit no rule.", found=f"{what}: {describe_counts(counts)}",
        expected=f"at most {_MOST_COLOURS} exact colours, one for each class",
        do="save the masks without smoothing or lossy compression, or list the classes as NAME,R,G,B with --classes; "
        "--instances yes if each object has a colour of its own",
    )  # fmt: skip


def _plain_values(counts: Mapping[int, int], rest: set[int], ignored: int | None, ignore: str) -> tuple[int, ...]:
    """The class values where the values alone must tell."""
    if rest == {0, 255}:
        return (0, 255)
    if len(rest) < 2:
        raise _too_few(counts, ignored)
    if len(rest) <= _MOST_IDS or not _is_smoothed(counts, rest):
        if _are_ids(rest, ignored):
            return tuple(sorted(rest))
        if ignore == "auto" and len(rest) > 2 and _are_ids(rest - {255}, None):
            return tuple(sorted(rest - {255}))
    raise _no_rule(counts, rest, ignore)


def _is_smoothed(counts: Mapping[int, int], values: set[int]) -> bool:
    """Whether 0 and 255 are the most frequent values, as in a binary mask whose borders were blurred."""
    return values >= {0, 255} and min(counts[0], counts[255]) > max(counts[v] for v in values - {0, 255})


def _are_ids(values: set[int], ignored: int | None) -> bool:
    """Whether the values are 0..K-1, or that with the ignored value among them."""
    both = values if ignored is None else values | {ignored}
    return any(ids == set(range(len(ids))) for ids in (values, both))


def _too_few(counts: Mapping[int, int], ignored: int | None) -> DataError:
    left = f" after leaving out {ignored}" if ignored is not None else ""
    return DataError(
        f"The masks hold fewer than two classes{left}.", found=describe_counts(counts) or "no pixels",
        expected="0 and 255, or the ids 0..K-1",
        do="drop --ignore, if the value is a class" if left else "label what the network is to find, or pass --classes",
    )


def _no_rule(counts: Mapping[int, int], rest: set[int], ignore: str) -> DataError:
    """The error for values that are neither 0/255 nor ids, with the most likely reason."""
    absent = [value for value in range(max(rest)) if value not in rest]
    if _is_smoothed(counts, rest):
        do = "save the masks without smoothing or JPEG compression, which make grey borders; or pass --ignore VALUE"
    elif ignore == "none" and _are_ids(rest - {255}, None):
        do = "drop --ignore none, and 255 is left out; or pass --classes with the names of all ids"
    elif len(absent) < len(rest):
        missing = ", ".join(str(value) for value in absent[:SHOWN])
        do = f"the ids {missing} do not occur: pass --classes with the names of all ids; or --ignore VALUE"
    else:
        do = "number the classes 0..K-1, or pass --classes with the names of all ids"
    return DataError(
        "The label values of the masks fit no rule.", found=describe_counts(counts),
        expected="0 and 255, or the ids 0..K-1, or those and 255 for ignored pixels", do=do,
    )


def _names(
    values: tuple[int, ...], class_names: ClassNames | None, ignored: int | None, coloured: bool
) -> tuple[str, ...]:
    if class_names is not None:
        listed = class_names.values or range(len(class_names.names))
        return tuple(name for value, name in zip(listed, class_names.names, strict=True) if value != ignored)
    if len(values) == 2 and values[0] == 0 and (coloured or values[1] in (1, 255)):
        return "background", "foreground"
    return tuple(value_text(value, coloured) if coloured else f"class {value}" for value in values)


def _colours(values: tuple[int, ...], names: tuple[str, ...], coloured: bool) -> tuple[Colour, ...]:
    """The colours of the masks themselves, else the usual ones, a dark one only for the background."""
    if coloured:
        return tuple((r, g, b) for r, g, b in unpack_colours(np.array(values)).tolist())
    dark_first = names[0].lower() in ("background", "class 0")
    return default_colours(len(values)) if dark_first else default_colours(len(values) + 1)[1:]


def _sentence(labels: LabelSet, counts: Mapping[int, int]) -> str:
    """What the values are taken for."""
    ids = f"{labels.values[0]} to {labels.values[-1]}"
    if labels.values == (0, 255) and not labels.coloured:
        text = f"0 and 255 are taken for {labels.names[0]} and {labels.names[1]}"
    elif labels.coloured:
        text = f"{labels.count} colours are taken for classes"
    elif labels.values == tuple(range(labels.values[0], labels.values[-1] + 1)):
        text = f"values {ids} are taken for the ids of {labels.count} classes"
    else:
        text = f"{labels.count} values from {ids} are taken for classes"
    text += _ignored_text(labels, counts)
    absent = [f"{labels.text(v)} {n}" for v, n in zip(labels.values, labels.names, strict=True) if not counts.get(v)]
    if absent:
        text += f"; no pixel has {', '.join(absent)}"
    return text + "."


def _ignored_text(labels: LabelSet, counts: Mapping[int, int]) -> str:
    if labels.ignore is None:
        return ""
    share = 100 * counts.get(labels.ignore, 0) / max(sum(counts.values()), 1)
    return f"; {labels.text(labels.ignore)} is ignored" + (f" ({share:.2g} % of the pixels)" if share else "")
