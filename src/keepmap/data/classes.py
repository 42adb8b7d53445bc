"""The file that names the classes: one name a line, or a table with the value or the colour of each.

Does not look at masks; `labels` compares the two.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keepmap.data.values import LARGEST_VALUE, parse_value, value_text
from keepmap.errors import OptionError

_EXPECTED = "one name a line in the order of the ids; or a table with lines NAME,ID or NAME,R,G,B"


@dataclass(frozen=True)
class ClassNames:
    """K different names and, where the file is a table, the label value of each; None stands for the ids 0..K-1."""

    names: tuple[str, ...]
    values: tuple[int, ...] | None = None


def named_classes(file: str | None) -> ClassNames | None:
    """What --classes says: the classes in the file that it names, if any. Raises as `read_classes`."""
    return read_classes(Path(file)) if file else None


def read_classes(path: Path) -> ClassNames:
    """The classes in a text file, told apart by what is in it: names, or a table with lines NAME,ID or NAME,R,G,B.

    A table is a file whose last line ends in one or three numbers; its first line may be a header. Blank lines at the
    end are dropped. Raises OptionError if it cannot be read, a line does not fit, a name or a value is there twice, or
    there are fewer than two.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The class names in {path} cannot be read.", found=str(error)) from error
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines)] if "" not in lines else []
    found = _table(path, rows) if rows and _value_of(rows[-1]) is not None else ClassNames(tuple(lines))
    names = found.names
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if len(names) < 2 or "" in names or twice:
        reason = f"{', '.join(twice)} twice" if twice else "an empty line" if "" in names else f"{len(names)} names"
        raise OptionError(
            f"{path} is no list of class names.", found=reason, expected=f"two or more different names, {_EXPECTED}"
        )
    return found


def _table(path: Path, rows: Sequence[Sequence[str]]) -> ClassNames:
    first = 0 if _value_of(rows[0]) is not None else 1
    names: list[str] = []
    values: list[int] = []
    for number, row in enumerate(rows[first:], start=first + 1):
        value = _value_of(row)
        if value is None or len(row) != len(rows[-1]):
            raise OptionError(f"Line {number} of {path} does not fit the others.", found=",".join(row),
                              expected=f"{_EXPECTED}; R, G, B 0..255, ID 0..{LARGEST_VALUE}")  # fmt: skip
        if value in values:
            text = value_text(value, len(row) == 4)
            raise OptionError(
                f"{path} gives {text} to two classes.", found=f"{names[values.index(value)]} and {row[0]}",
                expected="one value or colour for each class",
            )
        names.append(row[0])
        values.append(value)
    return ClassNames(tuple(names), tuple(values))


def _value_of(row: Sequence[str]) -> int | None:
    """The value or colour in a row of a table; None if it has none."""
    return parse_value(",".join(row[1:])) if len(row) in (2, 4) else None
