"""Counts of a predictor on images with masks, or of predicted masks that lie in a folder: each at the image's own size.

Knows neither how an image becomes a prediction nor what follows from the counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keepmap.data.classes import ClassNames
from keepmap.data.facts import image_digest
from keepmap.data.file_labels import find_file_labels
from keepmap.data.georeference import pixel_size
from keepmap.data.images import open_image
from keepmap.data.instances import number_objects
from keepmap.data.labels import IGNORE_INDEX, LabelSet
from keepmap.data.masks import declared_nodata, mask_geometry, read_mask
from keepmap.data.pairing import Pair
from keepmap.data.samples import unmeasured
from keepmap.errors import DataError
from keepmap.evaluation.pairs import pair_images, pair_predictions
from keepmap.inference.predictor import Predictor
from keepmap.metrics.calibration import Calibration
from keepmap.metrics.tally import Extra, Judging, Tally
from keepmap.options import ImageOptions
from keepmap.protocols import Array, ArraySource, Geometry, Progress, Silent, Window


def count_run(
    predictor: Predictor,
    images: Path,
    masks: Path,
    *,
    judging: Judging = Judging(),  # noqa: B008
    reading: ImageOptions = ImageOptions(),  # noqa: B008
    trained: frozenset[str] = frozenset(),
    progress: Progress | None = None,
) -> Tally:
    """Predict every image and compare it with its mask; the labels are those of the predictor.

    reading: how files are read. trained: digests of images whose stems the tally is to name. Pixels that were never
    measured are not scored. Raises DataError where an image or a mask is alone or cannot be read, the two differ in
    size, an image does not fit the predictor, or a mask holds a value that is no label.
    """
    pairs = pair_images(images, masks, follow_links=reading.follow_links)
    labels = predictor.labels
    tally = Tally(labels.names, judging)
    with (progress or Silent()).track("evaluate", len(pairs), "images") as tracker:
        for pair in pairs:
            source = open_image(pair.image, reading)
            predictor.check(source)
            values, truth = read_truth(pair, source, labels, reading)
            numbers = _numbers(values, labels) if judging.shapes else None
            if judging.shapes:
                sink = _Judge(truth, source, labels.count)
                predictor.predict(source, _Nowhere(), probabilities=sink)
                prediction, calibration = sink.indices, sink.calibration
            else:
                prediction, calibration = predictor.indices(predictor.read(source), str(pair.image)), None
            tally.add(pair.stem, truth, prediction, _extra(source.geometry, numbers, None, calibration))
            if trained and image_digest(source) in trained:
                tally.trained_on.append(pair.stem)
            tracker.advance()
    return tally


def read_truth(pair: Pair, source: ArraySource, labels: LabelSet, reading: ImageOptions) -> tuple[Array, Array]:
    """The values of the true mask (H, W), and its class indices, negative where ignored or never measured."""
    values = read_mask(pair.mask, reading)
    truth = labels.encode(values, pair.mask)
    _same_size(pair, source.shape[1:], truth.shape, "use the mask that was drawn on this very image")
    if source.nodata is not None:
        truth[unmeasured(source.read(), source.nodata)] = IGNORE_INDEX
    return values, truth


class _Judge:
    """An ArraySink for probabilities: keeps the winning classes, and counts what the rest says.

    What was never measured in `source` says nothing.
    """

    def __init__(self, truth: Array, source: ArraySource, classes: int) -> None:
        self.indices: Array = np.empty(truth.shape, np.int16)
        self.calibration = Calibration(classes)
        self._truth, self._source = truth, source

    def write(self, window: Window, labels: Array) -> None:
        """Probabilities (K, h, w) of a window."""
        self.indices[window] = labels.argmax(axis=0)
        truth, nodata = self._truth[window], self._source.nodata
        if nodata is not None:
            known = ~unmeasured(self._source.read(window), nodata)
            labels, truth = labels[:, known], truth[known]
        self.calibration.add(labels, truth)


class _Nowhere:
    """An ArraySink that drops what it gets."""

    def write(self, window: Window, labels: Array) -> None:
        """Nothing."""


def count_folders(
    predictions: Path,
    masks: Path,
    *,
    class_names: ClassNames | None = None,
    ignore: str = "auto",
    instances: str = "auto",
    judging: Judging = Judging(),  # noqa: B008
    reading: ImageOptions = ImageOptions(),  # noqa: B008
    progress: Progress | None = None,
) -> Tally:
    """Compare predicted masks with true ones of the same relative stems; nothing is predicted here.

    class_names, ignore, instances: as in `find_file_labels`, which sees the true masks only. Predictions without a
    mask are left out, and so are pixels of the nodata value that a predicted GeoTIFF declares; the tally says how many.
    Raises DataError where a mask has no prediction, two sizes differ, a value in either is no label, a prediction
    declares the value of a class to be nodata, or the ignored value is predicted at a pixel whose truth is not ignored.
    """
    show = progress or Silent()
    pairs, more = pair_predictions(predictions, masks, follow_links=reading.follow_links)
    labels, sentence = find_file_labels(
        [pair.mask for pair in pairs], class_names=class_names, ignore=ignore, instances=instances, reading=reading,
        progress=show,
    )  # fmt: skip
    show.say(sentence)
    tally = Tally(labels.names, judging, alone=more)
    with show.track("evaluate", len(pairs), "images") as tracker:
        for pair in pairs:
            _count_pair(pair, labels, tally, reading)
            tracker.advance()
    return tally


def _count_pair(pair: Pair, labels: LabelSet, tally: Tally, reading: ImageOptions) -> None:
    (true, truth), (values, prediction), without = read_predicted(pair, labels, reading)
    tally.unpredicted += without
    extra = Extra()
    if tally.judging.shapes:
        numbers = _numbers(values, labels)
        several = numbers if numbers is not None and numbers.max(initial=0) > 1 else None
        extra = _extra(_geometry(pair, reading), _numbers(true, labels), several, None)
    tally.add(pair.stem, truth, prediction, extra)


def read_predicted(
    pair: Pair, labels: LabelSet, reading: ImageOptions
) -> tuple[tuple[Array, Array], tuple[Array, Array], int]:
    """Values and class indices (H, W) of the true mask, then of the predicted one, which is the image of the pair.

    Behind them, how many pixels with a truth the prediction declares to be nodata; they are ignored.
    """
    values, true = read_mask(pair.image, reading), read_mask(pair.mask, reading)
    truth = labels.encode(true, pair.mask)
    _same_size(pair, values.shape, truth.shape, "predict the image that this mask was drawn on, at its own size")
    nodata = declared_nodata(pair.image, reading)
    empty = values == nodata
    without = int(np.count_nonzero(empty & (truth >= 0)))
    if without and nodata in labels.values:
        raise DataError(
            f"{pair.image} declares the value {nodata:g} to be nodata, and it is the value of a class.",
            found=f"{without} px of it where the mask has a class",
            expected="nodata that is no class: such pixels would not be scored, and what was missed there be forgotten",
            do="write predictions without nodata, or with a value that no class has (gdal_edit.py -unsetnodata FILE)",
        )
    truth[empty], values[empty] = IGNORE_INDEX, labels.values[0]
    prediction = labels.encode(values, pair.image)
    _decided(pair, prediction, truth, labels)
    return (true, truth), (values, prediction), without


def _numbers(values: Array, labels: LabelSet) -> Array | None:
    """The numbers of objects in an instance mask; None in any other."""
    return number_objects(values, labels.ignore) if labels.instances else None


def _geometry(pair: Pair, reading: ImageOptions) -> Geometry:
    """That of the true mask, where its file tells one, else of the prediction."""
    true = mask_geometry(pair.mask, reading)
    return true if pixel_size(true)[0] else mask_geometry(pair.image, reading)


def _extra(geometry: Geometry, truth: Array | None, prediction: Array | None, calibration: Calibration | None) -> Extra:
    return Extra(truth, prediction, calibration, *pixel_size(geometry))


def _same_size(pair: Pair, found: tuple[int, ...], expected: tuple[int, ...], do: str) -> None:
    if found != expected:
        raise DataError(
            f"{pair.image} and {pair.mask} differ in size.",
            found=f"{found[0]} x {found[1]} px (rows x columns)",
            expected=f"{expected[0]} x {expected[1]} px, as the mask",
            do=do,
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
