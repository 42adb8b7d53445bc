"""`check --fix`: a repaired copy of a data set, with every change written down, whole or not at all.

Knows what becomes of each file; how one is repaired is `mending`'s concern. The originals are only read.

OUT/images and OUT/masks hold the pairs under the stems of the images, OUT/quarantine copies of what cannot be used, and
OUT/changes.csv one row per change: file, problem, done, pixels. New ids are named in OUT/classes.txt, for `--classes`:
as before, else by the values or colours that they had.
"""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tifffile
from PIL import Image

from keepmap.data.classes import ClassNames
from keepmap.data.images import open_image
from keepmap.data.mending import Mended, look, mend_image, mend_mask
from keepmap.data.pairing import CLASS_FILE, Matching, match_folders, relative_stem
from keepmap.data.settling import Key, Look, settle
from keepmap.data.tiff_tags import tiff_options
from keepmap.data.zarr_image import is_zarr_folder
from keepmap.errors import DataError, OutputError
from keepmap.options import CheckOptions, ImageOptions
from keepmap.protocols import Progress
from keepmap.resources import map_ahead

IMAGES, MASKS, QUARANTINE, CHANGES = "images", "masks", "quarantine", "changes.csv"
_PNG_CHANNELS = {"uint8": (1, 3), "uint16": (1,)}
"""What Pillow writes as PNG without loss; all else becomes TIFF."""

_QUARANTINED, _LEFT = "copied to the quarantine", "left where it is"


@dataclass(frozen=True)
class Change:
    """One row of changes.csv. pixels: how many were changed, 0 where the file as a whole was dealt with."""

    file: str
    problem: str
    done: str
    pixels: int = 0


@dataclass(frozen=True)
class Repair:
    """What `repair` did. pairs: in OUT/images and OUT/masks; quarantined: files in OUT/quarantine.

    classes: the file with the new ids, where the masks hold other values than before.
    """

    out: Path
    pairs: int
    quarantined: int
    classes: str | None
    changes: tuple[Change, ...]

    @property
    def summary(self) -> list[tuple[str, str, int, int]]:
        """(problem, what was done, files, pixels changed), the most frequent first, names of files left out."""
        files, pixels = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for change in self.changes:
            sort = change.problem.split(":")[0], change.done.split(":")[0]
            files[sort] += 1
            pixels[sort] += change.pixels
        return [(*sort, count, pixels[sort]) for sort, count in files.most_common()]


@dataclass(frozen=True)
class _Case:
    """The images and masks of one stem; more than one of a kind may be copies of each other."""

    stem: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class _Aim:
    """What every pair is to become: labels by the key, images of one kind. reading: how files are read."""

    key: Key
    channels: int
    dtype: str
    reading: ImageOptions


@dataclass(frozen=True)
class _Outcome:
    """What became of a case. contents: of image and mask, None if it is no pair; that of a plain image is "".

    rejected: files and why.
    """

    case: _Case
    contents: tuple[str, str] | None
    changes: tuple[Change, ...]
    rejected: tuple[tuple[Path, str], ...]


def repair(
    images: Path, masks: Path, out: Path, *, class_names: ClassNames | None, options: CheckOptions, progress: Progress
) -> Repair:
    """Write the repaired copy `out`, which must not exist. class_names: what options.classes names.

    Raises OutputError where `out` exists, lies inside the data or cannot be written, DataError where the folders
    cannot be listed or the labels cannot be told.
    """
    require_new(out, images, masks)
    matching = match_folders(images, masks, follow_links=options.follow_links)
    cases = list(_cases(matching, images))
    looks, kinds = [], Counter[tuple[int, str]]()
    with progress.track("look", len(cases), "images") as tracker:
        for seen, kind in map_ahead(partial(_look, options), cases):
            looks += seen
            kinds.update(kind)
            tracker.advance()
    key = settle(looks, class_names=class_names, ignore=options.ignore, instances=options.instances)
    aim = _Aim(key, *(kinds.most_common(1)[0][0] if kinds else (3, "uint8")), options)
    with _whole_folder(out) as folder:
        writer = _Writer(folder, images, masks)
        outcomes = []
        with progress.track("repair", len(cases), "images") as tracker:
            for outcome in map_ahead(partial(_mend, writer, aim), cases):
                outcomes.append(outcome)
                tracker.advance()
        changes = [change for outcome in outcomes for change in outcome.changes]
        rejected = [item for outcome in outcomes for item in outcome.rejected]
        copies = list(_copied(outcomes))
        for outcome, why in copies:
            writer.discard(outcome.case.stem)
            rejected += [(path, why) for path in (outcome.case.images[0], outcome.case.masks[0])]
        rejected += _unused(matching)
        moved = [(path, why, writer.quarantine(path)) for path, why in rejected]
        changes += [Change(str(path), why, _QUARANTINED if copied else _LEFT) for path, why, copied in moved]
        writer.finish(changes, key)
    pairs = sum(outcome.contents is not None for outcome in outcomes) - len(copies)
    classes = str(out / CLASS_FILE) if key.renumbered else None
    return Repair(out, pairs, sum(copied for _, _, copied in moved), classes, tuple(changes))


