"""Which image belongs to which mask: files of two folders by relative stem.

Looks at names and kinds of files only; what is inside them is `scan`'s concern.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from keepmap.data import headers
from keepmap.data.findings import Finding
from keepmap.data.partners import likely_partners
from keepmap.errors import DataError

CLASS_FILE = "classes.txt"
"""The names of the classes beside masks that were converted; no stranger among them."""

MASK_ENDINGS = ("_mask", "_label")
"""What the stem of a mask may have on top of its image's."""

_OTHER_PICTURES = (
    ".jp2", ".jxl", ".avif", ".heic", ".ppm", ".pgm", ".pbm", ".tga", ".psd", ".exr",
    ".npz", ".h5", ".dcm", ".nii", ".nrrd", ".mha", ".czi", ".nd2", ".lif", ".svs", ".ndpi",
)
"""Suffixes of pictures that are not read: refused by name, where other strangers are only mentioned."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask. stem: path relative to the images folder, without suffix, "/" between folders."""

    stem: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class Matching:
    """Who belongs to whom in two folders, and every finding about the rest.

    partners: lonely images and masks that seem to belong together, by name. several: stem -> its images and masks,
    more than one of either kind. unusable: what cannot be an image or a mask, or has a name that cannot be used.
    """

    pairs: list[Pair]
    findings: list[Finding]
    partners: list[tuple[Path, Path]]
    lonely: list[Path]
    several: dict[str, tuple[list[Path], list[Path]]]
    unusable: list[Path]


def relative_stem(path: Path, folder: Path) -> str:
    """`path` relative to the `folder` it is in, without suffix (.ome.tif is one), with "/", in Unicode NFC."""
    inner = path.parts[len(folder.parts) : -1]
    return unicodedata.normalize("NFC", "/".join((*inner, path.stem))).removesuffix(".ome")


def list_images(
    folder: Path, *, without: Path | None = None, follow_links: bool = False
) -> tuple[list[Path], list[Finding]]:
    """The image files below `folder`, sorted by relative path, and what else is there.

    without: a folder that is left out. Hidden files and folders, and the file of classes, are passed over. Links are
    followed, those that leave `folder` with follow_links only; loops are not.
    Raises DataError if `folder` is none or cannot be listed.
    """
    found: list[Path] = []
    findings: list[Finding] = []
    inside = None if follow_links else Path(os.path.realpath(folder))
    for path in _walk(folder, without, inside, findings):
        finding = _judge(path)
        if finding:
            findings.append(finding)
        if not finding and path.suffix.lower() in headers.SUFFIXES:
            found.append(path)
    return sorted(found, key=lambda path: path.parts), findings


