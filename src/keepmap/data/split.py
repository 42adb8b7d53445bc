"""Which images are held out for validation: a seeded choice by name, whole groups at a time, or a list.

Knows names, groups and which classes each image holds; opens no image.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keepmap.data.groups import group_stems, join_equal
from keepmap.errors import DataError, OptionError, first_few, nearest

_LEAST_FOUND = 4
"""Fewer groups that were merely found are not held together: one of them would be most of what is held out."""
_MOST_FOUND = 0.25
"""Share of the images that groups which were merely found may hold out."""


@dataclass(frozen=True)
class Candidate:
    """An image to be split. classes: label values in its mask. digest: equal for equal images, "" for plain ones.

    alike: equal for images that look nearly the same, "" for all others.
    """

    stem: str
    image: str
    classes: tuple[int, ...]
    digest: str
    alike: str = ""


@dataclass(frozen=True)
class Division:
    """The stems of both parts, sorted. groups: of each stem, where any has two images. rule: how they were told."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    rule: str
    groups: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def divide(
    candidates: Sequence[Candidate], *, rule: str, fixed: Path | None, seed: int, share: float
) -> Division:
    """Split images so that no group and no two equal images are parted.

    rule: see `groups.group_stems`. What "found" finds, and what merely looks alike, counts only if there are four
    groups or more, at most a quarter of the images would be held out, and no class would leave the training; else it is
    said and dropped.
    fixed: a file with one held-out stem a line, in place of the choice. Raises OptionError, DataError.
    """
    stems = [candidate.stem for candidate in candidates]
    digests = {candidate.stem: candidate.digest for candidate in candidates}
    classes = {candidate.stem: candidate.classes for candidate in candidates}
    if fixed is not None:
        named = group_stems(stems, "none" if rule == "found" else rule)
        held = _listed(fixed, stems)
        _require_unparted(candidates, named, held, fixed, rule)
        rest = tuple(sorted(set(stems) - set(held)))
        told = _alike_parted(candidates, held, fixed)
        return Division(rest, held, f"--validation {fixed}", _shared(join_equal(named, digests)), told)
    named, used, remarks = group_stems(stems, rule), rule, []
    if rule == "found" and not _shared(named):
        used = "none"
    elif rule == "found":
        shared = sorted({group for group, size in Counter(named.values()).items() if size > 1})
        start = f"groups  {len(shared)} found by what stands before the last number of the name ({first_few(shared)})"
        if why := _unfit(join_equal(named, digests), classes, seed, share):
            remarks.append(f"{start} and not used: {why}; --group-by with a regular expression insists")
            named, used = group_stems(stems, "none"), "none"
        else:
            remarks.append(f"{start}, whole groups are held out")
    joined = join_equal(named, digests)
    if used != "none" and len(set(joined.values())) < 2:
        raise DataError(
            f"--group-by {rule} puts all images into one group.", found=f"{len(stems)} images", expected="two or more",
            do="choose another rule, or --group-by none",
        )
    equal = len(stems) - len({digests[stem] or stem for stem in stems})
    if equal:
        remarks.append(f"groups  {equal} image{'s are' if equal > 1 else ' is'} equal to others and stay with them")
    wider = join_equal(joined, {candidate.stem: candidate.alike for candidate in candidates})
    if wider != joined:
        count = sum(bool(candidate.alike) for candidate in candidates)
        start = f"groups  {count} images look nearly the same as others"
        why = _unfit(wider, classes, seed, share)
        remarks.append(f"{start} and may be parted: {why}" if why else f"{start} and stay with them")
        joined = joined if why else wider
    train, validation = hold_out(classes, groups=joined, seed=seed, share=share)
    return Division(train, validation, used, _shared(joined), tuple(remarks))


