"""Damages a drawn data set in ten ways, repairs it with `keepmap check --fix` and compares the copy with the clean one.

usage: python benchmarks/damage.py [--count 110] [--keep FOLDER]
Each kind befalls one pair in eleven. The labels are 0, 128 and 255, far enough apart to tell damage from labels; the
copy numbers them 0, 1 and 2, as it does with all values that fit no rule.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import keepmap
from common import write_result
from keepmap.data.classes import read_classes
from keepmap.data.drawn import draw_pair
from keepmap.data.masks import read_mask

VALUES = np.array([0, 128, 255], np.uint8)
_ORIENTATION = 0x0112


def write_clean(folder: Path, count: int) -> None:
    """`count` drawn pairs folder/images/NNN.png (RGB) and folder/masks/NNN.png (0, 128, 255)."""
    for side in ("images", "masks"):
        (folder / side).mkdir(parents=True)
    for index in range(count):
        image, classes = draw_pair(seed=1, index=index)
        Image.fromarray(image).save(folder / "images" / f"{index:03d}.png")
        Image.fromarray(VALUES[classes]).save(folder / "masks" / f"{index:03d}.png")


def jpeg_mask(image: Path, mask: Path) -> None:
    """The mask becomes a JPEG of quality 75."""
    with Image.open(mask) as picture:
        picture.save(mask.with_suffix(".jpg"), quality=75)
    mask.unlink()


def smooth_mask(image: Path, mask: Path) -> None:
    """The mask's borders are anti-aliased over about 2 px."""
    with Image.open(mask) as picture:
        big = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST)
        big.resize(picture.size, Image.Resampling.BILINEAR).save(mask)


def stray_values(image: Path, mask: Path) -> None:
    """Forty single pixels of the mask get a value that is no label."""
    pixels = np.array(Image.open(mask))
    places = np.random.default_rng(0).choice(pixels.size, 40, replace=False)
    pixels.ravel()[places] = 7
    Image.fromarray(pixels).save(mask)


def turn_by_exif(image: Path, mask: Path) -> None:
    """The image is stored turned and says so in its EXIF data; the mask is turned, and cannot say so."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    for path, words in ((image, {"exif": exif}), (mask, {})):
        with Image.open(path) as picture:
            picture.transpose(Image.Transpose.ROTATE_90).save(path, **words)


def rename_mask(image: Path, mask: Path) -> None:
    """The mask's name is in capitals, with an ending of its own."""
    mask.rename(mask.with_name(f"IMG_{mask.stem}_GT.PNG"))


def truncate_image(image: Path, mask: Path) -> None:
    """The image ends in the middle."""
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def copy_pair(image: Path, mask: Path) -> None:
    """The pair lies there twice."""
    for path in (image, mask):
        shutil.copyfile(path, path.with_name(f"{path.stem} copy.png"))


def add_alpha(image: Path, mask: Path) -> None:
    """The image gets an alpha channel and one black pixel that is not quite opaque."""
    with Image.open(image) as picture:
        pixels = np.array(picture.convert("RGBA"))
    pixels[0, 0] = (0, 0, 0, 250)
    Image.fromarray(pixels).save(image)


def lose_mask(image: Path, mask: Path) -> None:
    """The mask is gone."""
    mask.unlink()


def wrong_suffix(image: Path, mask: Path) -> None:
    """The image is a TIFF that is named .png."""
    with Image.open(image) as picture:
        picture.save(image, format="TIFF")


DAMAGES: tuple[Callable[[Path, Path], None], ...] = (
    jpeg_mask, smooth_mask, stray_values, turn_by_exif, rename_mask, truncate_image, copy_pair, add_alpha, lose_mask,
    wrong_suffix,
)  # fmt: skip


def damage(folder: Path, count: int) -> dict[str, str]:
    """Damage every pair in one of ten ways; returns stem -> way. Every eleventh pair stays whole."""
    ways = {}
    for index in range(count):
        if index % (len(DAMAGES) + 1) < len(DAMAGES):
            way = DAMAGES[index % (len(DAMAGES) + 1)]
            way(folder / "images" / f"{index:03d}.png", folder / "masks" / f"{index:03d}.png")
            ways[f"{index:03d}"] = way.__name__
    return ways


def compare(clean: Path, repaired: Path, ways: dict[str, str]) -> list[dict[str, Any]]:
    """One row per way: pairs, pairs in the copy, pixels of their masks and how many differ; of images, how many."""
    was = np.array([int(name) for name in read_classes(repaired / "classes.txt").names])
    rows = []
    for name in ("untouched", *(way.__name__ for way in DAMAGES)):
        stems = [path.stem for path in sorted((clean / "images").iterdir()) if ways.get(path.stem, "untouched") == name]
        row = {"way": name, "pairs": len(stems), "kept": 0, "pixels": 0, "mask_differs": 0, "image_differs": 0}
        for stem in stems:
            images, masks = (list((repaired / side).glob(f"{stem}.*")) for side in ("images", "masks"))
            if len(images) == len(masks) == 1:
                truth = read_mask(clean / "masks" / f"{stem}.png")
                with Image.open(clean / "images" / f"{stem}.png") as old, Image.open(images[0]) as new:
                    row["image_differs"] += int((np.array(old) != np.array(new)).any(axis=-1).sum())
                row["kept"] += 1
                row["pixels"] += truth.size
                row["mask_differs"] += int((was[read_mask(masks[0])] != truth).sum())
        rows.append(row)
    return rows


def run(folder: Path, count: int) -> list[dict[str, Any]]:
    """Draw, damage, repair and compare in `folder`. Raises RuntimeError where the copy cannot be trained on."""
    write_clean(folder / "clean", count)
    shutil.copytree(folder / "clean", folder / "damaged")
    ways = damage(folder / "damaged", count)
    report = keepmap.check(folder / "damaged" / "images", folder / "damaged" / "masks", fix=folder / "repaired")
    if report.repaired is None or report.repaired.failed:
        raise RuntimeError("the repaired copy has errors")
    return compare(folder / "clean", folder / "repaired", ways)


def main() -> None:
    """Print the rows and write results/damage.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=110)
    parser.add_argument("--keep", type=Path, help="new folder for the three data sets")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = run(words.keep or Path(temporary), words.count)
    for row in rows:
        print(row)
    write_result("damage", {"rows": rows})


if __name__ == "__main__":
    main()
