"""What label values mean: which of them are classes, which one is ignored, their names and colours.

Does not read masks (`masks` does); it is told how often each value occurs.
"""

from __future__ import annotations

import colorsys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keepmap.errors import DataError, OptionError
from keepmap.protocols import Array

IGNORE_INDEX = -1
"""The class index of pixels that neither loss nor scores count."""

Colour = tuple[int, int, int]

_UNKNOWN = -2
_LARGEST_VALUE = 65535
_SHOWN = 8
_MOST_IDS = 200  # with more, 0 to 255 may be the greys of a smoothed mask


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, K of them; class index i stands for `values[i]` in mask files.

    values: 0..65535, all different. names: as many. ignore: the value left out, None if there is none.
    colours: RGB 0..255, one per class, for pictures only.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    ignore: int | None
    colours: tuple[Colour, ...]

    @property
    def count(self) -> int:
        """K, the number of classes."""
        return len(self.values)

    @property
    def blank(self) -> int:
        """What is written where an image has no measurement: the ignored value, else a large one that is no label."""
        if self.ignore is not None:
            return self.ignore
        return next((value for value in range(255, -1, -1) if value not in self.values), _LARGEST_VALUE)

    def encode(self, values: Array, where: object = "The mask") -> npt.NDArray[np.int16]:
        """Class indices (H, W) of label values (H, W), any integers; ignored pixels become IGNORE_INDEX.

        Raises DataError, naming `where` and the value, for a value that is no label.
        """
        top = len(self._indices) - 1
        values = values if values.dtype == np.int32 else values.astype(np.int64)
        indices: npt.NDArray[np.int16] = self._indices[np.clip(values, -1, top)]
        if indices.size and indices.min() == _UNKNOWN:
            found, counts = np.unique(values[indices == _UNKNOWN], return_counts=True)
            unknown = {int(v): int(n) for v, n in zip(found, counts, strict=True)}
            raise unknown_values(where, unknown, values.size, self)
        return indices

    def decode(self, indices: Array) -> Array:
        """Label values (H, W), uint8 or uint16 where a value exceeds 255, of class indices (H, W) in 0..K-1."""
        dtype = np.uint8 if max(self.values) < 256 else np.uint16
        decoded: Array = np.array(self.values, dtype)[indices]
        return decoded

    @cached_property
    def _indices(self) -> npt.NDArray[np.int16]:
        """Value -> index; the last entry, which -1 reaches too, stands for all values that are none."""
        known = [*self.values, *([] if self.ignore is None else [self.ignore])]
        table = np.full(max(known) + 2, _UNKNOWN, np.int16)
        table[list(self.values)] = np.arange(self.count)
        if self.ignore is not None:
            table[self.ignore] = IGNORE_INDEX
        return table

    def describe(self) -> str:
        """Values and names, such as "0 background, 255 foreground"; the ignored value last."""
        parts = [f"{value} {name}" for value, name in zip(self.values, self.names, strict=True)]
        parts = parts if len(parts) <= 2 * _SHOWN else [*parts[:_SHOWN], "...", parts[-1]]
        return ", ".join([*parts, *([] if self.ignore is None else [f"{self.ignore} ignored"])])


def unknown_values(where: object, unknown: Mapping[int, int], pixels: int, labels: LabelSet) -> DataError:
    """The error for a mask `where` of `pixels` pixels with values outside `labels`. unknown: pixels per value."""
    values = sorted(unknown, key=lambda value: -unknown[value])
    one = len(values) == 1
    what = f"value {values[0]}, which is not a label" if one else f"{len(values)} values that are no labels"
    single = f", or pass --ignore {values[0]}" if one and labels.ignore is None else ""
    return DataError(
        f"{where} contains {what}.", found=describe_counts(unknown, pixels), expected=labels.describe(),
        do=f"correct the mask{single}",
    )


def describe_counts(counts: Mapping[int, int], pixels: int | None = None) -> str:
    """Label values with their share of `pixels` (default: of all counted), most frequent first, rare ones in pixels."""
    total = sum(counts.values()) if pixels is None else pixels
    order = sorted(counts, key=lambda value: (-counts[value], value))
    parts = []
    for value in order[:_SHOWN]:
        share = 100 * counts[value] / max(total, 1)
        parts.append(f"{value} ({share:.0f} %)" if share >= 5 else f"{value} ({share:.2g} %, {counts[value]} px)")
    if len(order) > _SHOWN:
        parts.append(f"and {len(order) - _SHOWN} other values")
    return ", ".join(parts)


