"""The images of a RUN that are still there: to calibrate int8 on, to compare on, to score on.

Knows split.json and files; computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keepmap.config import read_json
from keepmap.data.images import open_image
from keepmap.data.pairing import Pair, list_images, match_folders
from keepmap.data.samples import filled
from keepmap.errors import DataError, OptionError
from keepmap.options import ImageOptions
from keepmap.protocols import Array
from keepmap.runs import FORMAT, RunFolder

_CROPS, _SIDE = 64, 256
"""Crops that int8 is calibrated on, and their side in pixels."""


@dataclass(frozen=True)
class Pictures:
    """files: the training images. pairs: held-out images with their masks. gone: why there are none of both, or ""."""

    files: tuple[Path, ...]
    pairs: tuple[Pair, ...]
    reading: ImageOptions
    gone: str = ""


def pictures_of(run: RunFolder) -> Pictures:
    """The images that split.json of `run` names. Raises RunError where that file is broken."""
    if not run.split_file.is_file():
        return Pictures((), (), ImageOptions(), f"{run.path} was not trained here: it has no split.json")
    split = read_json(run.split_file, format=FORMAT)
    told = split["options"]
    reading = ImageOptions(told["frame"], told["max_pixels"], told.get("follow_links", False))
    try:
        matching = match_folders(Path(split["images"]), Path(split["masks"]), follow_links=reading.follow_links)
        pairs = {pair.stem: pair for pair in matching.pairs}
    except DataError as error:
        return Pictures((), (), reading, error.summary)
    files = tuple(pairs[stem].image for stem in split["train"] if stem in pairs)
    held_out = tuple(pairs[stem] for stem in split["validation"] if stem in pairs)
    return Pictures(files, held_out, reading, "" if files else f"none of its images is in {split['images']}")


def calibration(run: RunFolder, pictures: Pictures, folder: Path | None) -> Pictures:
    """Pictures with files to calibrate on: those of `folder`, if there is one. Raises DataError, OptionError."""
    if folder is not None:
        files = tuple(list_images(folder, follow_links=pictures.reading.follow_links)[0])
        if not files:
            raise DataError(f"There are no images in {folder}.", expected="images like those of the training")
        return Pictures(files, pictures.pairs, pictures.reading)
    if not pictures.files:
        raise OptionError(
            f"The training images of {run.path} are gone, and int8 is calibrated on them.", found=pictures.gone,
            expected="images that show what the network will see",
            do="pass --calibration FOLDER with such images, or put the training images back",
        )  # fmt: skip
    return pictures


def crops_of(pictures: Pictures, mean: Array, count: int = _CROPS, side: int = _SIDE) -> list[Array]:
    """Raw values (1, C, h, w) float32 of `count` crops of at most `side` pixels, each image in its turn."""
    random, crops = np.random.default_rng(0), []
    order = random.permutation(len(pictures.files))
    for index in range(count):
        source = open_image(pictures.files[order[index % len(order)]], pictures.reading)
        starts = [int(random.integers(max(1, extent - side + 1))) for extent in source.shape[1:]]
        ends = (min(s + side, extent) for s, extent in zip(starts, source.shape[1:], strict=True))
        rows, columns = (slice(start, end) for start, end in zip(starts, ends, strict=True))
        values = filled(source.read((rows, columns)), source.nodata, mean)
        crops.append(np.ascontiguousarray(values[np.newaxis], np.float32))
    return crops


def samples(
    pictures: Pictures, sizes: Sequence[tuple[int, int]], mean: Array, deviation: Array, dtype: str
) -> list[Array]:
    """Raw values (1, C, h, w) float32 of each of `sizes`: parts of images, repeated where they are too small.

    Where there are no images, noise of that mean and deviation (C,), within the range of `dtype`.
    """
    if pictures.files:
        crops = crops_of(pictures, mean, len(sizes), max(max(size) for size in sizes))
        return [_sized(crop, size) for crop, size in zip(crops, sizes, strict=True)]
    random = np.random.default_rng(0)
    drawn = []
    for size in sizes:
        values = mean[:, None, None] + deviation[:, None, None] * random.standard_normal((1, len(mean), *size))
        if np.dtype(dtype).kind == "u":
            values = values.round().clip(0, np.iinfo(dtype).max)
        drawn.append(values.astype(np.float32))
    return drawn


def _sized(crop: Array, size: tuple[int, int]) -> Array:
    missing = [(0, max(0, want - have)) for want, have in zip(size, crop.shape[2:], strict=True)]
    part: Array = np.pad(crop, [(0, 0), (0, 0), *missing], mode="wrap")[:, :, : size[0], : size[1]]
    return np.ascontiguousarray(part)
