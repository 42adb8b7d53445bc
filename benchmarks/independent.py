"""The scores of `keepmap evaluate` computed a second time, from the two folders of masks and docs/metrics.md alone.

usage: python benchmarks/independent.py NAME PREDICTIONS MASKS SCORES.json [--ignore VALUE] [--tolerance 2]
Written with Pillow, numpy and scipy, and none of keepmap's scoring: loops over classes, distance transforms, one
labelling a class. SCORES.json is what `keepmap evaluate PREDICTIONS MASKS --json SCORES.json` writes. Masks are PNGs of
one channel without instance numbers; their values in order are the classes. Writes results/independent-NAME.json with
the largest difference of all numbers. Not computed again: intervals, lengths in units of the files, worst regions.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from common import write_result

Plane = np.ndarray[Any, Any]
Row = dict[str, Any]
NAMES = {
    "mean IoU": "iou", "mean Dice": "dice", "mean precision": "precision", "mean recall": "recall",
    "boundary F": "boundary_f", "surface Dice": "surface_dice", "Hausdorff 95 %": "hausdorff95",
    "surface distance": "surface_distance", "object F1": "object_f1", "AP50": "ap50", "count error": "count_error",
}  # fmt: skip
"""Headline number -> the number of a class that it is the mean of."""
OF_IMAGES = ("hausdorff95", "surface_distance", "count_error")
"""Numbers that a data set has as means over images only."""
OF_IMAGE = {
    "mean_iou": "mean IoU", "mean_dice": "mean Dice", "pixel_accuracy": "pixel accuracy", "boundary_f": "boundary F",
    "surface_dice": "surface Dice", "hausdorff95": "Hausdorff 95 %", "surface_distance": "surface distance",
    "object_f1": "object F1", "count_error": "count error",
}  # fmt: skip


def share(part: float, whole: float) -> float:
    """part / whole, NaN for a denominator of 0."""
    return part / whole if whole else math.nan


def mean(values: list[float]) -> float:
    """Of those that are numbers."""
    known = [value for value in values if not math.isnan(value)]
    return share(math.fsum(known), len(known))


def line_of(plane: Plane, k: int) -> Plane:
    """Pixels of class k beside a pixel of another class; beyond the border and where -1 stands there is none."""
    wide = np.pad(plane, 1, constant_values=-1)
    rows, columns = plane.shape
    on = np.zeros(plane.shape, bool)
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        near = wide[row : row + rows, column : column + columns]
        on |= (near >= 0) & (near != k)
    return on & (plane == k)


def away(line: Plane, other: Plane) -> Plane:
    """How far each pixel of an outline is from the other outline."""
    if not other.any():
        return np.full(int(line.sum()), math.inf)
    distances: Plane = ndimage.distance_transform_edt(~other)
    return distances[line]


def percentile95(ways: Plane) -> float:
    """Linear between the two ranks beside it."""
    ranked = np.sort(ways)
    place = 0.95 * (len(ranked) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return float(ranked[low] + (place - low) * (ranked[high] - ranked[low]))


def matches(truth: Plane, prediction: Plane) -> tuple[int, int, int]:
    """True objects, predicted objects, and pairs of them with an IoU above 0.5; corners connect."""
    true, many = ndimage.label(truth, np.ones((3, 3)))
    found, more = ndimage.label(prediction, np.ones((3, 3)))
    hits = 0
    for number, box in enumerate(ndimage.find_objects(true), start=1):
        inside = true[box] == number
        for other in set(found[box][inside].tolist()) - {0}:
            both = int((inside & (found[box] == other)).sum())
            hits += both / (int(inside.sum()) + int((found == other).sum()) - both) > 0.5
    return many, more, hits


def count_class(truth: Plane, prediction: Plane, k: int, tolerance: float, objects: bool) -> Row:
    """What the numbers of one class in one image are made of. Planes of class indices, -1 where ignored."""
    a, b = truth == k, prediction == k
    lines = line_of(truth, k), line_of(prediction, k)
    ways = away(lines[0], lines[1]), away(lines[1], lines[0])
    both = all(len(way) for way in ways)
    boundary = max(1.0, 0.0075 * math.hypot(*truth.shape))
    near = [[(way <= limit).sum() for way in ways] for limit in (boundary, tolerance)]
    return {
        "pixels": np.array([(a & b).sum(), a.sum(), b.sum()], float),
        "lines": np.array([[len(way) for way in ways], *near], float),
        "objects": np.array(matches(a, b) if objects else (0, 0, 0), float),
        "hausdorff95": max(map(percentile95, ways)) if both else math.nan,
        "surface_distance": float(np.concatenate(ways).mean()) if both else math.nan,
    }


def numbers_of(counts: Row) -> dict[str, float]:
    """The numbers of a class from its counts, of an image or summed over many."""
    hits, true, predicted = counts["pixels"]
    (line, other), near, close = counts["lines"]
    objects, found, matched = counts["objects"]
    recall, precision = (share(part, whole) for part, whole in zip(near, (line, other), strict=True))
    f = share(2 * precision * recall, precision + recall) if line and other else 0.0
    return {
        "iou": share(hits, true + predicted - hits), "dice": share(2 * hits, true + predicted),
        "precision": share(hits, predicted), "recall": share(hits, true),
        "boundary_f": (0.0 if math.isnan(f) else f) if line + other else math.nan,
        "surface_dice": share(sum(close), line + other),
        "object_f1": share(2 * matched, objects + found), "ap50": share(matched, objects + found - matched),
        "count_error": abs(found - objects) if objects + found else math.nan,
    }  # fmt: skip


def read_indices(path: Path, values: list[int], ignore: int | None) -> Plane:
    """Class indices of a mask, -1 for the ignored value. Raises ValueError for a value that is no class."""
    with Image.open(path) as image:
        plane = np.asarray(image).astype(int)
    known = [*values, *([] if ignore is None else [ignore])]
    if not np.isin(plane, known).all():
        raise ValueError(f"{path.name} has values that are no class")
    return np.where(plane == ignore, -1, np.searchsorted(values, plane))


def values_of(masks: Path, ignore: int | None) -> list[int]:
    """All values of the true masks in order, without the ignored one."""
    found: set[int] = set()
    for path in masks.glob("*.png"):
        with Image.open(path) as image:
            found |= set(np.unique(np.asarray(image)).tolist())
    return sorted(found - {ignore})


def count(folders: tuple[Path, Path], names: list[str], ignore: int | None, tolerance: float) -> dict[str, list[Row]]:
    """The counts of each class in each image. folders: PREDICTIONS, MASKS. Raises ValueError."""
    values = values_of(folders[1], ignore)
    if len(values) != len(names):
        raise ValueError(f"the masks hold {values}, the scores are of {', '.join(names)}")
    rows = {}
    for path in sorted(folders[1].glob("*.png")):
        truth = read_indices(path, values, ignore)
        prediction = np.where(truth < 0, -1, read_indices(folders[0] / path.name, values, ignore))
        rows[path.stem] = [
            count_class(truth, prediction, k, tolerance, name.lower() not in ("background", "class 0"))
            for k, name in enumerate(names)
        ]
    return rows


def summed(rows: list[Row]) -> Row:
    """The counts of one class over images."""
    return {name: sum(row[name] for row in rows) for name in ("pixels", "lines", "objects")}


def means_of(classes: list[dict[str, float]], pixels: list[Plane]) -> dict[str, float]:
    """The headline numbers of classes, and those that are no mean over them."""
    hits, true, _ = np.array(pixels).T
    weighted = [one["iou"] * n for one, n in zip(classes, true.tolist(), strict=True) if n]
    means = {name: mean([one[key] for one in classes]) for name, key in NAMES.items() if key in classes[0]}
    return means | {
        "pixel accuracy": share(hits.sum(), true.sum()), "frequency-weighted IoU": share(sum(weighted), true.sum()),
    }  # fmt: skip


def computed(rows: dict[str, list[Row]], names: list[str]) -> dict[str, float]:
    """Every number by a name of its own: "data set: mean IoU", "class cat: iou", "image a: mean_iou"."""
    found: dict[str, float] = {}
    of_images = []
    for stem, counts in rows.items():
        classes = [numbers_of(row) | {name: row[name] for name in OF_IMAGES[:2]} for row in counts]
        own = means_of(classes, [row["pixels"] for row in counts])
        of_images.append((classes, own))
        found |= {f"image {stem}: {field}": own[name] for field, name in OF_IMAGE.items()}
        found |= {f"image {stem}: iou {name}": one["iou"] for name, one in zip(names, classes, strict=True)}
    sums = [summed([counts[k] for counts in rows.values()]) for k in range(len(names))]
    whole = [numbers_of(one) for one in sums]
    for k, name in enumerate(names):
        whole[k] |= {key: mean([classes[k][key] for classes, _ in of_images]) for key in OF_IMAGES}
        found |= {f"class {name}: {key}": value for key, value in whole[k].items()}
        found[f"class {name}: pixels"] = float(sums[k]["pixels"][1])
    data = means_of(whole, [one["pixels"] for one in sums])
    found |= {f"data set: {name}": value for name, value in data.items()}
    return found | {f"image: {name}": mean([own[name] for _, own in of_images]) for name in of_images[0][1]}


def told(scores: Row) -> dict[str, float | None]:
    """The same names with what the file of `keepmap evaluate` says."""
    found: dict[str, float | None] = {f"{one['of']}: {one['name']}": one["value"] for one in scores["figures"]}
    names = [one["name"] for one in scores["classes"]]
    for one in scores["classes"]:
        found |= {f"class {one['name']}: {key}": one[key] for key in ("pixels", *NAMES.values())}
    for one in scores["images"]:
        found |= {f"image {one['stem']}: {field}": one[field] for field in OF_IMAGE}
        found |= {f"image {one['stem']}: iou {name}": value for name, value in zip(names, one["iou"], strict=True)}
    return found


def difference(ours: float | None, again: float) -> float:
    """Between two numbers; 0 where both are n/a, infinite where one is."""
    if ours is None or math.isnan(again):
        return 0.0 if ours is None and math.isnan(again) else math.inf
    return abs(ours - again)


def compare(scores: Row, rows: dict[str, list[Row]]) -> Row:
    """The largest difference of all numbers that both have, and which numbers of keepmap were not computed again."""
    ours, again = told(scores), computed(rows, [one["name"] for one in scores["classes"]])
    shared = {name: difference(ours[name], again[name]) for name in ours if name in again}
    worst = max(shared, key=lambda name: shared[name])
    return {
        "images": len(rows), "classes": len(scores["classes"]), "numbers": len(shared),
        "not_available": sum(ours[name] is None for name in shared), "largest_difference": shared[worst],
        "of": worst if shared[worst] else "", "left_out": sorted(set(ours) - set(shared)),
    }  # fmt: skip


def main() -> None:
    """Print the largest difference and write results/independent-NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    for name in ("predictions", "masks", "scores"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--ignore", type=int)
    parser.add_argument("--tolerance", type=float, default=2.0)
    words = parser.parse_args()
    scores = json.loads(words.scores.read_text(encoding="utf-8"))
    names = [one["name"] for one in scores["classes"]]
    figures = compare(scores, count((words.predictions, words.masks), names, words.ignore, words.tolerance))
    print(figures)
    write_result(f"independent-{words.name}", figures)


if __name__ == "__main__":
    main()