def find_labels(
    counts: Mapping[int, int], *, class_names: tuple[str, ...] | None, ignore: str
) -> tuple[LabelSet, str]:
    """The label set that masks with these values stand for, and a sentence that says what they are taken for.

    counts: pixels per value over the data set. class_names: K names of the ids 0..K-1, some of which may be absent.
    ignore: "auto" (255 beside ids), "none" or a value. Raises DataError where the values fit no rule, OptionError.
    """
    left_out = _ignored_value(ignore)
    rest = {value for value in counts if value != left_out}
    if class_names is not None:
        values = _named_values(counts, rest, class_names, left_out, ignore)
    else:
        values = _plain_values(counts, rest, left_out, ignore)
    if left_out is None and ignore == "auto" and 255 in rest and 255 not in values:
        left_out = 255
    names = _names(values, class_names, left_out)
    dark_first = names[0].lower() in ("background", "class 0")
    colours = default_colours(len(values)) if dark_first else default_colours(len(values) + 1)[1:]
    labels = LabelSet(values, names, left_out, colours)
    return labels, _sentence(labels, counts)


def _ignored_value(ignore: str) -> int | None:
    if ignore in ("auto", "none"):
        return None
    if ignore.isascii() and ignore.isdigit() and int(ignore) <= _LARGEST_VALUE:
        return int(ignore)
    raise OptionError(
        f"--ignore {ignore} is no label value.", found=ignore, expected=f"auto, none or a number 0..{_LARGEST_VALUE}"
    )


def _named_values(
    counts: Mapping[int, int], rest: Collection[int], names: tuple[str, ...], ignored: int | None, ignore: str
) -> tuple[int, ...]:
    """The class values where the user named the classes."""
    ids = tuple(value for value in range(len(names)) if value != ignored)
    if len(ids) < 2:
        raise OptionError(
            "--classes leaves fewer than two classes.", found=", ".join(names), expected="two names or more, one a line"
        )
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
        missing = ", ".join(str(value) for value in absent[:_SHOWN])
        do = f"the ids {missing} do not occur: pass --classes with the names of all ids; or --ignore VALUE"
    else:
        do = "number the classes 0..K-1, or pass --classes with the names of all ids"
    return DataError(
        "The label values of the masks fit no rule.", found=describe_counts(counts),
        expected="0 and 255, or the ids 0..K-1, or those and 255 for ignored pixels", do=do,
    )


def _names(
    values: tuple[int, ...], class_names: tuple[str, ...] | None, ignored: int | None
) -> tuple[str, ...]:
    if class_names is not None:
        return tuple(name for value, name in enumerate(class_names) if value != ignored)
    if values in ((0, 1), (0, 255)):
        return "background", "foreground"
    return tuple(f"class {value}" for value in values)


def _sentence(labels: LabelSet, counts: Mapping[int, int]) -> str:
    """What the values are taken for."""
    if labels.values == (0, 255):
        text = f"0 and 255 are taken for {labels.names[0]} and {labels.names[1]}"
    else:
        ids = f"{labels.values[0]} to {labels.values[-1]}"
        text = f"values {ids} are taken for the ids of {labels.count} classes"
    if labels.ignore is not None:
        share = 100 * counts.get(labels.ignore, 0) / max(sum(counts.values()), 1)
        text += f"; {labels.ignore} is ignored" + (f" ({share:.2g} % of the pixels)" if share else "")
    absent = [f"{v} {name}" for v, name in zip(labels.values, labels.names, strict=True) if not counts.get(v)]
    if absent:
        text += f"; no pixel has {', '.join(absent)}"
    return text + "."


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line in the order of the ids, blank lines at the end dropped.

    Raises OptionError if it cannot be read, or names a class twice, not at all, or fewer than two.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The class names in {path} cannot be read.", found=str(error)) from error
    twice = sorted({name for name in lines if lines.count(name) > 1 and name})
    if len(lines) < 2 or "" in lines or twice:
        reason = f"{', '.join(twice)} twice" if twice else "an empty line" if "" in lines else f"{len(lines)} names"
        raise OptionError(
            f"{path} is no list of class names.", found=reason, expected="two or more different names, one a line"
        )
    return tuple(lines)


_PALETTE: tuple[Colour, ...] = (
    (44, 48, 58), (255, 159, 28), (46, 196, 182), (155, 93, 229), (77, 150, 255), (139, 201, 38), (255, 112, 166),
    (255, 221, 74), (0, 121, 107), (141, 85, 36), (0, 78, 152), (196, 224, 255), (120, 0, 60), (180, 180, 100),
    (90, 90, 200), (255, 200, 170), (60, 110, 30), (200, 60, 200), (150, 160, 170), (250, 90, 60),
)  # fmt: skip


def default_colours(count: int) -> tuple[Colour, ...]:
    """`count` different colours, a dark neutral one first; the first ones do not depend on `count`."""
    colours = list(_PALETTE[:count])
    step = 0
    while len(colours) < count:
        hue, ring = (step * 0.618034) % 1, step % 9
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.45 + 0.06 * ring, 0.95 - 0.07 * (step % 7))
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        if colour not in colours:
            colours.append(colour)
        step += 1
    return tuple(colours)
