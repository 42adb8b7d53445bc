"""One pass over a data set: everything that is wrong with it, and the numbers that later steps plan by.

Does not repair anything, and does not decide how to train.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keepmap import resources
from keepmap.data.findings import Finding
from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet, describe_counts, find_labels, unknown_values
from keepmap.data.masks import mask_mode, read_mask
from keepmap.data.pairing import Pair, pair_folders
from keepmap.data.samples import count_not_finite, filled, not_finite, unmeasured
from keepmap.errors import DataError, InputError
from keepmap.options import ImageOptions
from keepmap.protocols import Array, ArraySource, Progress

_BAND = 1 << 20  # pixels that are measured at a time
_LARGEST_VALUE = 65535
_SHOWN = 5
_MOST_VALUES = 300  # with more, no single file is to blame


@dataclass(frozen=True)
class FileFacts:
    """What a good pair is like.

    height, width: pixels. mask_mode: how the mask stores its values. measured: pixels but those of nodata, which
    nothing else counts. sums, squares: of the raw values and of their squares, per channel. low, high: smallest and
    largest raw value. counts: pixels per label value. row_centres: mean of (row + 0.5) / height per label value.
    brightness: mean over its pixels of the mean over the channels, raw, per label value.
    """

    stem: str
    image: Path
    mask: Path
    height: int
    width: int
    channels: int
    dtype: str
    mask_mode: str
    measured: int
    sums: tuple[float, ...]
    squares: tuple[float, ...]
    low: float
    high: float
    counts: dict[int, int]
    row_centres: dict[int, float]
    brightness: dict[int, float]


@dataclass(frozen=True)
class DataReport:
    """What `scan` found. facts: the good pairs only. labels: None where the values fit no rule."""

    images: Path
    masks: Path
    findings: tuple[Finding, ...]
    facts: tuple[FileFacts, ...]
    labels: LabelSet | None
    labels_sentence: str

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

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
            shown = "\n".join(str(finding) for finding in errors[:_SHOWN])
            others = len(errors) - _SHOWN
            more = f"\nand {others} other error{'s' * (others > 1)}." if others > 0 else ""
            raise DataError(
                f"The data cannot be used, {len(errors)} errors.\n{shown}{more}",
                do=f"keepmap check {self.images} {self.masks} lists them all" if more else "",
            )


def scan(
    images: Path,
    masks: Path,
    *,
    class_names: tuple[str, ...] | None,
    ignore: str,
    progress: Progress,
    reading: ImageOptions = ImageOptions(),  # noqa: B008
    least: int = 2,
) -> DataReport:
    """Read every image and mask once, on all threads, and report all that is wrong together with the facts.

    class_names, ignore: as for `labels.find_labels`. reading: how files are read. least: pairs that the caller needs,
    2 for training.
    Raises DataError if a folder cannot be listed, OptionError for an `ignore` that is no value.
    """
    pairs, findings = pair_folders(images, masks)
    facts = []
    with ThreadPoolExecutor(resources.thread_count()) as pool, progress.track("check", len(pairs), "images") as tracker:
        for result in pool.map(partial(_examine, options=reading), pairs):
            if isinstance(result, FileFacts):
                facts.append(result)
            else:
                findings += result
            tracker.advance()
    if 0 < len(pairs) < least:
        findings.append(_too_few(images, pairs, least))
    facts, strangers = _of_one_kind(facts)
    findings += strangers
    findings += _unmeasured(images, facts)
    labels, sentence = None, ""
    if facts:
        try:
            labels, sentence = find_labels(_total(facts), class_names=class_names, ignore=ignore)
        except DataError as error:
            findings += _blame(facts, class_names, ignore) or [Finding.of(error, masks)]
    return DataReport(images, masks, tuple(findings), tuple(facts), labels, sentence)


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
        )
    ]


def _examine(pair: Pair, options: ImageOptions) -> FileFacts | list[Finding]:
    """The facts of a pair, or all that is wrong with its files."""
    findings: list[Finding] = []
    source, mask = None, None
    try:
        source = open_image(pair.image, options)
    except DataError as error:
        findings.append(Finding.of(error, pair.image))
    try:
        mask = read_mask(pair.mask, options)
        if mask.min() < 0 or mask.max() > _LARGEST_VALUE:
            findings.append(_out_of_range(pair.mask, mask))
    except DataError as error:
        findings.append(Finding.of(error, pair.mask))
    try:
        if source and mask is not None and not findings and mask.shape == source.shape[1:]:
            return _measure(pair, source, mask, options)
        for _ in _bands(source) if source else ():
            continue
    except DataError as error:
        findings.append(Finding.of(error, pair.image))
    if source and mask is not None and mask.shape != source.shape[1:]:
        findings.append(_size_mismatch(pair, source.shape[1:], mask.shape))
    return findings


def _out_of_range(path: Path, mask: npt.NDArray[np.int32]) -> Finding:
    return Finding(
        "error", str(path), f"{path} holds label values out of range.", f"{mask.min()}..{mask.max()}",
        f"0..{_LARGEST_VALUE}", "number the classes 0..K-1; instance numbers are not classes",
    )


def _size_mismatch(pair: Pair, image: tuple[int, ...], mask: tuple[int, ...]) -> Finding:
    turned = image == mask[::-1]
    return Finding(
        "error", str(pair.mask), f"{pair.mask} has another size than its image {pair.image}.",
        f"mask {mask[1]} x {mask[0]} px, image {image[1]} x {image[0]} px" + " (sides swapped)" * turned,
        "the same size (the rotation that an image's EXIF data asks for is applied)",
        "rotate the mask as the image is seen" if turned else "save the mask at the size of its image, unsmoothed",
    )


def _bands(source: ArraySource) -> Iterator[tuple[slice, Array]]:
    """Rows and their pixels (C, h, W), about a million pixels at a time."""
    _, height, width = source.shape
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield rows, source.read((rows, slice(0, width)))


def _measure(
    pair: Pair, source: ArraySource, mask: npt.NDArray[np.int32], options: ImageOptions
) -> FileFacts:
    channels, height, width = source.shape
    values = np.flatnonzero(np.bincount(mask.ravel()))
    place = np.zeros(int(values[-1]) + 1, np.intp)
    place[values] = np.arange(len(values))
    sums, squares = np.zeros(channels), np.zeros(channels)
    counts, rows_sum, light = (np.zeros(len(values)) for _ in range(3))
    low, high = (np.inf, -np.inf) if source.dtype.kind == "f" else (0.0, float(np.iinfo(source.dtype).max))
    bad, bins = 0, len(values) + 1  # the last one for what was not measured
    for rows, band in _bands(source):
        places = np.take(place, mask[rows])
        if source.nodata is not None:
            places[unmeasured(band, source.nodata)] = bins - 1
            band = filled(band, source.nodata, np.zeros(channels))
        if source.dtype.kind == "f":
            bad += count_not_finite(band)
            if bad:
                continue
            measured = band[:, places < bins - 1]
            low, high = float(measured.min(initial=low)), float(measured.max(initial=high))
        pixels = np.ascontiguousarray(band).reshape(channels, -1).astype(np.float64)
        sums += pixels.sum(axis=1)
        squares += np.einsum("cp,cp->c", pixels, pixels)
        light += np.bincount(places.ravel(), weights=pixels.mean(axis=0), minlength=bins)[:-1]
        rows_of = np.arange(rows.stop - rows.start)
        by_row = np.bincount((places + bins * rows_of[:, None]).ravel(), minlength=bins * len(rows_of))
        by_row = by_row.reshape(len(rows_of), bins)[:, :-1]
        counts += by_row.sum(axis=0)
        rows_sum += (rows_of + rows.start + 0.5) @ by_row
    if bad:
        raise not_finite(pair.image, bad, channels * height * width)
    seen = counts > 0  # a value may occur only where nothing was measured
    keys = [int(value) for value in values[seen]]
    return FileFacts(
        pair.stem, pair.image, pair.mask, height, width, channels, str(source.dtype), mask_mode(pair.mask, options),
        int(counts.sum()), tuple(sums.tolist()), tuple(squares.tolist()), low, high,
        {key: int(count) for key, count in zip(keys, counts[seen], strict=True)},
        dict(zip(keys, (rows_sum[seen] / counts[seen] / height).tolist(), strict=True)),
        dict(zip(keys, (light[seen] / counts[seen]).tolist(), strict=True)),
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


def _total(facts: Sequence[FileFacts]) -> dict[int, int]:
    """Pixels per label value over all files."""
    total: Counter[int] = Counter()
    for fact in facts:
        total.update(fact.counts)
    return dict(sorted(total.items()))


def _blame(facts: Sequence[FileFacts], class_names: tuple[str, ...] | None, ignore: str) -> list[Finding]:
    """A finding for each mask with a stray value, where leaving out the rarest values makes the others fit a rule.

    Empty where that does not help, or most masks would be to blame.
    """
    counts = _total(facts)
    in_files = Counter(value for fact in facts for value in fact.counts)
    if len(counts) > _MOST_VALUES:
        return []
    stray: set[int] = set()
    for value in sorted(counts, key=lambda value: (in_files[value], counts[value])):
        stray.add(value)
        try:
            rest = {other: number for other, number in counts.items() if other not in stray}
            labels, _ = find_labels(rest, class_names=class_names, ignore=ignore)
        except InputError:
            continue
        blamed = [fact for fact in facts if stray & fact.counts.keys()]
        if 2 * len(blamed) > len(facts):
            return []
        return [_stray(fact, stray, labels) for fact in blamed]
    return []


def _stray(fact: FileFacts, stray: set[int], labels: LabelSet) -> Finding:
    """The finding for one mask: its stray values beside the labels of the other masks."""
    unknown = {value: count for value, count in fact.counts.items() if value in stray}
    said = unknown_values(fact.mask, unknown, fact.height * fact.width, labels)
    usual = describe_counts({value: fact.counts[value] for value in fact.counts if value not in stray}) or "no other"
    ids = "" if labels.values == (0, 255) else ", or name all classes with --classes if it is one"
    return Finding(
        "error", str(fact.mask), said.summary, f"{said.found}, beside {usual}", said.expected, said.do + ids
    )
