"""Masks against masks: the scores of a predictor on images with masks, or of predicted masks that lie in a folder.

Knows neither how an image becomes a prediction nor how scores are computed; one matrix counts all pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keepmap.data.classes import ClassNames
from keepmap.data.file_labels import find_file_labels
from keepmap.data.findings import Finding
from keepmap.data.images import open_image
from keepmap.data.labels import IGNORE_INDEX, LabelSet
from keepmap.data.masks import declared_nodata, read_mask
from keepmap.data.pairing import MASK_ENDINGS, Pair, list_images, match_folders, relative_stem
from keepmap.data.samples import unmeasured
from keepmap.errors import DataError, first_few
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import ConfusionMatrix, Scores
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Progress, Silent


def evaluate_run(
    predictor: Predictor,
    images: Path,
    masks: Path,
    *,
    reading: ImageOptions = ImageOptions(),  # noqa: B008
    progress: Progress | None = None,
) -> Scores:
    """Predict every image and score it against its mask; the labels are those of the predictor.

    reading: how files are read. Pixels that were never measured are not scored.
    Raises DataError where an image or a mask is alone or cannot be read, the two differ in size, an image does not
    fit the predictor, or a mask holds a value that is no label.
    """
    matching = match_folders(images, masks)
    pairs, findings = matching.pairs, matching.findings
    _raise_errors(findings)
    _require(pairs, images)
    labels = predictor.labels
    matrix = ConfusionMatrix(labels.count)
    with (progress or Silent()).track("evaluate", len(pairs), "images") as tracker:
        for pair in pairs:
            source = open_image(pair.image, reading)
            predictor.check(source)
            truth = labels.encode(read_mask(pair.mask, reading), pair.mask)
            _same_size(pair, source.shape[1:], truth.shape)
            if source.nodata is not None:
                truth[unmeasured(source.read(), source.nodata)] = IGNORE_INDEX
            matrix.add(truth, predictor.indices(predictor.read(source), str(pair.image)))
            tracker.advance()
    return matrix.scores(labels.names)


def evaluate_folders(
    predictions: Path,
    masks: Path,
    *,
    class_names: ClassNames | None = None,
    ignore: str = "auto",
    instances: str = "auto",
    reading: ImageOptions = ImageOptions(),  # noqa: B008
    progress: Progress | None = None,
) -> Scores:
    """Score predicted masks against true ones of the same relative stems; nothing is predicted here.

    class_names, ignore, instances: as in `find_file_labels`, which sees the true masks only. Predictions without a
    mask are left out, and so are pixels of the nodata value that a predicted GeoTIFF declares. Raises DataError where a
    mask has no prediction, two sizes differ, a value in either is no label, or the ignored value is predicted at a
    pixel whose truth is not ignored.
    """
    show = progress or Silent()
    pairs = pair_predictions(predictions, masks)
    labels, sentence = find_file_labels(
        [pair.mask for pair in pairs], class_names=class_names, ignore=ignore, instances=instances, reading=reading,
        progress=show,
    )  # fmt: skip
    show.say(sentence)
    matrix = ConfusionMatrix(labels.count)
    with show.track("evaluate", len(pairs), "images") as tracker:
        for pair in pairs:
            values, truth = read_mask(pair.image, reading), labels.encode(read_mask(pair.mask, reading), pair.mask)
            _same_size(pair, values.shape, truth.shape)
            empty = values == declared_nodata(pair.image, reading)
            truth[empty], values[empty] = IGNORE_INDEX, labels.values[0]
            prediction = labels.encode(values, pair.image)
            _decided(pair, prediction, truth, labels)
            matrix.add(truth, prediction)
            tracker.advance()
    return matrix.scores(labels.names)


def pair_predictions(predictions: Path, masks: Path) -> list[Pair]:
    """Each mask with the prediction of its relative stem (x.png, x_mask.png and x_label.png with x.png).

    What else lies in `predictions` is passed over; so is x.npy beside an x of another kind: it holds probabilities.
    Raises DataError that lists the masks without a prediction, and where a stem occurs twice, a mask is no image file
    or there are no masks.
    """
    files, findings = list_images(masks)
    _raise_errors(findings)
    _require(files, masks)
    predicted = _by_stem(_without_probabilities(list_images(predictions)[0]), predictions)
    pairs, missing = [], []
    taken: dict[str, Path] = {}
    for stem, mask in _by_stem(files, masks).items():
        names = [stem, *(stem.removesuffix(ending) for ending in MASK_ENDINGS)]
        name = next((name for name in names if name in predicted), None)
        if name is None:
            missing.append(str(mask))
        elif (other := taken.setdefault(name, mask)) != mask:
            raise DataError(f"{other} and {mask} both belong to {predicted[name]}.", do="remove one of them")
        else:
            pairs.append(Pair(name, predicted[name], mask))
    if missing:
        raise DataError(
            f"{len(missing)} of {len(files)} masks in {masks} have no prediction in {predictions}.",
            found=first_few(missing),
            expected="one prediction of the same relative stem for each mask",
            do="predict these images too, or take their masks out",
        )
    return pairs


def _without_probabilities(files: Sequence[Path]) -> list[Path]:
    """The files without arrays that stand beside a mask of their name, as `predict --probabilities` writes them."""
    masks = {path.with_suffix("") for path in files if path.suffix.lower() != ".npy"}
    return [path for path in files if path.suffix.lower() != ".npy" or path.with_suffix("") not in masks]


def _by_stem(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Files by relative stem. Raises DataError for a stem that occurs twice."""
    by_stem: dict[str, Path] = {}
    for path in files:
        other = by_stem.setdefault(relative_stem(path, folder), path)
        if other != path:
            raise DataError(
                f"{other} and {path} have one stem.", expected="one mask per stem", do="rename or remove one of them"
            )
    return by_stem


def _raise_errors(findings: Sequence[Finding]) -> None:
    """Raise DataError for the errors among the findings: the only one as it is, several as a list."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if len(errors) == 1:
        raise errors[0].to_error()
    if errors:
        raise DataError(
            f"{len(errors)} files cannot be used.",
            found=first_few([finding.summary for finding in errors], "\n"),
            expected="one mask for each image, PNG, JPEG or TIFF",
            do="keepmap check IMAGES MASKS shows them all",
        )


def _require(files: Sequence[object], folder: Path) -> None:
    if not files:
        raise DataError(f"The folder {folder} holds no images.", expected="PNG or TIFF files")


def _same_size(pair: Pair, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise DataError(
            f"{pair.image} and {pair.mask} differ in size.",
            found=f"{found[0]} x {found[1]} px (rows x columns)",
            expected=f"{expected[0]} x {expected[1]} px, as the mask",
            do="use the mask that was drawn on this very image",
        )


def _decided(pair: Pair, prediction: Array, truth: Array, labels: LabelSet) -> None:
    """Raise DataError where the ignored value is predicted and the truth is not ignored."""
    undecided = int(np.count_nonzero((prediction < 0) & (truth >= 0)))
    if undecided:
        raise DataError(
            f"{pair.image} predicts the ignored value {labels.ignore}.",
            found=f"{undecided} px whose truth is not ignored",
            expected=labels.describe(),
            do="predict a class for every pixel; or pass --ignore none, if the value is a class",
        )
