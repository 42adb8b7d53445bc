"""What a data set as a whole makes doubtful: copies, odd images, empty masks, rare classes, names that form groups.

Reads no file: it judges the facts that the scan collected, and none of its findings stops a training.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from keepmap.data.facts import FileFacts
from keepmap.data.findings import Finding
from keepmap.data.groups import group_stems
from keepmap.data.labels import LabelSet
from keepmap.data.likeness import alike_groups, distance
from keepmap.errors import first_few

NEAR = 4
"""Bits of 64 in which the hashes of near duplicates differ at most.

Measured on 108,674 pairs of images that are no copies (drawn cells, stained nuclei, street scenes of different films):
none is so near. Of copies as JPEG of quality 75, all street scenes and nine in ten nuclei are.
"""

_SAME_FIELD = 12  # bits between neighbours in a folder that show one field; of the pairs above, 40 are so near
_FAR = 16  # times the median: far larger, smaller or darker
_TINY = 1e-4  # share of all pixels
_LEAST = 4  # files, below which nothing is called rare or odd


def survey(facts: Sequence[FileFacts], labels: LabelSet | None) -> list[Finding]:
    """The findings over all good pairs, in the order of their weight. labels: None where the values fit no rule."""
    findings = [*_copies(facts), *_look_alikes(facts), *_flat(facts), *_ranges(facts), *_rotations(facts)]
    if labels is not None:
        findings += [*_unlabelled(facts, labels), *_rare(facts, labels)]
    return [*findings, *_sizes(facts), *_fields(facts), *_series(facts)]


def _group(group: Sequence[FileFacts], what: str, expected: str, do: str) -> Finding:
    """A warning about the images of a group, under the name of the first. what: the rest of the sentence."""
    names = [str(fact.image) for fact in group]
    return Finding(
        "warning", names[0], f"{names[0]} is one of {len(group)} images {what}.",
        first_few([fact.stem for fact in group]), expected, do, tuple(names[1:]),
    )  # fmt: skip


def _copies(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    """Images of the same pixels."""
    groups: dict[str, list[FileFacts]] = defaultdict(list)
    for fact in facts:
        if fact.digest:
            groups[fact.digest].append(fact)
    for group in groups.values():
        if len(group) > 1:
            group.sort(key=lambda fact: (len(fact.stem), fact.stem))
            masks = {(tuple(fact.counts.items()), tuple(fact.row_centres.values())) for fact in group}
            yield _group(
                group, "of the same pixels" + ", with different masks" * (len(masks) > 1), "each image once",
                "remove the copies, or keepmap check --fix OUT does",
            )


def near_duplicates(facts: Sequence[FileFacts]) -> list[list[FileFacts]]:
    """Groups of images that look nearly the same; of equal ones only the first is in it, of one colour none."""
    first: dict[str, FileFacts] = {}
    for fact in facts:
        if fact.digest:
            first.setdefault(fact.digest, fact)
    candidates = list(first.values())
    found = alike_groups([fact.likeness for fact in candidates], most=NEAR)
    return [[candidates[place] for place in places] for places in found]


def _look_alikes(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    """Images that are nearly the same: a copy that was compressed, scaled or brightened."""
    for group in near_duplicates(facts):
        yield _group(
            group, "that look nearly the same", "images that show different things",
            "look at them; remove copies, and keep the frames of one scene on one side of a split",
        )


def _flat(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    for fact in facts:
        if fact.measured and not fact.digest:
            yield Finding(
                "warning", str(fact.image), f"{fact.image} is of one colour.", "every pixel the same",
                "an image that shows something", "remove it together with its mask, unless an empty field is meant",
            )


def _ranges(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    """Images whose values were scaled otherwise than the others'."""
    seen = [fact for fact in facts if fact.high > fact.low]
    if not seen:
        return
    usual = median(fact.high for fact in seen)
    if seen[0].dtype == "uint16" and max(fact.high for fact in seen) < 256:
        yield Finding(
            "note", str(seen[0].image.parent), "The images have 16 bits a value and use 8 of them.",
            f"values up to {max(fact.high for fact in seen):g}", "values that use their range",
            "save them with 8 bits if no value is lost; training scales either alike",
        )
    for fact in seen:
        scaled = fact.dtype != "uint8" and len(seen) >= _LEAST and fact.high * _FAR < usual
        if scaled or (fact.dtype == "uint8" and fact.high <= 1 < usual):
            yield Finding(
                "warning", str(fact.image), f"{fact.image} is far darker than the other images.",
                f"values {fact.low:g} to {fact.high:g}", f"values up to about {usual:g}",
                "scale its values like those of the others, if it was saved with another range",
            )


