"""Predict files and folders: what is written where, found out before the first image, and the loop over them.

Knows neither networks nor file formats, only paths and their order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keepmap.data import headers
from keepmap.data.images import open_image
from keepmap.data.labels import IGNORE_INDEX
from keepmap.data.masks import read_mask
from keepmap.data.overlay import draw_overlay
from keepmap.data.pairing import list_images
from keepmap.data.sinks import open_probabilities, open_sink, write_array, write_picture
from keepmap.data.zarr_image import is_zarr_folder
from keepmap.errors import DataError, InputError, OutputError, first_few
from keepmap.inference.predictor import MEGAPIXEL, Predictor
from keepmap.options import ImageOptions
from keepmap.protocols import Progress, Silent, Tracker

_WRITTEN = {headers.TIFF: ".tif", headers.NPY: ".tif", headers.ZARR: ".zarr"}
"""Kind of an image -> suffix of its mask; that of all others, which are decoded whole, is .png."""


@dataclass(frozen=True)
class Job:
    """One image and what is written for it; None where it was not asked for."""

    image: Path
    mask: Path
    overlay: Path | None = None
    probabilities: Path | None = None
    coarse: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """The files that are written."""
        return [path for path in (self.mask, self.overlay, self.probabilities, self.coarse) if path is not None]


@dataclass(frozen=True)
class Failure:
    """An input that could not be predicted, and why."""

    path: Path
    error: InputError


def plan_outputs(
    inputs: Sequence[Path], out: Path, *, overlay: bool = False, probabilities: bool = False, coarse: bool = False
) -> tuple[list[Job], list[Failure]]:
    """What is written for each input, and the files in folders that are pictures but cannot be read.

    inputs: files, and folders whose structure is kept below `out`; the same file twice counts once. An image becomes
    OUT/STEM.png (.tif for TIFF and .npy, .zarr for Zarr), OUT/STEM_overlay.png, OUT/STEM.npy and
    OUT/STEM_coarse.npy. `out` itself is left out of folders.
    Raises DataError where an input is missing or there is no image, OutputError where two inputs share an output or
    an output would replace an input. Touches no file.
    """
    images: dict[Path, Path] = {}
    failures: list[Failure] = []
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path} does not exist.", expected="an image file, or a folder of them")
        if path.is_dir() and not _is_zarr(path):
            files, findings = list_images(path, without=out if out.is_dir() and not _same(out, path) else None)
            images.update({file: file.relative_to(path) for file in files})
            failures += [Failure(Path(f.file), f.to_error()) for f in findings if f.severity == "error"]
        else:
            images[path] = Path(path.name)
    if not images and not failures:
        raise DataError(f"There are no images in {', '.join(map(str, inputs))}.", expected=headers.FORMATS)
    jobs = [_job(image, out / relative, overlay, probabilities, coarse) for image, relative in images.items()]
    return _without_clashes(jobs), failures


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Path],
    out: Path,
    *,
    overlay: bool = False,
    probabilities: bool = False,
    coarse: bool = False,
    reading: ImageOptions = ImageOptions(),  # noqa: B008
    progress: Progress | None = None,
) -> list[Path]:
    """Predict images into `out` and return the paths of their masks; see `plan_outputs` for the names.

    reading: how the images are read.
    Each file appears under its name only when it is whole; older files of the same name are replaced. An image that
    cannot be predicted does not stop the others: DataError at the end names it. OutputError, before the first image,
    where `out` cannot be written.
    """
    show = progress or Silent()
    if coarse:
        predictor.runtime.check_scores()
    jobs, failures = plan_outputs(inputs, out, overlay=overlay, probabilities=probabilities, coarse=coarse)
    prepare_folders({out, *(path.parent for job in jobs for path in job.outputs)})
    total = len(jobs) + len(failures)
    sized: list[tuple[Job, int]] = []
    for job in jobs:
        try:
            source = open_image(job.image, reading)
            predictor.check(source)
            if job.overlay is not None or job.coarse is not None:
                headers.require_pixels(job.image, *source.shape[1:], reading.max_pixels, source.shape[0])
        except DataError as error:
            failures.append(Failure(job.image, error))
        else:
            sized.append((job, source.shape[1] * source.shape[2]))
    done = []
    with show.track("predict", sum(pixels for _, pixels in sized) / MEGAPIXEL, "megapixels") as tracker:
        for job, _ in sized:
            try:
                _predict_one(predictor, job, reading, tracker, show)
            except DataError as error:
                failures.append(Failure(job.image, error))
            else:
                done.append(job.mask)
    if failures:
        raise _failed(failures, total)
    return done


def prepare_folders(folders: set[Path]) -> None:
    """Create the folders and write a file of no bytes into each, which is removed at once. Raises OutputError."""
    for folder in sorted(folders):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(
                f"The folder {folder} cannot be written.",
                found=os.strerror(error.errno) if error.errno else str(error),
                expected="a folder in which files can be created",
                do="choose another -o OUT",
            ) from error


def _predict_one(
    predictor: Predictor, job: Job, reading: ImageOptions, tracker: Tracker, progress: Progress
) -> None:
    source = open_image(job.image, reading)
    way = predictor.plan_way(*source.shape[1:])
    if way.kind != "one pass":
        progress.say(f"{job.image}: {way}; {way.because}.")
    labels = predictor.labels
    blank = None if source.nodata is None else labels.blank
    dtype = np.promote_types(labels.dtype, np.min_scalar_type(blank or 0))
    with ExitStack() as stack:
        sink = stack.enter_context(open_sink(job.mask, source.shape[1:], dtype, source.geometry, blank))
        values = None
        if job.probabilities is not None:
            values = stack.enter_context(open_probabilities(job.probabilities, (labels.count, *source.shape[1:])))
        predictor.predict(source, sink, probabilities=values, tracker=tracker)
    if job.coarse is not None:
        write_array(job.coarse, predictor.coarse(predictor.read(source), str(job.image)))
    if job.overlay is not None:
        written = read_mask(job.mask, reading)
        empty = written == labels.blank if source.nodata is not None else np.zeros(written.shape, bool)
        indices = labels.encode(np.where(empty, labels.values[0], written), job.mask)
        indices[empty] = IGNORE_INDEX
        write_picture(job.overlay, draw_overlay(source.read(), indices, labels))


def _job(image: Path, target: Path, overlay: bool, probabilities: bool, coarse: bool) -> Job:
    suffix = _WRITTEN.get(headers.SUFFIXES.get(image.suffix.lower(), ""), ".png")
    return Job(
        image,
        target.with_name(target.stem + suffix),
        target.with_name(f"{target.stem}_overlay.png") if overlay else None,
        target.with_name(f"{target.stem}.npy") if probabilities else None,
        target.with_name(f"{target.stem}_coarse.npy") if coarse else None,
    )


def _without_clashes(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each image once. Raises OutputError where two share an output, or an output would replace an image."""
    images = {job.image.resolve(): job.image for job in jobs}
    owners: dict[Path, Path] = {}
    kept = []
    for job in jobs:
        resolved = job.image.resolve()
        if all(owners.get(path.resolve()) == resolved for path in job.outputs):
            continue
        for path in job.outputs:
            other = owners.setdefault(path.resolve(), resolved)
            if other != resolved:
                raise OutputError(
                    f"{images[other]} and {job.image} would both be written to {path}.",
                    expected="one output name for each input",
                    do="rename one of them, or predict them into different folders",
                )
            if path.resolve() in images:
                raise OutputError(
                    f"{images[path.resolve()]} is an input and would be replaced by the prediction for {job.image}.",
                    do="choose another -o OUT",
                )
            if path.is_dir() and not (_is_zarr(path) and is_zarr_folder(path)):
                raise OutputError(f"{path} is a folder, where a file is to be written.", do="choose another -o OUT")
        kept.append(job)
    return kept


def _is_zarr(path: Path) -> bool:
    return headers.SUFFIXES.get(path.suffix.lower()) == headers.ZARR


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _failed(failures: Sequence[Failure], total: int) -> InputError:
    """The error for the inputs that could not be predicted: the only one as it is, several as a list."""
    if total == 1:
        return failures[0].error
    return DataError(
        f"{len(failures)} of {total} images could not be predicted; the others are done.",
        found=first_few([failure.error.summary for failure in failures], "\n"),
        do="mend or remove these files and predict them again",
    )
