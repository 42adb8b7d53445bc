"""What `evaluate` and `compare` are given: a RUN with images and masks, or folders of predicted masks with true ones.

Knows which is which and what goes with what; counts and scores nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from keepmap.data.classes import named_classes
from keepmap.data.groups import check_rule, group_stems, was_asked
from keepmap.errors import DataError, OptionError, first_few
from keepmap.evaluation.counting import count_folders, count_run
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import ImageScores, Scores
from keepmap.metrics.regions import Region
from keepmap.metrics.scoring import Difference, Resampling, choose_resampling, differences, score
from keepmap.metrics.tally import Judging, Tally
from keepmap.options import AveragingOptions, CompareOptions, EvaluateOptions, ScoreOptions
from keepmap.protocols import Progress, StrPath


@dataclass(frozen=True)
class Opener:
    """What tells trained networks from folders of masks, and opens them.

    knows: whether there is a RUN or an exported file in a place; open: its predictor; trained: the digests of the
    images that it was trained on, where it says.
    """

    knows: Callable[[Path], bool]
    open: Callable[[Path], Predictor]
    trained: Callable[[Path], frozenset[str]]


WORST = 5
"""Classes and images that a comparison names."""


@dataclass(frozen=True)
class ImageChange:
    """Mean IoU of one image in the first source and in another."""

    stem: str
    first: float
    second: float


@dataclass(frozen=True)
class WrongPlace:
    """The square of an image in which most pixels are wrong."""

    stem: str
    region: Region


@dataclass(frozen=True)
class Pairing:
    """The first source against another. numbers: every one that both have, then the IoU of each class.

    worst_classes: names of those that lost most IoU; worst_images: those that lost most mean IoU. Only losses.
    worst_regions: of all images that lost mean IoU, the squares in which the other source is most wrong.
    """

    first: str
    second: str
    numbers: tuple[Difference, ...]
    worst_classes: tuple[str, ...]
    worst_images: tuple[ImageChange, ...]
    worst_regions: tuple[WrongPlace, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Several sources on the same masks; JSON-ready by `config.to_dict`.

    sources: their names; scores: of each; pairings: the first against each other; resampled: what intervals are over.
    """

    sources: tuple[str, ...]
    scores: tuple[Scores, ...]
    pairings: tuple[Pairing, ...]
    resampled: str


def evaluate_source(
    folders: Sequence[StrPath], options: EvaluateOptions, opener: Opener, own: bool, progress: Progress
) -> Scores:
    """The scores of a RUN on IMAGES and MASKS, or of PREDICTIONS against MASKS.

    own: whether a network object was handed over. Raises OptionError for what does not go together, DataError.
    """
    source, *others = map(Path, folders)
    check_rule(options.group_by)
    if len(others) == 1:
        computing = tuple(getattr(options, field.name) for field in fields(AveragingOptions))
        if opener.knows(source):
            raise OptionError(f"{source} is a trained network: it needs images.", expected="evaluate RUN IMAGES MASKS")
        if computing != tuple(field.default for field in fields(AveragingOptions)) or own:
            raise OptionError(
                "--memory, --way, --device, --precision, --tta, --ensemble and network= are for a RUN; "
                "nothing is computed."
            )
        tally = _count_masks(source, others[0], options, progress)
    elif len(others) == 2:
        _no_labels(options, "evaluate PREDICTIONS MASKS with them")
        tally = count_run(
            opener.open(source), others[0], others[1], judging=_judging(options), reading=options,
            trained=opener.trained(source), progress=progress,
        )  # fmt: skip
    else:
        raise OptionError("evaluate takes two or three folders.", expected="RUN IMAGES MASKS, or PREDICTIONS MASKS")
    scores = score(tally, _resampling(tally, options))
    if scores.trained_on:
        progress.say(f"warning {scores.remarks[0]}")
    return scores


