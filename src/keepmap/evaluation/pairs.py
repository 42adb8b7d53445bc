"""Which prediction belongs to which mask, and which image; what cannot be used is an error, never left out.

Looks at names only; what is inside the files is counted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from keepmap.data.findings import Finding
from keepmap.data.headers import FORMATS
from keepmap.data.pairing import MASK_ENDINGS, Pair, list_images, match_folders, relative_stem
from keepmap.errors import DataError, first_few

_BESIDE = ("_overlay", "_coarse")
"""What the stem of a file that `predict` writes beside a mask has on top of the mask's."""


def pair_images(images: Path, masks: Path, *, follow_links: bool = False) -> list[Pair]:
    """Each image with its mask. Raises DataError where one is alone or cannot be used, and where there are none."""
    matching = match_folders(images, masks, follow_links=follow_links)
    _raise_errors(matching.findings)
    _require(matching.pairs, images)
    return matching.pairs


def pair_predictions(predictions: Path, masks: Path, *, follow_links: bool = False) -> tuple[list[Pair], int]:
    """Each mask with the prediction of its relative stem (x.png, x_mask.png and x_label.png with x.png).

    Behind them, how many predictions have no mask: they are passed over. What `predict` writes beside x.png, as x.npy
    and x_overlay.png, is no prediction. Raises DataError that lists the masks without a prediction, and where a
    prediction cannot be used, a stem occurs twice, a mask is no image file or there are no masks.
    """
    files, findings = list_images(masks, follow_links=follow_links)
    _raise_errors(findings)
    _require(files, masks)
    others, wrong = list_images(predictions, follow_links=follow_links)
    predicted = _by_stem(_without_probabilities(others), predictions)
    pairs, missing, wanted = [], [], set()
    taken: dict[str, Path] = {}
    for stem, mask in _by_stem(files, masks).items():
        names = [stem, *(stem.removesuffix(ending) for ending in MASK_ENDINGS)]
        name = next((name for name in names if name in predicted), None)
        if name is None:
            missing.append(str(mask))
            wanted.update(names)
        elif (other := taken.setdefault(name, mask)) != mask:
            raise DataError(f"{other} and {mask} both belong to {predicted[name]}.", do="remove one of them")
        else:
            pairs.append(Pair(name, predicted[name], mask))
    if missing:
        _raise_errors([finding for finding in wrong if relative_stem(Path(finding.file), predictions) in wanted])
        raise DataError(
            f"{len(missing)} of {len(files)} masks in {masks} have no prediction in {predictions}.",
            found=first_few(missing),
            expected="one prediction of the same relative stem for each mask",
            do="predict these images too, or take their masks out",
        )
    paired = {pair.stem for pair in pairs}
    beside = {stem + ending for stem in predicted for ending in _BESIDE}
    return pairs, len(predicted.keys() - paired - beside)


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
        raise DataError(
            f"The folder {folder} holds no images.", found="nothing that is one by its ending", expected=FORMATS,
            do="name the folder that they are in; folders inside it are searched, too",
        )