def _walk(folder: Path, without: Path | None, inside: Path | None, findings: list[Finding]) -> Iterator[Path]:
    """Everything below `folder` that is no folder to descend into, or cannot be by its name, and is not hidden.

    inside: what no link may lead out of; None where any link may.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"The folder {folder} {what}.", expected="a folder of " + headers.FORMATS)
    left_out = {_identity(without)} if without else set()
    seen = {_identity(folder)}
    folders = [folder]
    while folders:
        current = folders.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"The folder {current} cannot be listed.", found=os.strerror(error.errno or 0)) from error
        for entry in entries:
            path = current / entry.name
            if entry.name.startswith(".") or entry.name == CLASS_FILE:
                continue
            if left_out and _is_folder(entry) and _identity(path) in left_out:
                continue
            if inside and entry.is_symlink() and (finding := _leaving(path, inside, folder)):
                findings.append(finding)
            elif not _is_folder(entry) or path.suffix.lower() in headers.SUFFIXES or not entry.name.isprintable():
                yield path
            elif (identity := _identity(path)) in seen:
                findings.append(Finding(
                    "warning", str(path), f"{path} leads to a folder that was read already.", os.path.realpath(path),
                    "each folder once", "remove the link",
                ))  # fmt: skip
            else:
                seen.add(identity)
                folders.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leaving(path: Path, inside: Path, folder: Path) -> Finding | None:
    """What is wrong with a link that leads out of `folder`, whose real path is `inside`; a stranger may."""
    target = Path(os.path.realpath(path))
    if target.is_relative_to(inside) or not (target.is_dir() or path.suffix.lower() in headers.SUFFIXES):
        return None
    return Finding(
        "error", str(path), f"{path} is a link that leads out of {folder}.", str(target), f"files inside {folder}",
        "copy what it leads to; or pass --follow-links",
    )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _judge(path: Path) -> Finding | None:
    """What is wrong with a file by its name and kind; a stranger is only noted."""
    suffix = path.suffix.lower()
    if not path.name.isprintable():
        return Finding(
            "error", str(path),
            f"{path.name!a} in {path.parent} has characters in its name that cannot be printed.",
            ", ".join(f"U+{ord(c):04X}" for c in path.name if not c.isprintable()), "a name that can be printed",
            "rename it, and its partner likewise",
        )
    if suffix in _OTHER_PICTURES:
        return Finding(
            "error", str(path), f"{path} is of a format that is not read.", suffix, headers.FORMATS,
            "convert it to PNG or TIFF",
        )
    if suffix not in headers.SUFFIXES:
        return Finding(
            "note", str(path), f"{path} is no image and is passed over.", suffix or "no suffix", headers.FORMATS,
            "give it its suffix if it is an image",
        )
    if path.is_file() or (headers.SUFFIXES[suffix] == headers.ZARR and path.is_dir()):
        return None
    try:
        headers.read_head(path)
    except DataError as error:
        return Finding.of(error, path)
    return None


def match_folders(images: Path, masks: Path, *, follow_links: bool = False) -> Matching:
    """Pair x.jpg with x.png, x_mask.png or x_label.png of the same sub-folder; name all that stays alone.

    Both may be one folder, where the endings then tell masks from images, and one may lie in the other.
    follow_links: also to what lies outside the folders. Raises DataError if a folder cannot be listed.
    """
    one_folder = images.is_dir() and masks.is_dir() and images.samefile(masks)
    apart = None if one_folder or not masks.is_dir() else masks
    image_files, findings = list_images(images, without=apart, follow_links=follow_links)
    if one_folder:
        mask_files = [path for path in image_files if path.stem.endswith(MASK_ENDINGS)]
        image_files = [path for path in image_files if not path.stem.endswith(MASK_ENDINGS)]
    else:
        mask_files, more = list_images(masks, without=images, follow_links=follow_links)
        findings += more
    unusable = [Path(finding.file) for finding in findings if finding.severity == "error"]
    empty = [_nothing(what, folder) for what, folder, found in (
        ("images", images, image_files), ("masks", masks, mask_files)) if not found]
    if empty:
        return Matching([], [*findings, *empty], [], [*image_files, *mask_files], {}, unusable)
    images_of, first = _by_stem(image_files, images)
    masks_of: dict[str, list[Path]] = defaultdict(list)
    for path in mask_files:
        stem = _image_stem(relative_stem(path, masks), first)
        masks_of[first.get(stem, "")].append(path)
    lonely_masks = masks_of.pop("", [])
    pairs, lonely_images, several = [], [], {}
    for stem, owners in images_of.items():
        partners = masks_of.get(stem, [])
        if len(owners) > 1 or len(partners) > 1:
            several[stem] = owners, partners
            findings.append(_duplicates(stem, owners, partners))
        elif partners:
            pairs.append(Pair(stem, owners[0], partners[0]))
        else:
            lonely_images.append(owners[0])
    together = likely_partners(lonely_images, images, lonely_masks, masks)
    findings += [_misnamed(image, mask) for image, mask in together]
    known = {path for both in together for path in both}
    findings += [_alone(path, "mask", "image", images) for path in lonely_masks if path not in known]
    findings += [_alone(path, "image", "mask", masks) for path in lonely_images if path not in known]
    lonely = [path for path in (*lonely_images, *lonely_masks) if path not in known]
    return Matching(pairs, findings, together, lonely, several, unusable)


def _nothing(what: str, folder: Path) -> Finding:
    return Finding(
        "error", str(folder), f"The folder {folder} holds no {what}.", "no file of a format that is read",
        headers.FORMATS, "pass the folder of images first, that of masks second",
    )


def _by_stem(paths: Iterable[Path], folder: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """(Stem -> files, stem -> the first one but for capital letters): many systems do not tell them apart."""
    groups: dict[str, list[Path]] = defaultdict(list)
    first: dict[str, str] = {}
    lowered: dict[str, str] = {}
    for path in paths:
        stem = relative_stem(path, folder)
        first[stem] = lowered.setdefault(stem.lower(), stem)
        groups[first[stem]].append(path)
    return dict(groups), first


def _image_stem(stem: str, images: Collection[str]) -> str:
    """The stem of the image that the mask `stem` belongs to: its own, or without one ending; "" if none."""
    candidates = [stem, *(stem.removesuffix(ending) for ending in MASK_ENDINGS)]
    return next((candidate for candidate in candidates if candidate in images), "")


def _misnamed(image: Path, mask: Path) -> Finding:
    same_letters = image.stem.casefold() == mask.stem.casefold()
    what = "capital letters" if same_letters else "spelling"
    return Finding(
        "error", str(mask), f"{mask} seems to belong to {image}, but is named otherwise.",
        f"{mask.name} beside {image.name}: they differ in {what}", f"{image.stem}{mask.suffix.lower()}",
        "rename the mask; or keepmap check --fix OUT names it so in a copy", (str(image),),
    )


def _alone(path: Path, what: str, partner: str, folder: Path) -> Finding:
    expected = f"{path.stem}.png" + (f" or {path.stem}_mask.png" if what == "image" else "")
    return Finding(
        "error", str(path), f"{path}: this {what} has no {partner}.", f"no {partner} of the stem {path.stem}",
        f"such as {expected} in {folder}",
        f"add the {partner}, or take the {what} out of its folder; keepmap check --fix OUT leaves it out",
    )


def _duplicates(stem: str, owners: list[Path], partners: list[Path]) -> Finding:
    what, several = ("images", owners) if len(owners) > 1 else ("masks", partners)
    names = {str(path.with_suffix("")) for path in several}
    but_for = ", but for capital letters" * (len({name.lower() for name in names}) < len(names))
    return Finding(
        "error", str(several[0]), f"{several[0]} is one of {len(several)} {what} with the stem {stem}{but_for}.",
        ", ".join(str(path) for path in several), f"one image and one mask named {stem}",
        "rename or remove all but one",
    )
