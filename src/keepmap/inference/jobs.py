"""Which files are predicted and what is written for each, found out before the first image.

Knows paths and their order; of an image at most the size.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from keepmap.config import LONGEST_NAME
from keepmap.data import headers
from keepmap.data.images import open_image
from keepmap.data.pairing import list_images
from keepmap.data.zarr_image import is_zarr_folder
from keepmap.errors import DataError, InputError, OutputError, first_few
from keepmap.options import PredictOptions

_WRITTEN = {headers.TIFF: ".tif", headers.NPY: ".tif", headers.ZARR: ".zarr"}
"""Kind of an image -> suffix of its mask; that of all others, which are decoded whole, is .png."""


@dataclass(frozen=True)
class Job:
    """One image and what is written for it; None where it was not asked for."""

    image: Path
    mask: Path
    overlay: Path | None = None
    polygons: Path | None = None
    probabilities: Path | None = None
    coarse: Path | None = None

    @property
    def outputs(self) -> list[Path]:
        """The files that are written."""
        paths = self.mask, self.overlay, self.polygons, self.probabilities, self.coarse
        return [path for path in paths if path is not None]


@dataclass(frozen=True)
class Failure:
    """An input that could not be predicted, and why."""

    path: Path
    error: InputError


def plan_outputs(
    inputs: Sequence[Path], out: Path, options: PredictOptions = PredictOptions()  # noqa: B008
) -> tuple[list[Job], list[Failure]]:
    """What is written for each input, and the files in folders that are pictures but cannot be read.

    inputs: files, and folders whose structure is kept below `out`; the same file twice counts once. An image becomes
    OUT/STEM.png (.tif for TIFF and .npy, .zarr for Zarr), and as `options` says OUT/STEM_overlay.png, OUT/STEM.geojson,
    OUT/STEM.npy and OUT/STEM_coarse.npy. `out` itself is left out of folders.
    Raises DataError where an input is missing or there is no image, OutputError where two inputs share an output or
    an output would replace an input. Touches no file.
    """
    images: dict[Path, Path] = {}
    failures: list[Failure] = []
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path} does not exist.", expected="an image file, or a folder of them")
        if path.is_dir() and not _is_zarr(path):
            without = out if out.is_dir() and not _same(out, path) else None
            files, findings = list_images(path, without=without, follow_links=options.follow_links)
            images.update({file: file.relative_to(path) for file in files})
            failures += [Failure(Path(f.file), f.to_error()) for f in findings if f.severity == "error"]
        else:
            images[path] = Path(path.name)
    if not images and not failures:
        raise DataError(f"There are no images in {', '.join(map(str, inputs))}.", expected=headers.FORMATS)
    jobs = [_job(image, out / relative, options) for image, relative in images.items()]
    return _without_clashes(jobs), failures


def check_table(table: Path, jobs: Sequence[Job], others: Sequence[Path]) -> None:
    """Raise OutputError where the table would replace an image, another output of the jobs or one of `others`."""
    if table.is_dir():
        raise OutputError(f"{table} is a folder.", expected="a file name for --table")
    taken = [path for job in jobs for path in (job.image, *job.outputs)]
    if table.resolve() in {path.resolve() for path in (*taken, *others)}:
        raise OutputError(f"{table} is a file of the prediction itself.", do="choose another name for --table")


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


def _job(image: Path, target: Path, options: PredictOptions) -> Job:
    def beside(wanted: bool, end: str) -> Path | None:
        return target.with_name(target.stem + end) if wanted else None

    suffix = _WRITTEN.get(headers.SUFFIXES.get(image.suffix.lower(), ""), ".png")
    return Job(
        image,
        target.with_name(target.stem + suffix),
        beside(options.overlay, "_overlay.png"),
        beside(options.polygons, ".geojson"),
        beside(options.probabilities, ".npy"),
        beside(options.coarse, "_coarse.npy"),
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
            if (length := len(os.fsencode(path.name))) > LONGEST_NAME:
                raise OutputError(
                    f"{path} has a name that is too long.", found=f"{length} bytes",
                    expected=f"at most {LONGEST_NAME}", do="rename the image",
                )
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


def largest_size(inputs: Sequence[Path], out: Path, options: PredictOptions) -> tuple[int, int]:
    """(H, W) of the largest image that there is to predict, (1, 1) where none can be opened.

    Raises as `plan_outputs`.
    """
    sizes = [(1, 1)]
    for job in plan_outputs(inputs, out, options)[0]:
        with contextlib.suppress(DataError):
            _, height, width = open_image(job.image, options).shape
            sizes.append((height, width))
    return max(sizes, key=prod)


def failed(failures: Sequence[Failure], total: int) -> InputError:
    """The error for the inputs that could not be predicted: the only one as it is, several as a list."""
    if total == 1:
        return failures[0].error
    shown = first_few([str(failure.error) for failure in failures], "\n")
    return DataError(
        f"{len(failures)} of {total} images could not be predicted; the others are done.\n{shown}",
        do="mend or remove these files and predict them again",
    )
