"""Which images belong together, so that a split must not part them: by folder, by name, by a table.

Does not choose what is held out (`split` does), and looks at names only.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from keepmap.errors import DataError, OptionError, first_few, nearest

WORDS = ("found", "folder", "none")
"""What --group-by takes besides a regular expression and a CSV file."""

_PART = r"tile|patch|crop|frame|window|slice|row|col|x|y|z"
_LAST_NUMBER = re.compile(rf"(.+?)(?:[\W_]+(?:(?P<part>{_PART})[\W_]*)?|(?<=\D))\d+", re.IGNORECASE)


def was_asked(rule: str) -> bool:
    """Whether a user named the groups: by any rule but "found", which looks for them, and "none"."""
    return rule not in ("found", "none")


def check_rule(rule: str) -> None:
    """Raise OptionError for a --group-by that is no word, no CSV file and no regular expression with a group."""
    if rule in WORDS:
        return
    if _is_table(rule):
        _read_table(Path(rule))
        return
    try:
        groups = re.compile(rule).groups
    except re.error as error:
        raise OptionError(f"--group-by {rule} is no regular expression.", found=str(error)) from error
    if not groups:
        raise OptionError(
            f"--group-by {rule} marks no group.", found="no parentheses", expected=nearest(rule, WORDS),
            do="put the part of the name that tells the group in parentheses, as in '(.*)_tile'; or name a .csv file",
        )


def group_stems(stems: Sequence[str], rule: str) -> dict[str, str]:
    """The group of each stem; one that belongs to no other is its own.

    rule: "folder"; "none"; "found", which joins names that differ in their last number only (see `_source`); a CSV file
    with the columns stem and group; or a regular expression, whose first group is the key.
    Raises OptionError, and DataError where a stem has no group.
    """
    check_rule(rule)
    if rule == "none":
        return {stem: stem for stem in stems}
    if rule == "folder":
        return {stem: stem.rpartition("/")[0] or "." for stem in stems}
    if rule == "found":
        return _find(stems)
    if _is_table(rule):
        table = _read_table(Path(rule))
        groups = {stem: table.get(stem) for stem in stems}
    else:
        pattern = re.compile(rule)
        groups = {stem: match[1] if (match := pattern.search(stem)) else None for stem in stems}
    missing = [stem for stem, group in groups.items() if group is None]
    if missing:
        raise DataError(
            f"--group-by {rule} gives no group to {len(missing)} of {len(stems)} images.",
            found=first_few(missing), expected="a group for each stem",
        )
    return {stem: group for stem, group in groups.items() if group is not None}


def join_equal(groups: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, str]:
    """The groups after those that share an image were joined; a joined group has the name of its first one.

    digests: what equal images have in common, "" where that means nothing.
    """
    parents = {group: group for group in groups.values()}

    def root(group: str) -> str:
        while parents[group] != group:
            group = parents[group]
        return group

    first: dict[str, str] = {}
    for stem in sorted(groups):
        if digests[stem]:
            one, other = sorted((root(first.setdefault(digests[stem], groups[stem])), root(groups[stem])))
            parents[other] = one
    return {stem: root(group) for stem, group in groups.items()}


def _find(stems: Sequence[str]) -> dict[str, str]:
    tail = _shared_tail(stems)
    sources = {stem: _source(stem.removesuffix(tail)) for stem in stems}
    sizes = Counter(sources.values())
    return {stem: source if source is not None and sizes[source] > 1 else stem for stem, source in sources.items()}


def _source(stem: str) -> str | None:
    """What a name says about where an image is from: all before its last number, if that is telling.

    It is if a number is in it (patient 12, sequence 0016E5), or if the last number is announced as that of a part
    (tile, patch, crop, frame, window, slice, row, col, x, y, z), of which several are cut off. "cat_001" tells nothing.
    """
    folder, _, name = stem.rpartition("/")
    match = _LAST_NUMBER.fullmatch(name)
    if match is None:
        return None
    source = match[1]
    telling = bool(match["part"])
    while (match := _LAST_NUMBER.fullmatch(source)) and match["part"]:
        source, telling = match[1], True
    return f"{folder}/{source}".removeprefix("/") if telling or re.search(r"\d", source) else None


def _shared_tail(stems: Sequence[str]) -> str:
    """What all names end in, such as "_leftImg8bit": from a separator on, with a letter, so that it is no number."""
    reverse = sorted(stem[::-1] for stem in stems)
    pairs = zip(reverse[0], reverse[-1], strict=False)  # what the first and the last share, all share
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) if len(stems) > 1 else 0
    tail = re.search(r"[\W_](?=.*[^\W\d_])[^/]*$", reverse[0][:length][::-1])
    return tail[0] if tail else ""


def _is_table(rule: str) -> bool:
    return rule.lower().endswith(".csv")


def _read_table(path: Path) -> dict[str, str]:
    """Stem -> group, also under the stem without a suffix where that is no other's. Raises OptionError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OptionError(f"The groups in {path} cannot be read.", found=str(error)) from error
    table: dict[str, str] = {}
    bare: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        stem, group = row.get("stem"), row.get("group")
        if not stem or not group:
            raise OptionError(
                f"Line {number} of {path} gives no group.", found=str({k: v for k, v in row.items() if k}),
                expected="a first line stem,group and then one line for each image",
            )
        if table.setdefault(stem, group) != group:
            raise OptionError(f"{path} gives {stem} to two groups.", found=f"{table[stem]} and {group}")
        folder, slash, name = stem.rpartition("/")
        bare.setdefault(f"{folder}{slash}{name.rpartition('.')[0] or name}", group)
    return {**bare, **table}