def require_new(out: Path, images: Path, masks: Path) -> None:
    """Raise OutputError if `out` exists or lies inside of one of the folders that are read."""
    if out.exists() or out.is_symlink():
        raise OutputError(f"{out} exists already.", expected="a name that is free", do="choose another for --fix")
    for folder in (images, masks):
        if out.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"{out} lies inside of {folder}, which is read.", expected="a folder beside it",
                do="choose another for --fix",
            )


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` that takes its name when the block ends well, else goes away."""
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        partial_folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    except OSError as error:
        raise OutputError(f"{out} cannot be written.", found=error.strerror or str(error)) from error
    try:
        folder = partial_folder / "whole"
        folder.mkdir()
        yield folder
        folder.rename(out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written.", found=error.strerror or str(error)) from error
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def _cases(matching: Matching, images: Path) -> Iterator[_Case]:
    for pair in matching.pairs:
        yield _Case(pair.stem, (pair.image,), (pair.mask,))
    for image, mask in matching.partners:
        yield _Case(relative_stem(image, images), (image,), (mask,))
    for stem, (owners, partners) in matching.several.items():
        if owners and partners:
            yield _Case(stem, tuple(owners), tuple(partners))


def _unused(matching: Matching) -> Iterator[tuple[Path, str]]:
    """Files that are in no case, and why."""
    for path in matching.lonely:
        yield path, "has no partner"
    for owners, partners in matching.several.values():
        if not partners:
            for path in owners:
                yield path, "several files of one stem, and no mask"
    for path in matching.unusable:
        yield path, "cannot be read as an image"


def _look(reading: ImageOptions, case: _Case) -> tuple[list[Look], list[tuple[int, str]]]:
    """What the masks of a case hold and of which kind its images are, as far as they can be read."""
    looks, kinds = [], []
    for path in case.masks:
        with suppress(DataError):
            looks.append(look(path, reading))
    for path in case.images:
        with suppress(DataError):
            source = open_image(path, reading)
            kinds.append((source.shape[0], str(source.dtype)))
    return looks, kinds


def _mend(writer: _Writer, aim: _Aim, case: _Case) -> _Outcome:
    """Repair and write the image and the mask of a case, or say why neither can be used."""
    rejected: list[tuple[Path, str]] = []
    images = _each(case.images, lambda path: mend_image(path, aim.channels, aim.dtype, aim.reading), rejected)
    masks: dict[Path, Mended] = {}
    if images:
        image = next(iter(images.values()))
        turn = partial(mend_mask, key=aim.key, size=image.size, orientation=image.orientation, reading=aim.reading)
        masks = _each(case.masks, turn, rejected)
    if not images or not masks or _differ(images) or _differ(masks):
        known = {path for path, _ in rejected}
        why = "several files of one stem that differ" if images and masks else "its partner cannot be used"
        rejected += [(path, why) for path in (*case.images, *case.masks) if path not in known]
        return _Outcome(case, None, (), tuple(rejected))
    changes: list[Change] = []
    for side, mended in ((IMAGES, images), (MASKS, masks)):
        (path, kept), *others = mended.items()
        rejected += [(other, f"a copy: of {path.name}") for other, _ in others]
        name = writer.write(side, case.stem, path, kept)
        changes += [Change(str(path), problem, done, pixels) for problem, done, pixels in kept.done]
        if name.stem != path.stem:
            changes.append(Change(str(path), "named otherwise than its image", f"named like it: {name.name}"))
    contents = "" if image.plain else image.content, next(iter(masks.values())).content
    return _Outcome(case, contents, tuple(changes), tuple(rejected))


def _differ(mended: dict[Path, Mended]) -> bool:
    return len({one.content for one in mended.values()}) > 1


def _each(
    paths: Sequence[Path], mend: Callable[[Path], Mended], rejected: list[tuple[Path, str]]
) -> dict[Path, Mended]:
    """The files that can be repaired; the others join `rejected`."""
    mended = {}
    for path in paths:
        try:
            mended[path] = mend(path)
        except DataError as error:
            reason = f"{error.found}; expected {error.expected}" if error.expected else error.found
            rejected.append((path, reason or error.summary))
    return mended


def _copied(outcomes: Iterable[_Outcome]) -> Iterator[tuple[_Outcome, str]]:
    """Pairs that cannot stay because others have the same image, and why."""
    groups: dict[str, list[_Outcome]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.contents and outcome.contents[0]:
            groups[outcome.contents[0]].append(outcome)
    for group in groups.values():
        first, *others = sorted(group, key=lambda outcome: (len(outcome.case.stem), outcome.case.stem))
        if len({outcome.contents for outcome in group}) == 1:
            yield from ((outcome, f"the same pixels as another: {first.case.stem}") for outcome in others)
        else:
            names = ", ".join(outcome.case.stem for outcome in group)
            yield from ((outcome, f"one image with different masks: {names}") for outcome in group)


class _Writer:
    """Writes into the folder that becomes OUT. Several threads may write at a time, each its own stems."""

    def __init__(self, folder: Path, images: Path, masks: Path) -> None:
        self._folder = folder
        self._sources = ((images, IMAGES), (masks, MASKS))
        self._written: dict[tuple[str, str], Path] = {}
        for side in (IMAGES, MASKS):
            (folder / side).mkdir()

    def write(self, side: str, stem: str, path: Path, mended: Mended) -> Path:
        """Put a repaired file, or a copy of one that needs no repair, under its stem; returns its path."""
        pixels = mended.pixels
        if pixels is None:
            ome = ".ome" * path.stem.endswith(".ome")
            target = self._target(side, f"{stem}{ome}{path.suffix.lower()}", stem)
            _copy(path, target)
            return target
        channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
        as_png = channels in _PNG_CHANNELS.get(str(pixels.dtype), ()) and not mended.geometry.tags
        target = self._target(side, f"{stem}{'.png' if as_png else '.tif'}", stem)
        if as_png:
            Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and channels == 1 else pixels).save(target)
        else:
            tifffile.imwrite(
                target, pixels, photometric="rgb" if channels == 3 else "minisblack", compression="zlib",
                planarconfig="contig", **tiff_options(mended.geometry, None, ome_axes=None),
            )  # fmt: skip
        return target

    def _target(self, side: str, name: str, stem: str) -> Path:
        target = self._folder / side / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._written[side, stem] = target
        return target

    def discard(self, stem: str) -> None:
        """Take back a pair that was written."""
        for side in (IMAGES, MASKS):
            target = self._written.pop((side, stem))
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    def quarantine(self, path: Path) -> bool:
        """Copy an original to the quarantine; False for what is neither a file nor a Zarr folder in its own folder."""
        folder, side = next((pair for pair in self._sources if path.is_relative_to(pair[0])), self._sources[0])
        name = "".join(letter if letter.isprintable() else "_" for letter in path.relative_to(folder).as_posix())
        target = self._folder / QUARANTINE / side / name
        leaves = not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        if leaves or not (path.is_file() or is_zarr_folder(path)):
            return False
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(path, target)
        return True

    def finish(self, changes: Iterable[Change], key: Key) -> None:
        """Write the lists, and drop folders that nothing was left in."""
        with (self._folder / CHANGES).open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            table = csv.writer(file)
            table.writerow(("file", "problem", "done", "pixels"))
            table.writerows((c.file, c.problem, c.done, c.pixels) for c in changes)
        if key.renumbered:
            with (self._folder / CLASS_FILE).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(key.classes)
        for folder in sorted(self._folder.rglob("*"), reverse=True):
            if folder.is_dir() and folder.parent != self._folder and not any(folder.iterdir()):
                folder.rmdir()


def _copy(path: Path, target: Path) -> None:
    """Copy a file, or the folder that a Zarr array is."""
    if path.is_dir():
        shutil.copytree(path, target)
    else:
        shutil.copyfile(path, target)
