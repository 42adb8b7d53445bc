"""One pass over a data set: everything that is wrong with it, and the numbers that later steps plan by.

Does not repair anything, and does not decide how to train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from keepmap.data.classes import ClassNames
from keepmap.data.facts import FileFacts, bands, measure
from keepmap.data.findings import Finding
from keepmap.data.images import open_image
from keepmap.data.instances import collapse, number_their_objects
from keepmap.data.label_rules import find_labels, ignored_value, instance_labels
from keepmap.data.labels import LabelSet, describe_counts, unknown_values
from keepmap.data.masks import read_stored_mask
from keepmap.data.pairing import Pair, match_folders
from keepmap.data.repair import Repair
from keepmap.data.smoothing import is_smoothed
from keepmap.data.strays import beside_binary, total_counts, without_strays
from keepmap.data.survey import survey
from keepmap.data.values import LARGEST_VALUE, is_coloured
from keepmap.errors import DataError, first_few
from keepmap.options import ImageOptions
from keepmap.protocols import Progress
from keepmap.resources import map_ahead

_MOST_COLOURS = 256  # of one mask; with more it is a picture


@dataclass(frozen=True)
class DataReport:
    """What `scan` found. facts: the good pairs only. labels: None where the values fit no rule.

    repair, repaired: of `check --fix`, what was done and the report on the repaired copy.
    """

    images: Path
    masks: Path
    findings: tuple[Finding, ...]
    facts: tuple[FileFacts, ...]
    labels: LabelSet | None
    labels_sentence: str
    repair: Repair | None = None
    repaired: DataReport | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def pixels(self) -> dict[int, int]:
        """Pixels of each label value in all good masks, ascending."""
        return total_counts(fact.counts for fact in self.facts)

    @property
    def images_with(self) -> Mapping[int, int]:
        """Good masks in which each label value occurs."""
        return Counter(value for fact in self.facts for value in fact.counts)

    @property
    def failed(self) -> bool:
        """Whether training would refuse the data."""
        return bool(self.errors)

    def raise_if_failed(self) -> None:
        """Raise the only error as it is, or one DataError that shows the first five and counts the others."""
        errors = self.errors
        if len(errors) == 1:
            raise errors[0].to_error()
        if errors:
            shown = first_few([str(finding) for finding in errors], "\n")
            raise DataError(
                f"The data cannot be used, {len(errors)} errors.\n{shown}",
                do=f"keepmap check {self.images} {self.masks} lists them all",
            )


def scan(
    images: Path,
    masks: Path,
    *,
    class_names: ClassNames | None,
    ignore: str,
    progress: Progress,
    instances: str = "auto",
    reading: ImageOptions = ImageOptions(),  # noqa: B008
    least: int = 2,
) -> DataReport:
    """Read every image and mask once, on all threads, and report all that is wrong together with the facts.

    class_names, ignore: as for `label_rules.find_labels`. instances: whether each value above 0 numbers an object:
    "yes", "no", or "auto", where the masks tell. reading: how files are read. least: pairs that the caller needs, 2 for
    training.
    Raises DataError if a folder cannot be listed, OptionError for an `ignore` that is no value.
    """
    ignored = ignored_value(ignore)
    matching = match_folders(images, masks, follow_links=reading.follow_links)
    pairs, findings = matching.pairs, matching.findings
    facts: list[FileFacts] = []
    examine = partial(_examine, reading=reading, instances=instances, ignored=ignored)
    with progress.track("check", len(pairs), "images") as tracker:
        for result in map_ahead(examine, pairs):
            if isinstance(result, FileFacts):
                facts.append(result)
            else:
                findings += result
            tracker.advance()
    if 0 < len(pairs) < least:
        findings.append(_too_few(images, pairs, least))
    for sort_out in (_of_one_kind, _of_one_coding, partial(_beside_binary, class_names, ignore, instances)):
        facts, strangers = sort_out(facts)
        findings += strangers
    if numbered := number_their_objects(instances, class_names is not None, {fact.objects for fact in facts}):
        facts = [_as_objects(fact, ignored) for fact in facts]
    facts, strangers = _within_range(facts)
    findings += strangers
    findings += _unmeasured(images, facts)
    labels, sentence = None, ""
    if facts:
        try:
            labels, sentence = _meaning(facts, class_names, ignore, numbered)
        except DataError as error:
            findings += _blame(facts, class_names, ignore) or [Finding.of(error, masks)]
    findings += survey(facts, labels)
    return DataReport(images, masks, tuple(findings), tuple(facts), labels, sentence)


def _meaning(
    facts: Sequence[FileFacts], class_names: ClassNames | None, ignore: str, numbered: bool
) -> tuple[LabelSet, str]:
    """The labels of all masks, and the sentence. numbered: their values number objects. Raises DataError."""
    counts = total_counts(fact.counts for fact in facts)
    if numbered:
        return instance_labels(counts, ignore=ignore)
    return find_labels(counts, class_names=class_names, ignore=ignore, solid=_solid(facts))


def _solid(facts: Sequence[FileFacts]) -> set[int]:
    return {value for fact in facts for value in fact.solid}


def _too_few(images: Path, pairs: Sequence[Pair], least: int) -> Finding:
    return Finding(
        "error", str(images), f"The folder {images} holds too few images with masks.",
        f"{len(pairs)}: {', '.join(str(pair.image) for pair in pairs)}",
        f"at least {least}: some to train on, others to validate with", "add images and masks",
    )


def _unmeasured(images: Path, facts: Sequence[FileFacts]) -> list[Finding]:
    """A note on the pixels that were never measured."""
    holes = [fact for fact in facts if fact.measured < fact.height * fact.width]
    if not holes:
        return []
    share = 1 - sum(fact.measured for fact in holes) / sum(fact.height * fact.width for fact in holes)
    return [
        Finding(
            "note", str(images), f"{len(holes)} of {len(facts)} images have pixels that were never measured (nodata).",
            f"{share:.2%} of their pixels", "pixels that count neither in the loss nor in scores",
            "leave them so; crop the images where most of them is such pixels",
        )
    ]


def _examine(
    pair: Pair, *, reading: ImageOptions, instances: str, ignored: int | None
) -> FileFacts | list[Finding]:
    """The facts of a pair, or all that is wrong with its files. Objects are counted as 1 where they are sure to be."""
    findings: list[Finding] = []
    source, mask = None, None
    try:
        source = open_image(pair.image, reading)
    except DataError as error:
        findings.append(Finding.of(error, pair.image))
    try:
        mask = read_stored_mask(pair.mask, reading)
        mask = collapse(mask, ignored) if instances == "yes" else mask
        if mask.min() < 0:
            findings.append(_out_of_range(pair.mask, int(mask.min()), int(mask.max())))
        elif is_coloured([int(mask.max())]) and (count := len(np.unique(mask))) > _MOST_COLOURS:
            findings.append(_picture(pair.mask, count))
    except DataError as error:
        findings.append(Finding.of(error, pair.mask))
    try:
        if source and mask is not None and not findings and mask.shape == source.shape[1:]:
            fact = measure(pair, source, mask, reading)
            smoothed = fact.objects is not True and is_smoothed(fact.counts, fact.solid)
            return [_smoothed(fact)] if smoothed else fact
        for _ in bands(source) if source else ():
            continue
    except DataError as error:
        findings.append(Finding.of(error, pair.image))
    if source and mask is not None and mask.shape != source.shape[1:]:
        findings.append(_size_mismatch(pair, source.shape[1:], mask.shape))
    return findings


def _out_of_range(path: Path, lowest: int, highest: int) -> Finding:
    return Finding(
        "error", str(path), f"{path} holds label values out of range.", f"{lowest}..{highest}",
        f"0..{LARGEST_VALUE}", "number the classes 0..K-1; --instances yes if they are numbers of objects",
    )


def _picture(path: Path, colours: int) -> Finding:
    return Finding(
        "error", str(path), f"{path} is no mask: it has too many colours.", f"{colours} colours",
        "one exact colour for each class", "save the mask without smoothing or lossy compression, as PNG",
    )


def _smoothed(fact: FileFacts) -> Finding:
    thin = len(fact.counts) - len(fact.solid)
    return Finding(
        "error", str(fact.mask), f"{fact.mask} was smoothed or compressed.",
        f"{describe_counts(fact.counts)}; {thin} of {len(fact.counts)} values occur at borders only",
        "one value for each class, without values in between",
        "save the mask from its source, as PNG and without smoothing; or keepmap check --fix OUT gives each such pixel "
        "the nearest class",
    )


def _size_mismatch(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> Finding:
    turned = image == mask[::-1]
    return Finding(
        "error", str(pair.mask), f"{pair.mask} has another size than its image {pair.image}.",
        f"mask {mask[1]} x {mask[0]} px, image {image[1]} x {image[0]} px" + " (sides swapped)" * turned,
        "the same size (the rotation that an image's EXIF data asks for is applied)",
        "rotate the mask as the image is seen" if turned else "save the mask at the size of its image, unsmoothed",
    )


def _of_one_kind(facts: Sequence[FileFacts]) -> tuple[list[FileFacts], list[Finding]]:
    """The facts of the most frequent channel count and dtype, and a finding for each other image."""
    if not facts:
        return [], []
    (channels, dtype), count = Counter((fact.channels, fact.dtype) for fact in facts).most_common(1)[0]
    good = [fact for fact in facts if (fact.channels, fact.dtype) == (channels, dtype)]
    findings = [
        Finding(
            "error", str(fact.image), f"{fact.image} is of another kind than the other images.",
            _kind(fact.channels, fact.dtype), f"{_kind(channels, dtype)}, like {count} of {len(facts)} images",
            "convert it to the kind of the others",
        )
        for fact in facts if (fact.channels, fact.dtype) != (channels, dtype)
    ]
    return good, findings


def _kind(channels: int, dtype: str) -> str:
    return f"{channels} channel{'s' * (channels > 1)} of {dtype}"


def _of_one_coding(facts: Sequence[FileFacts]) -> tuple[list[FileFacts], list[Finding]]:
    """The facts of the masks whose values are told in the way of most, numbers or colours; a finding for each other.

    An RGB file with grey pixels only may be either.
    """
    coloured = [fact for fact in facts if is_coloured(fact.counts)]
    numbers = [fact for fact in facts if "RGB" not in fact.mask_mode]
    if not coloured or not numbers:
        return list(facts), []
    few, many, what = (coloured, numbers, "colour-coded") if len(coloured) <= len(numbers) else (
        numbers, coloured, "not colour-coded")
    findings = [
        Finding(
            "error", str(fact.mask), f"{fact.mask} is {what}, unlike the other masks.",
            f"{fact.mask_mode}: {describe_counts(fact.counts)}", f"{many[0].mask_mode}, like {many[0].mask}",
            "save the mask as the others are saved",
        )
        for fact in few
    ]  # fmt: skip
    return [fact for fact in facts if fact not in few], findings


def _beside_binary(
    class_names: ClassNames | None, ignore: str, instances: str, facts: Sequence[FileFacts]
) -> tuple[list[FileFacts], list[Finding]]:
    """The facts of the masks of two values, if most hold these alone, and a finding for each other."""
    masks = [(fact.counts, fact.objects) for fact in facts]
    pair, stray = beside_binary(masks, class_names=class_names, ignore=ignore, instances=instances)
    if not stray:
        return list(facts), []
    labels, _ = find_labels(dict.fromkeys(pair, 1), class_names=None, ignore=ignore)
    near, beyond = _within_range([fact for fact in facts if stray & fact.counts.keys()])
    rest = [fact for fact in facts if not stray & fact.counts.keys()]
    return rest, [*beyond, *(_stray(fact, stray, labels) for fact in near)]


def _as_objects(fact: FileFacts, ignored: int | None) -> FileFacts:
    """The facts of an instance mask after all its objects became 1."""
    kept = {value: count for value, count in fact.counts.items() if value in (0, ignored)}
    objects = {value: count for value, count in fact.counts.items() if value not in kept}
    if not objects:
        return fact
    total = sum(objects.values())

    def merged(means: dict[int, float]) -> dict[int, float]:
        mean = sum(means[value] * count for value, count in objects.items()) / total
        return {value: means[value] for value in kept} | {1: mean}

    return replace(
        fact, counts=kept | {1: total}, row_centres=merged(fact.row_centres), brightness=merged(fact.brightness)
    )


def _within_range(facts: Sequence[FileFacts]) -> tuple[list[FileFacts], list[Finding]]:
    """The facts of the masks whose numbers can be those of classes, and a finding for each other."""
    beyond = [f for f in facts if max(f.counts, default=0) > LARGEST_VALUE and not is_coloured(f.counts)]
    findings = [_out_of_range(fact.mask, min(fact.counts), max(fact.counts)) for fact in beyond]
    return [fact for fact in facts if fact not in beyond], findings


def _blame(facts: Sequence[FileFacts], class_names: ClassNames | None, ignore: str) -> list[Finding]:
    """A finding for each mask with a stray value, where leaving out the rarest values makes the others fit a rule."""
    counts = [fact.counts for fact in facts]
    found = without_strays(counts, class_names=class_names, ignore=ignore, solid=_solid(facts))
    if found is None:
        return []
    labels, stray = found
    return [_stray(fact, stray, labels) for fact in facts if stray & fact.counts.keys()]


def _stray(fact: FileFacts, stray: set[int], labels: LabelSet) -> Finding:
    """The finding for one mask: its stray values beside the labels of the other masks."""
    unknown = {value: count for value, count in fact.counts.items() if value in stray}
    said = unknown_values(fact.mask, unknown, fact.height * fact.width, labels)
    rest = {value: fact.counts[value] for value in fact.counts if value not in stray}
    usual = describe_counts(rest, coloured=labels.coloured or None) or "no other"
    ids = "" if labels.values == (0, 255) else ", or name all classes with --classes if it is one"
    return Finding(
        "error", str(fact.mask), said.summary, f"{said.found}, beside {usual}", said.expected, said.do + ids
    )