def hold_out(
    classes: Mapping[str, Collection[int]],
    *,
    seed: int,
    share: float = 0.15,
    most: int = 40,
    groups: Mapping[str, str] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training, validation) stems, each sorted: `share` of them, 1 to `most`, are held out.

    classes: stem -> the classes in its mask. groups: stem -> the group that is not parted; default: itself.
    Each group is ranked by a hash of its name and the seed, so file order does not matter and a file that is added
    moves hardly any other. While there is room, each class of two groups or more is held out once, the rarest first;
    the other groups of classes as rare as two are held out last. If no group is small enough, the smallest is held out.
    Raises DataError for fewer than two groups.
    """
    members: dict[str, list[str]] = {}
    for stem in classes:
        members.setdefault(stem if groups is None else groups[stem], []).append(stem)
    if len(members) < 2:
        one = "One image" if len(classes) < 2 else "One group of images"
        raise DataError(f"{one} cannot be split.", found=f"{len(classes)} images", expected="at least 2")
    count = max(1, min(round(share * len(classes)), most, len(classes) - 1))
    kinds = {group: {kind for stem in members[group] for kind in classes[stem]} for group in members}
    ranked = sorted(members, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    spread = Counter(kind for group in ranked for kind in kinds[group])
    chosen = _covering(ranked, kinds, spread)
    spared = {group for group in ranked if any(spread[kind] <= 2 for kind in kinds[group])}
    others = sorted((group for group in ranked if group not in chosen), key=lambda group: group in spared)
    held: list[str] = []
    for group in (*chosen, *others):
        if len(held) + len(members[group]) <= count:
            held += members[group]
    held = held or members[min(ranked, key=lambda group: (group in spared, len(members[group])))]
    return tuple(sorted(set(classes) - set(held))), tuple(sorted(held))


def _covering(ranked: Sequence[str], classes: Mapping[str, Collection[int]], spread: Mapping[int, int]) -> list[str]:
    """Groups that together hold every class of two groups or more, the rarest first. spread: how many hold each."""
    chosen: list[str] = []
    for kind in sorted(spread, key=lambda kind: (spread[kind], kind)):
        if spread[kind] >= 2 and not any(kind in classes[group] for group in chosen):
            chosen.append(next(group for group in ranked if kind in classes[group]))
    return chosen


def _unfit(joined: Mapping[str, str], classes: Mapping[str, Collection[int]], seed: int, share: float) -> str:
    """Why groups that were merely found are not used; "" if they are."""
    count = len(set(joined.values()))
    if count < _LEAST_FOUND:
        return f"fewer than {_LEAST_FOUND}"
    train, held = hold_out(classes, groups=joined, seed=seed, share=share)
    if len(held) > _MOST_FOUND * len(classes):
        return f"one alone is {len(held)} of {len(classes)} images"
    if {kind for stem in held for kind in classes[stem]} - {kind for stem in train for kind in classes[stem]}:
        return "a class would leave the training"
    return ""


def _shared(groups: Mapping[str, str]) -> dict[str, str]:
    """The group of each stem, if any group has two; else nothing."""
    sizes = Counter(groups.values())
    return dict(groups) if any(size > 1 for size in sizes.values()) else {}


def _listed(path: Path, stems: Sequence[str]) -> tuple[str, ...]:
    """The stems in a file, one a line. Raises OptionError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"The list of held-out images in {path} cannot be read.", found=str(error)) from error
    held, known = sorted({line for line in lines if line}), set(stems)
    for name in held:
        if name not in known:
            raise OptionError(
                f"{path} names {name}, which is no image.", found=name, expected=nearest(name, stems[:1000]),
                do="name stems, one a line: paths relative to the folder of images, without suffix",
            )
    if not held or len(held) == len(stems):
        raise OptionError(
            f"{path} leaves one part of the split empty.", found=f"{len(held)} of {len(stems)} images",
            expected="at least one image to train on and one to validate with",
        )
    return tuple(held)


def _alike_parted(candidates: Sequence[Candidate], held: Collection[str], path: Path) -> tuple[str, ...]:
    """A remark where a list parts images that look nearly the same: what looks alike may still be another image."""
    sides: dict[str, dict[bool, str]] = {}
    for candidate in candidates:
        if candidate.alike:
            sides.setdefault(candidate.alike, {})[candidate.stem in held] = candidate.stem
    parted = [f"{both[True]} and {both[False]}" for both in sides.values() if len(both) == 2]
    if not parted:
        return ()
    return (f"groups  {path} parts images that look nearly the same, its scores may be too good: {first_few(parted)}",)


def _require_unparted(
    candidates: Sequence[Candidate], named: Mapping[str, str], held: Collection[str], path: Path, rule: str
) -> None:
    """Raise DataError where a list parts two equal images, or a group that was asked for."""
    seen: dict[tuple[str, str], Candidate] = {}
    held = frozenset(held)
    for candidate in candidates:
        keys = [("equal", candidate.digest)] if candidate.digest else []
        for key in (*keys, ("group", named[candidate.stem])):
            other = seen.setdefault(key, candidate)
            if (other.stem in held) == (candidate.stem in held):
                continue
            what = "are equal" if key[0] == "equal" else f"are of one group, {key[1]}, by --group-by {rule}"
            one, two = sorted((other, candidate), key=lambda c: c.stem in held)
            raise DataError(
                f"{one.image} and {two.image} {what}, and {path} parts them.",
                found=f"{two.stem} held out, {one.stem} not", expected="both on one side, or the scores are too good",
                do="name both, or neither, or remove one of them",
            )