def compare_sources(
    sources: Sequence[StrPath],
    masks: StrPath,
    images: StrPath | None,
    options: CompareOptions,
    opener: Opener,
    progress: Progress,
) -> Comparison:
    """Score each source on the same masks, and every one after the first against it, by paired bootstrap.

    sources: folders of predicted masks; with `images`, RUNs. Raises OptionError, DataError.
    """
    check_rule(options.group_by)
    if len(sources) < 2:
        raise OptionError("compare takes two sources or more.", expected="A B --masks MASKS")
    trained = [source for source in sources if opener.knows(Path(source))]
    if trained and images is None:
        raise OptionError(f"{trained[0]} is a trained network: it needs images.", expected="--images IMAGES")
    if images is None and (options.memory, options.device) != (None, "auto"):
        raise OptionError("--memory and --device are for RUNs; nothing is computed.", expected="--images IMAGES")
    if images is not None:
        _no_labels(options, "compare folders of predicted masks with them")
    tallies = []
    for source in sources:
        progress.say(str(source))
        if images is None:
            tallies.append(_count_masks(Path(source), Path(masks), options, progress))
        else:
            tallies.append(
                count_run(
                    opener.open(Path(source)), Path(images), Path(masks), judging=_judging(options), reading=options,
                    trained=opener.trained(Path(source)), progress=progress,
                )
            )  # fmt: skip
    resampling = _resampling(tallies[0], options)
    scores = tuple(score(tally, resampling) for tally in tallies)
    pairings = []
    for source, tally, other in zip(sources[1:], tallies[1:], scores[1:], strict=True):
        _same(sources[0], tallies[0], source, tally)
        found = differences(tallies[0], tally, resampling)
        pairings.append(_pairing((str(sources[0]), str(source)), found, scores[0], other))
    return Comparison(tuple(map(str, sources)), scores, tuple(pairings), resampling.text)


def _judging(options: ScoreOptions) -> Judging:
    """What is computed."""
    return Judging(options.metrics == "all", options.surface_tolerance, regions=True)


def _count_masks(predictions: Path, masks: Path, options: ScoreOptions, progress: Progress) -> Tally:
    return count_folders(
        predictions, masks, class_names=named_classes(options.classes), ignore=options.ignore,
        instances=options.instances, judging=_judging(options), reading=options, progress=progress,
    )  # fmt: skip


def _no_labels(options: ScoreOptions, otherwise: str) -> None:
    """A RUN knows its labels: raise OptionError where others are named."""
    if options.classes is not None or (options.ignore, options.instances) != ("auto", "auto"):
        raise OptionError(
            "A RUN brings its own classes and ignored value.",
            do=f"leave out --classes, --ignore and --instances, or {otherwise}",
        )


def _resampling(tally: Tally, options: ScoreOptions) -> Resampling:
    groups = group_stems(tally.stems, options.group_by)
    return choose_resampling(tally.stems, groups, asked=was_asked(options.group_by))


def _same(first: StrPath, one: Tally, second: StrPath, other: Tally) -> None:
    """Raise DataError where two sources do not answer the same question."""
    for what, found, expected in (("classes", other.names, one.names), ("images", other.stems, one.stems)):
        if tuple(found) != tuple(expected):
            raise DataError(
                f"{first} and {second} are of different {what}.", found=first_few(list(found)),
                expected=first_few(list(expected)), do="compare what was made for the same masks",
            )
    if [row["region"][:, 1].tolist() for row in one.rows] != [row["region"][:, 1].tolist() for row in other.rows]:
        raise DataError(
            f"{first} and {second} leave out different pixels of the masks.",
            expected="the same ignored value and nodata", do="compare what was made for the same masks",
        )


def _pairing(names: tuple[str, str], found: Sequence[Difference], first: Scores, second: Scores) -> Pairing:
    lost = sorted(
        (one for one in found if one.of == "class" and (one.difference or 0) < 0), key=lambda one: one.difference or 0
    )
    of_first: Mapping[str, ImageScores] = {image.stem: image for image in first.images}
    changes = [
        ImageChange(image.stem, before, image.mean_iou)
        for image in second.images
        if image.mean_iou is not None and (before := of_first[image.stem].mean_iou) is not None
    ]
    worse = sorted((c for c in changes if c.second < c.first), key=lambda change: change.second - change.first)
    places = worst_places([image for image in second.images if image.stem in {change.stem for change in worse}])
    return Pairing(*names, tuple(found), tuple(one.name for one in lost[:WORST]), tuple(worse[:WORST]), places)


def worst_places(images: Sequence[ImageScores]) -> tuple[WrongPlace, ...]:
    """The squares with the most wrong pixels, one of an image at most."""
    places = [WrongPlace(image.stem, image.worst_region) for image in images if image.worst_region is not None]
    return tuple(sorted(places, key=lambda place: -place.region.wrong)[:WORST])
