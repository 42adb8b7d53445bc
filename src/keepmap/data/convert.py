"""Annotations of every kind as masks of class ids: which kind it is, which image each belongs to, and the new folder.

Does not know the formats (`coco`, `labelme` and `masks` do). The folder appears whole or not at all, and nothing else
is written.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keepmap.data.classes import ClassNames, read_classes
from keepmap.data.coco import read_coco
from keepmap.data.file_labels import find_file_labels
from keepmap.data.findings import Finding
from keepmap.data.headers import require_pixels
from keepmap.data.images import open_image
from keepmap.data.labelme import BACKGROUND, IGNORED, read_labelme
from keepmap.data.labels import LabelSet
from keepmap.data.masks import read_mask
from keepmap.data.pairing import CLASS_FILE, list_images, relative_stem
from keepmap.data.regions import Drawing, paint
from keepmap.data.scan import DataReport, scan
from keepmap.errors import DataError, OptionError, OutputError, first_few
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Progress

_GROUND = "background"
_NAME_IT = "move it out of the folder, or name the annotation file itself"


@dataclass(frozen=True)
class Conversion:
    """What `convert` wrote. path: the folder of masks. classes: the file of names. ignore: the value left out, if any.

    names: of the ids 0..K-1. masks: how many. kind: what the source was. findings: what was left out or overlaps.
    """

    path: Path
    classes: Path
    names: tuple[str, ...]
    ignore: int | None
    masks: int
    kind: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Job:
    """One mask. draw: gives class ids (H, W), -1 where ignored, and the pixels that two classes claim."""

    stem: str
    draw: Callable[[], tuple[Array, int]]


@dataclass(frozen=True)
class Reading:
    """How masks are read; as the options of `check`. class_names: for annotations, the ids in their order.

    files: how image and mask files are read.
    """

    class_names: ClassNames | None
    ignore: str
    instances: str
    files: ImageOptions


def convert_annotations(
    source: Path, out: Path, *, images: Path | None, reading: Reading, progress: Progress
) -> Conversion:
    """Write OUT/STEM.png for each mask or annotated image of `source`, and OUT/classes.txt.

    source: a folder of masks, a COCO file, a labelme file or a folder of them. images: gives the names and sizes; what
    has no image there is left out and said. `out` must be absent or empty. Raises DataError, OptionError, OutputError.
    """
    _require_free(out)
    if source.is_dir() and not _holds_annotations(source, reading.files):
        kind, names, jobs, findings = _from_masks(source, images, reading, progress)
    else:
        if (reading.ignore, reading.instances) != ("auto", "auto"):
            raise OptionError("--ignore and --instances are for masks; annotations name their classes.")
        kind, drawings, names, findings = _read_annotations(source, reading.files.max_pixels)
        names = _class_ids(names, reading.class_names)
        if images is not None:
            drawings = _with_images(drawings, images, source, reading.files, findings)
        ids = {name: number for number, name in enumerate(names)}
        ids |= {BACKGROUND: 0, IGNORED: -1}
        limit = reading.files.max_pixels
        jobs = [_Job(_stem(d.name), partial(_draw, d, ids, limit)) for d in drawings]
    _require_jobs(jobs, source)
    ignore = 255 if len(names) <= 255 else 65535
    ignored, disputed = _write(out, jobs, names, ignore, progress)
    if disputed:
        findings.append(Finding(
            "warning", str(source), f"Objects of different classes overlap in {len(disputed)} masks.",
            f"{sum(disputed.values())} px, in {first_few(list(disputed))}", "",
            "the later object in the file has them; correct the annotation where that is wrong",
        ))  # fmt: skip
    return Conversion(out, out / CLASS_FILE, names, ignore if ignored else None, len(jobs), kind, tuple(findings))


def _require_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is no empty folder.", do="choose another -o")


def _json_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*.json") if not any(part.startswith(".") for part in p.parts[-1:]))


def _holds_annotations(folder: Path, reading: ImageOptions) -> bool:
    """Whether a folder is one of annotation files, which images may lie beside, and not of masks with another JSON."""
    paths = _json_files(folder)
    if not paths or not list_images(folder, follow_links=reading.follow_links)[0]:
        return bool(paths)
    for path in paths:
        with contextlib.suppress(DataError):
            return bool(_read_json(path))
    return False


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read as JSON.", found=str(error), expected="COCO or labelme", do=_NAME_IT
        ) from error
    if isinstance(content, dict) and (isinstance(content.get("shapes"), list) or "annotations" in content):
        return content
    found = first_few([str(key) for key in content]) if isinstance(content, dict) else type(content).__name__
    raise DataError(
        f"{path} is neither a COCO nor a labelme file.", found=f"the entries {found}",
        expected="images, categories and annotations, or shapes", do=_NAME_IT,
    )  # fmt: skip


def _read_annotations(source: Path, limit: int) -> tuple[str, list[Drawing], tuple[str, ...], list[Finding]]:
    """Kind, drawings, class names and what was left out, of a JSON file or a folder of them."""
    if not source.exists():
        raise DataError(f"{source} does not exist.", expected="a folder of masks, or COCO or labelme files")
    paths = _json_files(source) if source.is_dir() else [source]
    drawings: list[Drawing] = []
    left_out, labels = 0, set()
    for path in paths:
        content = _read_json(path)
        if "shapes" not in content:
            if len(paths) > 1:
                raise DataError(
                    f"{path} is no labelme file.", expected="labelme files only, or one COCO file", do=_NAME_IT
                )
            drawings, names, left_out = read_coco(path, content)
            return "COCO", drawings, tuple(names), _left_out(path, left_out, "box", "objects have a box and no outline")
        folder = source if source.is_dir() else path.parent
        drawing, flat = read_labelme(path, content, relative_stem(path, folder) + ".png", limit)
        drawings.append(drawing)
        labels |= {region.label for region in drawing.regions}
        left_out += flat
    findings = _left_out(source, left_out, "point or line", "points and lines cover no pixels")
    return "labelme", drawings, tuple(sorted(labels - {BACKGROUND, IGNORED})), findings


def _left_out(path: Path, count: int, shape: str, what: str) -> list[Finding]:
    finding = Finding(
        "warning", str(path), f"{path}: {count} {what} and are left out.", f"{count} times a {shape}",
        "polygons or masks", "draw the outline of what is to be in the masks",
    )
    return [finding] if count else []


def _class_ids(found: tuple[str, ...], given: ClassNames | None) -> tuple[str, ...]:
    """The names of the ids 0, 1, ...: those given, else a background and what was found."""
    if given is None:
        twice = sorted({name for name in found if found.count(name) > 1})
        if twice:
            raise DataError(f"Two categories have the name {twice[0]}.", expected="a name for each")
        return (_GROUND, *(name for name in found if name != _GROUND))
    if given.values is not None:
        raise OptionError("--classes gives values, which annotations do not have.", expected="one name a line")
    unknown = [name for name in found if name not in given.names]
    if unknown:
        raise DataError(
            f"--classes does not list {unknown[0]}.", found=first_few(unknown), expected=", ".join(given.names),
            do="add it; the first name is for what has no annotation",
        )
    return given.names


def _stem(name: str) -> str:
    """The name of an image as annotations give it, without suffix, as `relative_stem` has it."""
    return relative_stem(Path(name), Path())


def _with_images(
    drawings: Sequence[Drawing], folder: Path, source: Path, reading: ImageOptions, findings: list[Finding]
) -> list[Drawing]:
    """The drawings that have an image, under its relative path; what has no partner becomes a finding."""
    files, strange = list_images(folder, follow_links=reading.follow_links)
    findings += [finding for finding in strange if finding.severity == "error"]
    by_stem = {relative_stem(file, folder): file for file in files}
    wanted = [_stem(drawing.name) for drawing in drawings]
    free = by_stem.keys() - set(wanted)
    by_name: dict[str, list[str]] = {}
    for stem in free:
        by_name.setdefault(stem.rpartition("/")[2], []).append(stem)
    kept, missing = [], []
    for drawing, own in zip(drawings, wanted, strict=True):
        same_name = by_name.get(own.rpartition("/")[2], [])
        fitting = [own] if own in by_stem else [stem for stem in same_name if _one_in_other(stem, own)]
        if len(fitting) != 1:
            missing.append(drawing.name)
            continue
        stem = fitting[0]
        size = open_image(by_stem[stem], reading).shape[1:]
        if size != drawing.size:
            raise DataError(
                f"{by_stem[stem]} has another size than {source} says.", found=f"{size[1]} x {size[0]} px",
                expected=f"{drawing.size[1]} x {drawing.size[0]} px", do="use the image that was annotated",
            )
        kept.append(Drawing(f"{stem}.png", drawing.size, drawing.regions))
    alone = sorted(set(by_stem) - {_stem(d.name) for d in kept})
    for names, what, do in (
        (missing, f"images of {source} are not in {folder} and are left out", "add them, or name their folder"),
        (alone, f"images in {folder} are not in {source} and get no mask", "annotate them, or take them out"),
    ):
        if names:
            findings.append(Finding("warning", str(folder), f"{len(names)} {what}.", first_few(names), "", do))
    return kept


def _one_in_other(one: str, other: str) -> bool:
    """Whether one path is the end of the other, as where an annotation file names images from another folder on."""
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


def _draw(drawing: Drawing, ids: Mapping[str, int], limit: int) -> tuple[Array, int]:
    require_pixels(Path(drawing.name), *drawing.size, limit)
    return paint(drawing, ids)


def _from_masks(
    source: Path, images: Path | None, reading: Reading, progress: Progress
) -> tuple[str, tuple[str, ...], list[_Job], list[Finding]]:
    """Kind, class names, jobs and findings of a folder of masks, checked against its images if there are any."""
    if images is not None:
        report = scan(
            images, source, class_names=reading.class_names, ignore=reading.ignore, instances=reading.instances,
            reading=reading.files, progress=progress, least=1,
        )  # fmt: skip
        report.raise_if_failed()
        labels, sentence = report.labels, report.labels_sentence
        paths = {fact.stem: fact.mask for fact in report.facts}
    else:
        files, findings = list_images(source, follow_links=reading.files.follow_links)
        DataReport(source, source, tuple(findings), (), None, "").raise_if_failed()
        paths = {}
        for file in files:
            if (other := paths.setdefault(relative_stem(file, source), file)) != file:
                raise DataError(f"{other} and {file} have one stem.", do="rename or remove one of them")
        _require_jobs(files, source)
        labels, sentence = find_file_labels(
            files, class_names=reading.class_names, ignore=reading.ignore, instances=reading.instances,
            reading=reading.files, progress=progress,
        )  # fmt: skip
    if labels is None:
        raise DataError(f"{source} holds no label values.", expected="masks with at least two values")
    progress.say(sentence)
    jobs = [_Job(stem, partial(_encode, path, labels, reading.files)) for stem, path in paths.items()]
    return "masks", labels.names, jobs, []


def _encode(path: Path, labels: LabelSet, files: ImageOptions) -> tuple[Array, int]:
    return labels.encode(read_mask(path, files), path), 0


def _require_jobs(jobs: Sequence[object], source: Path) -> None:
    if not jobs:
        raise DataError(f"{source} holds nothing to convert.", expected="masks, or annotated images")


def _write(
    out: Path, jobs: Sequence[_Job], names: Sequence[str], ignore: int, progress: Progress
) -> tuple[bool, dict[str, int]]:
    """Write all masks beside `out` and rename at the end. Whether a pixel is ignored, and disputed pixels by stem."""
    whole = out.absolute()
    partial_out = whole.with_name(f".{whole.name}.partial")
    twice = {job.stem for job in jobs} if len({job.stem for job in jobs}) < len(jobs) else set()
    if twice:
        stem = next(job.stem for job in jobs if [other.stem for other in jobs].count(job.stem) > 1)
        raise DataError(f"Two masks would be written to {stem}.png.", do="rename one of the images")
    dtype = np.uint8 if len(names) <= 255 else np.uint16
    ignored, disputed = False, {}
    try:
        shutil.rmtree(partial_out, ignore_errors=True)
        partial_out.mkdir(parents=True)
        with progress.track("convert", len(jobs), "masks") as tracker:
            for job in jobs:
                ids, claimed = job.draw()
                left_out = ids < 0
                if claimed:
                    disputed[job.stem] = claimed
                ignored = ignored or bool(left_out.any())
                path = partial_out / f"{job.stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.where(left_out, ignore, ids).astype(dtype)).save(path, format="PNG")
                tracker.advance()
        _write_names(partial_out / CLASS_FILE, names)
        if out.exists():
            out.rmdir()
        partial_out.rename(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{out} cannot be written.", found=reason, do="choose another -o") from error
    finally:
        shutil.rmtree(partial_out, ignore_errors=True)
    return ignored, disputed


def _write_names(path: Path, names: Sequence[str]) -> None:
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    with contextlib.suppress(OptionError):
        if read_classes(path) == ClassNames(tuple(names)):
            return
    raise DataError(
        "The class names do not fit a list of one name a line.", found=first_few(names),
        expected="different names, none empty and none that ends like a table: NAME,ID", do="rename the classes",
    )
