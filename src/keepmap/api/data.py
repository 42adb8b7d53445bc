"""The verbs on data sets: check them, convert their annotations.

Decides nothing about files: what is wrong, and what is repaired, is found out in `data`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from keepmap.config import from_arguments, write_text
from keepmap.data.classes import named_classes
from keepmap.data.convert import Conversion, Reading, convert_annotations
from keepmap.data.repair import IMAGES, MASKS, repair, require_new
from keepmap.data.scan import DataReport, scan
from keepmap.options import CheckOptions, ConvertOptions, Instances
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.reporting.data_page import data_page


def check(
    images: StrPath,
    masks: StrPath,
    *,
    fix: str | None = None,
    html: str | None = None,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    follow_links: bool = False,
    progress: Progress | None = None,
) -> DataReport:
    """Everything that is wrong with two folders of images and masks, in one report. Raises nothing for bad files.

    fix: a new folder, written whole or not at all: a repaired copy, which the report's `repair` and `repaired` are on.
    html: a file for the report as a page. Raises OutputError where either cannot be written, DataError where a folder
    cannot be listed or, with fix, the labels cannot be told.
    """
    options = from_arguments(CheckOptions, locals())
    names = named_classes(options.classes)
    folders, show = (Path(images), Path(masks)), progress or Silent()
    if options.fix:
        require_new(Path(options.fix), *folders)
    report = scan(
        *folders, class_names=names, ignore=options.ignore, instances=options.instances, reading=options, progress=show
    )
    if options.fix:
        done = repair(*folders, Path(options.fix), class_names=names, options=options, progress=show)
        again = scan(
            done.out / IMAGES, done.out / MASKS, class_names=named_classes(done.classes) or names,
            ignore="auto" if done.classes else options.ignore, instances=options.instances, reading=options,
            progress=show,
        )  # fmt: skip
        report = replace(report, repair=done, repaired=again)
    if options.html:
        write_text(Path(options.html), data_page(report))
    return report


def convert(
    source: StrPath,
    out: StrPath,
    *,
    images: str | None = None,
    classes: str | None = None,
    ignore: str = "auto",
    instances: Instances = "auto",
    frame: int | None = None,
    max_pixels: int = 100_000_000,
    follow_links: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Masks of class ids, OUT/STEM.png with OUT/classes.txt, from masks of any kind, COCO json or labelme json.

    source: a folder of masks, a COCO file, a labelme file or a folder of them. images: the folder of the images.
    What is wrong is refused and nothing is written; what is left out is in the result. Raises DataError, OptionError,
    OutputError.
    """
    options = from_arguments(ConvertOptions, locals())
    names = named_classes(options.classes)
    reading = Reading(names, options.ignore, options.instances, options)
    folder = Path(options.images) if options.images else None
    return convert_annotations(Path(source), Path(out), images=folder, reading=reading, progress=progress or Silent())
