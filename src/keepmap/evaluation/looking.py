"""A second look at single images of an evaluation: what is shown of them, not what is counted.

Does not choose which images are looked at, and keeps none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keepmap.data.classes import named_classes
from keepmap.data.file_labels import find_file_labels
from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet
from keepmap.data.pairing import Pair
from keepmap.evaluation.counting import read_predicted, read_truth
from keepmap.evaluation.pairs import pair_images, pair_predictions
from keepmap.inference.predictor import Predictor
from keepmap.options import ImageOptions, ScoreOptions
from keepmap.protocols import Array, Silent
from keepmap.resources import Stopwatch


@dataclass(frozen=True)
class Look:
    """One image. image: (C, H, W) as stored, None where there are masks only. truth, prediction: class indices (H, W).

    truth is negative where it is ignored. seconds: what predicting took, 0 where it was read.
    """

    stem: str
    image: Array | None
    truth: Array
    prediction: Array
    seconds: float


@dataclass(frozen=True)
class Sight:
    """What can be looked at. pairs: by stem, of images with masks; without a predictor, of predicted and true masks."""

    pairs: Mapping[str, Pair]
    labels: LabelSet
    reading: ImageOptions
    predictor: Predictor | None

    def pixels(self, stem: str) -> int:
        """How many pixels the image has."""
        height, width = open_image(self.pairs[stem].image, self.reading).shape[1:]
        return height * width

    def look(self, stem: str) -> Look:
        """Read an image, and predict it where that was not done before. Raises DataError."""
        pair = self.pairs[stem]
        if self.predictor is None:
            (_, truth), (_, prediction), _ = read_predicted(pair, self.labels, self.reading)
            return Look(stem, None, truth, prediction, 0.0)
        source = open_image(pair.image, self.reading)
        _, truth = read_truth(pair, source, self.labels, self.reading)
        image, watch = self.predictor.read(source), Stopwatch()
        prediction = self.predictor.indices(image, str(pair.image))
        return Look(stem, image, truth, prediction, watch.seconds)


def sight_of_run(predictor: Predictor, folders: Sequence[Path], reading: ImageOptions) -> Sight:
    """Of a predictor on folders of images and of masks. Raises as `pair_images`."""
    images, masks = folders
    pairs = {pair.stem: pair for pair in pair_images(images, masks, follow_links=reading.follow_links)}
    return Sight(pairs, predictor.labels, reading, predictor)


def sight_of_masks(predictions: Path, masks: Path, options: ScoreOptions) -> Sight:
    """Of predicted masks beside true ones. Raises as `count_folders`."""
    found, _ = pair_predictions(predictions, masks, follow_links=options.follow_links)
    pairs = {pair.stem: pair for pair in found}
    labels, _ = find_file_labels(
        [pair.mask for pair in pairs.values()], class_names=named_classes(options.classes), ignore=options.ignore,
        instances=options.instances, reading=options, progress=Silent(),
    )  # fmt: skip
    return Sight(pairs, labels, options, None)