def _rotations(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    """Rotated images whose size does not tell whether the mask is rotated likewise."""
    for fact in facts:
        if fact.orientation in (2, 3, 4) or (fact.orientation > 4 and fact.height == fact.width):
            yield Finding(
                "warning", str(fact.image), f"{fact.image} is turned by its EXIF data, and its mask may not be.",
                f"orientation {fact.orientation}, sizes agree either way", "a mask of the image as it is seen",
                "look at an overlay of both",
            )


def _unlabelled(facts: Sequence[FileFacts], labels: LabelSet) -> Iterator[Finding]:
    """Masks in which nothing is marked."""
    ignored = [fact for fact in facts if fact.counts.keys() == {labels.ignore}]
    for fact in ignored:
        yield Finding(
            "warning", str(fact.mask), f"{fact.mask} is ignored as a whole.", f"every pixel is {labels.ignore}",
            "labelled pixels", "label it, or remove it together with its image",
        )
    ground, name = labels.values[0], labels.names[0]
    empty = [str(fact.mask) for fact in facts if fact.counts.keys() - {labels.ignore} == {ground}]
    if empty and labels.names[0].lower() in ("background", "class 0"):
        yield Finding(
            "note", empty[0], f"{len(empty)} of {len(facts)} masks hold {name} only.", first_few(empty), "",
            "label what was forgotten; fields that are empty indeed may stay", tuple(empty[1:]),
        )


def _rare(facts: Sequence[FileFacts], labels: LabelSet) -> Iterator[Finding]:
    """Classes of which there is too little to learn or to score."""
    pixels: dict[int, int] = defaultdict(int)
    holders: dict[int, list[FileFacts]] = defaultdict(list)
    for fact in facts:
        for value, count in fact.counts.items():
            pixels[value] += count
            if len(holders[value]) < _LEAST:
                holders[value].append(fact)
    total = max(sum(pixels.values()), 1)
    for value, name in zip(labels.values, labels.names, strict=True):
        files = holders.get(value, [])
        share = 100 * pixels.get(value, 0) / total
        if not files:
            what, file = "does not occur", facts[0].mask.parent
        elif len(files) == 1 and len(facts) >= _LEAST:
            what, file = "occurs in one mask only", files[0].mask
        elif share < 100 * _TINY:
            what, file = "is rare", files[0].mask
        else:
            continue
        yield Finding(
            "warning", str(file), f"Class {value} {name} {what}.",
            f"{pixels.get(value, 0)} px ({share:.2g} %)", "enough to train on and to validate with",
            "add images that show it, or merge it with another class",
        )


def _sizes(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    if len(facts) < _LEAST:
        return
    usual = median(fact.height * fact.width for fact in facts)
    for fact in facts:
        area = fact.height * fact.width
        if area > _FAR * usual or area * _FAR < usual:
            what = "larger" if area > usual else "smaller"
            yield Finding(
                "note", str(fact.image), f"{fact.image} is far {what} than the other images.",
                f"{fact.width} x {fact.height} px", f"about {usual:.0f} px in all, as half of the images have at most",
                "look whether it is of the same scale as the others; remove it if it is not",
            )


def _fields(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    """Neighbours in a folder that show one field of view."""
    pairs = [(one, other) for one, other in itertools.pairwise(facts) if _one_field(one, other)]
    if pairs:
        first, *others = dict.fromkeys(str(fact.image) for pair in pairs for fact in pair)
        yield Finding(
            "note", first, f"{1 + len(others)} images may show the same field of view as their neighbours.",
            first_few([f"{one.stem} and {other.stem}" for one, other in pairs]), "",
            "keep each such run on one side of a split", tuple(others),
        )


def _one_field(one: FileFacts, other: FileFacts) -> bool:
    """Whether two images of one folder are alike, but less so than near duplicates."""
    if one.image.parent != other.image.parent or not (one.digest and other.digest):
        return False
    return NEAR < distance(one.likeness, other.likeness) <= _SAME_FIELD


def _series(facts: Sequence[FileFacts]) -> Iterator[Finding]:
    """Names that form groups, each perhaps of one patient, slide or video."""
    sizes = Counter(group_stems([fact.stem for fact in facts], "found").values()) if facts else Counter[str]()
    several = {group: size for group, size in sizes.items() if size > 1}
    if len(sizes) > 1 and several:
        yield Finding(
            "note", str(facts[0].image.parent), f"The names form {len(several)} groups of images.",
            first_few([f"{group} ({size})" for group, size in several.items()]), "",
            "training holds whole groups out where it can; --group-by of keepmap train says which belong together",
        )
