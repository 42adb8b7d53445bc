"""The scores of counted images, with 95 % intervals, and what two countings of the same images differ by.

Knows counts, stems and groups; neither pixels nor files, nor how scores are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from keepmap.metrics import figures, surfaces
from keepmap.metrics.calibration import BINS, rank_correlation
from keepmap.metrics.confusion import ClassScores, Figure, ImageScores, Interval, ReliabilityBin, Scores
from keepmap.metrics.figures import IMAGE, Column, Floats
from keepmap.metrics.intervals import group_sums, interval, resample
from keepmap.metrics.objects import average_precision, object_f1
from keepmap.metrics.tally import IN_UNITS, Tally

_LEAST_GROUPS = 5
"""Groups below which images are resampled instead."""


@dataclass(frozen=True)
class Resampling:
    """What a bootstrap draws. groups: of each image. text: what intervals are over, or why there are none."""

    groups: tuple[str, ...]
    text: str
    possible: bool


def choose_resampling(stems: Sequence[str], groups: Mapping[str, str], asked: bool) -> Resampling:
    """Groups where they were asked for or there are five at least, else images. groups: of each stem."""
    count, images = len({groups[stem] for stem in stems}), len(stems)
    if images == 1:
        return Resampling(tuple(stems), "one image only: no intervals", possible=False)
    by_group = Resampling(tuple(groups[stem] for stem in stems), f"95 % intervals over {count} groups", possible=True)
    if count == images or (count < _LEAST_GROUPS and not asked):
        text = f"95 % intervals over {images} images"
        few = f", which are of {count} group{'s' * (count > 1)} only: they may be too narrow"
        return Resampling(tuple(stems), text + few * (count < images), possible=True)
    if count == 1:
        return Resampling(by_group.groups, "one group only: no intervals", possible=False)
    return by_group


def score(tally: Tally, resampling: Resampling) -> Scores:
    """Everything that the counts say, with 95 % intervals."""
    counts = tally.counts()
    numbers = figures.columns(counts)
    sums = figures.with_values(counts, numbers)
    evaluate = figures.statistic(numbers)
    whole = evaluate({name: values.sum(axis=0, keepdims=True) for name, values in sums.items()})[0]
    intervals: list[Interval | None] = [None] * len(whole)
    if resampling.possible:
        drawn = resample(group_sums(sums, resampling.groups), evaluate)
        intervals = [interval(drawn[:, place]) for place in range(drawn.shape[1])]
    shown = tuple(
        Figure(
            number.spec.name, number.of, _known(value), between, _unit(number, tally),
            int((~np.isnan(number.values)).sum()),
        )
        for number, value, between in zip(numbers, whole, intervals, strict=False)
    )  # fmt: skip
    base = tally.matrix.scores(tally.names)
    of_classes = intervals[len(numbers) :]
    images = _images(tally, counts, numbers, resampling)
    return replace(
        base,
        classes=tuple(
            replace(one, iou_interval=between)
            for one, between in zip(_with_shapes(_with_areas(base.classes, counts), counts), of_classes, strict=True)
        ),
        figures=shown,
        images=images,
        reliability=reliability_of(counts["bins"].sum(axis=0)) if "bins" in counts else (),
        quality_correlation=rank_correlation([i.expected_dice for i in images], [i.mean_dice for i in images]),
        resampled=resampling.text,
        remarks=_remarks(tally),
        trained_on=tuple(tally.trained_on),
        area_unit=f"{tally.unit}^2" if "area" in counts else "",
    )


def _with_areas(classes: Sequence[ClassScores], counts: Mapping[str, Floats]) -> Sequence[ClassScores]:
    """The classes with their areas, where all files tell the size of their pixels."""
    if "area" not in counts:
        return classes
    sums = counts["area"].sum(axis=0).tolist()
    return [replace(one, area=true, predicted_area=found) for one, (true, found) in zip(classes, sums, strict=True)]


def _with_shapes(classes: Sequence[ClassScores], counts: Mapping[str, Floats]) -> list[ClassScores]:
    """The classes, and what the counts of outlines and objects say of them."""
    if "objects" not in counts:
        return list(classes)
    sums = {name: counts[name].sum(axis=0) for name in ("boundary", "surface", "objects")}
    means = figures.mean_known(np.moveaxis(counts["distances"], 0, -1))
    errors = figures.mean_known(figures.count_error(counts["objects"]).T)
    return [
        replace(
            one,
            boundary_f=_known(surfaces.boundary_f(sums["boundary"][k])),
            surface_dice=_known(surfaces.surface_dice(sums["surface"][k])),
            hausdorff95=_known(means[k, 0]),
            surface_distance=_known(means[k, 1]),
            object_f1=_known(object_f1(sums["objects"][k])),
            ap50=_known(average_precision(sums["objects"][k])),
            count_error=_known(errors[k]),
        )
        for k, one in enumerate(classes)
    ]


_OF_IMAGE = {
    "mean_iou": "mean IoU", "mean_dice": "mean Dice", "pixel_accuracy": "pixel accuracy", "boundary_f": "boundary F",
    "surface_dice": "surface Dice", "hausdorff95": "Hausdorff 95 %", "surface_distance": "surface distance",
    "object_f1": "object F1", "count_error": "count error",
}  # fmt: skip
"""Field of `ImageScores` -> number that it is."""


def _images(
    tally: Tally, counts: dict[str, Floats], numbers: Sequence[Column], resampling: Resampling
) -> tuple[ImageScores, ...]:
    """Each image alone, the lowest mean IoU first; those without one last."""
    values = {number.spec.name: number.values for number in numbers if number.of == IMAGE}
    ious, pixels = figures.iou(counts["region"]), counts["region"][..., 1].sum(axis=-1)
    rows = [
        ImageScores(
            stem=stem,
            group=resampling.groups[place],
            pixels=int(pixels[place]),
            expected_dice=tally.expected[place],
            worst_region=tally.regions[place],
            iou=tuple(_known(value) for value in ious[place]),
            **{name: _known(values[of][place]) if of in values else None for name, of in _OF_IMAGE.items()},
        )
        for place, stem in enumerate(tally.stems)
    ]
    return tuple(sorted(rows, key=lambda row: (row.mean_iou is None, row.mean_iou or 0.0, row.stem)))


def reliability_of(bins: Floats) -> tuple[ReliabilityBin, ...]:
    """The reliability curve of bins (BINS, 3) as `Calibration` counts them."""
    return tuple(
        ReliabilityBin(place / BINS, (place + 1) / BINS, int(pixels), *(_ratio(x, pixels) for x in (confidence, right)))
        for place, (pixels, confidence, right) in enumerate(bins.tolist())
    )


def _remarks(tally: Tally) -> tuple[str, ...]:
    remarks = []
    if tally.trained_on:
        seen = f"{len(tally.trained_on)} of {len(tally.rows)} images were trained on"
        remarks.append(f"{seen}: these numbers do not tell how it does on new images")
    empty = sum(not row["region"][:, 1].any() for row in tally.rows)
    if empty:
        remarks.append(f"{empty} of {len(tally.rows)} images have no pixel that is not ignored; they have no scores")
    if tally.alone:
        remarks.append(f"{tally.alone} prediction{'s' * (tally.alone > 1)} without a mask: not scored")
    if tally.unpredicted:
        remarks.append(f"{tally.unpredicted:,} px that have a truth are not scored: predictions declare them nodata")
    if len(tally.units) > 1:
        units = ", ".join(sorted(unit or "none" for unit in tally.units))
        remarks.append(f"the files tell several units ({units}), so distances are in pixels and there are no areas")
    if tally.large:
        remarks.append(
            f"Hausdorff 95 % and surface distance leave out {tally.large} of {len(tally.rows)} images, which have more "
            f"than {surfaces.DISTANCE_PIXELS:,} pixels"
        )
    return tuple(remarks)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _known(value: float | Floats) -> float | None:
    return None if math.isnan(value) else float(value)


@dataclass(frozen=True)
class Difference:
    """One number of two countings of the same images; what is n/a in either is None.

    name, of, unit: as in `Figure`; of a class: its name, and "class".  difference: second - first, with its interval.
    share: of the draws, those in which the second is the larger, equal ones counted half.  images: over how many images
    both sides are; of a mean over images, those in which neither is n/a.
    """

    name: str
    of: str
    unit: str
    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None
    share: float | None
    images: int


def differences(first: Tally, second: Tally, resampling: Resampling) -> list[Difference]:
    """The numbers that both tallies have, in the same unit, then the IoU of each class.

    The tallies are of the same images in the same order, and every draw takes the same groups of both (paired
    bootstrap). Means over images are over those for which neither side is n/a; of distances, over those classes.
    """
    counts = _both_known(first, second)
    pairs = list(zip(*map(figures.columns, counts), strict=True))
    alone = [np.isnan(one.values) | np.isnan(other.values) for one, other in pairs]
    wholes, draws = [], []
    numbers = [one for one, _ in pairs]
    for one, columns in zip(counts, zip(*pairs, strict=True), strict=True):
        known = [replace(c, values=np.where(gone, np.nan, c.values)) for c, gone in zip(columns, alone, strict=True)]
        sums, evaluate = figures.with_values(one, known), figures.statistic(known)
        wholes.append(evaluate({name: values.sum(axis=0, keepdims=True) for name, values in sums.items()})[0])
        if resampling.possible:
            draws.append(resample(group_sums(sums, resampling.groups), evaluate))
    drawn = draws[1] - draws[0] if draws else np.full((1, len(wholes[0])), math.nan)
    heads = [
        (n.spec.name, n.of, _unit(n, first), len(gone) - int(gone.sum()) if n.of == IMAGE else len(first.stems))
        for n, gone in zip(numbers, alone, strict=True)
    ]  # fmt: skip
    heads += [(name, "class", "", len(first.stems)) for name in first.names]
    return [
        Difference(name, of, unit, _known(a), _known(b), _known(b - a), interval(column), _share_above(column), images)
        for (name, of, unit, images), a, b, column in zip(heads, wholes[0], wholes[1], drawn.T, strict=True)
    ]


def _both_known(first: Tally, second: Tally) -> list[dict[str, Floats]]:
    """The counts that both have; distances are n/a in both where they are in one of them."""
    counts = [tally.counts() for tally in (first, second)]
    shared = [name for name in counts[0] if name in counts[1] and (first.unit == second.unit or name not in IN_UNITS)]
    kept = [{name: one[name] for name in shared} for one in counts]
    for name in {"distances", "physical"} & set(shared):
        gone = np.isnan(kept[0][name]) | np.isnan(kept[1][name])
        for one in kept:
            one[name] = np.where(gone, np.nan, one[name])
    return kept


def _unit(number: Column, tally: Tally) -> str:
    return tally.unit if number.spec.unit == "file" else number.spec.unit


def _share_above(drawn: Floats) -> float | None:
    known = drawn[~np.isnan(drawn)]
    return float((known > 0).mean() + (known == 0).mean() / 2) if len(known) else None
