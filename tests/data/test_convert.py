"""From every kind of annotation to the same class ids; whole or not at all; nothing else touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepmap.data.classes import ClassNames, read_classes
from keepmap.data.convert import Conversion, Reading, convert_annotations
from keepmap.data.drawn import draw_dataset
from keepmap.errors import DataError, KeepmapError, OptionError, OutputError
from keepmap.options import ImageOptions
from keepmap.protocols import Silent

CLASSES = np.zeros((12, 14), np.uint8)
CLASSES[2:8, 1:6], CLASSES[5:11, 4:13] = 1, 2
BOXES = ([1, 2, 6, 8], [4, 5, 13, 11])
NAMES = ("background", "cat", "dog")


def corners(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def coco(folder: Path, **change: Any) -> Path:
    annotations = [
        {"id": n, "image_id": 1, "category_id": n, "segmentation": [np.ravel(corners(*box)).tolist()]}
        for n, box in enumerate(BOXES, start=1)
    ]
    content = {"images": [{"id": 1, "file_name": "one.jpg", "height": 12, "width": 14}], "annotations": annotations,
               "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}  # fmt: skip
    (folder / "coco.json").write_text(json.dumps(content | change))
    return folder / "coco.json"


def labelme(folder: Path, **change: Any) -> Path:
    (folder / "annotated").mkdir()
    shapes = [
        {"label": name, "points": corners(*box), "shape_type": "polygon"}
        for name, box in zip(NAMES[1:], BOXES, strict=True)
    ]
    content = {"imageHeight": 12, "imageWidth": 14, "shapes": shapes, "imagePath": "one.jpg"}
    (folder / "annotated" / "one.json").write_text(json.dumps(content | change))
    Image.new("RGB", (14, 12)).save(folder / "annotated" / "one.jpg")
    return folder / "annotated"


def masks(folder: Path, kind: str) -> Path:
    source = folder / "source"
    source.mkdir()
    colours = np.array([(0, 0, 0), (9, 9, 9), (0, 200, 0)], np.uint8)
    image = Image.fromarray(colours[CLASSES] if kind == "colours" else CLASSES)
    if kind == "palette":
        image.putpalette(colours.ravel().tolist())
    image.save(source / "one.png")
    (source / "report.json").write_text('{"findings": []}')
    return source


def convert(
    source: Path, out: Path, images: Path | None = None, names: ClassNames | None = None, ignore: str = "auto",
    instances: str = "auto",
) -> Conversion:  # fmt: skip
    return convert_annotations(
        source, out, images=images, reading=Reading(names, ignore, instances, ImageOptions()), progress=Silent()
    )


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("kind", ["ids", "palette", "colours", "COCO", "labelme", "labelme file"])
def test_every_kind_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    source = coco(tmp_path) if kind == "COCO" else labelme(tmp_path) if "labelme" in kind else masks(tmp_path, kind)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = convert(source / "one.json" if "file" in kind else source, tmp_path / "new" / "out")
    assert np.array_equal(read(tmp_path / "new" / "out" / "one.png"), CLASSES)
    assert read(tmp_path / "new" / "out" / "one.png").dtype == np.uint8
    assert (done.masks, len(done.names), done.ignore) == (1, 3, None)
    assert read_classes(done.classes).names == done.names
    if done.kind != "masks":
        assert done.names == NAMES
        assert [f.summary for f in done.findings] == ["Objects of different classes overlap in 1 masks."]
        assert done.findings[0].found == "6 px, in one"
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"out"}


def test_objects_binary_masks_and_ignored_pixels(tmp_path: Path) -> None:
    source = masks(tmp_path, "ids")
    Image.fromarray(CLASSES.astype(np.uint16) * 1000).save(source / "one.png")
    assert np.array_equal(read(convert(source, tmp_path / "a", instances="yes").path / "one.png"), CLASSES > 0)
    Image.fromarray(np.uint8([0, 255, 128])[CLASSES]).save(source / "one.png")
    done = convert(source, tmp_path / "b", ignore="128")
    assert np.array_equal(read(done.path / "one.png"), np.uint8([0, 1, 255])[CLASSES])
    assert (done.names, done.ignore) == (("background", "foreground"), 255)


def test_many_classes_take_16_bits(tmp_path: Path) -> None:
    source = masks(tmp_path, "ids")
    values = np.arange(300, dtype=np.uint16).repeat(2).reshape(20, 30)
    Image.fromarray(values).save(source / "one.png")
    names = ClassNames(tuple(f"n{n}" for n in range(299)))
    done = convert(source, tmp_path / "out", names=names, ignore="299")
    assert np.array_equal(read(done.path / "one.png"), np.where(values == 299, 65535, values))
    assert done.ignore == 65535


def test_images_give_the_names_and_what_has_no_partner_is_said(tmp_path: Path) -> None:
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    Image.new("RGB", (14, 12)).save(images / "sub" / "one.png")
    Image.new("RGB", (14, 12)).save(images / "other.png")
    listed = [{"id": n, "file_name": name, "height": 12, "width": 14} for n, name in ((1, "one.jpg"), (2, "gone.jpg"))]
    done = convert(coco(tmp_path, images=listed), tmp_path / "out", images=images)
    assert np.array_equal(read(tmp_path / "out" / "sub" / "one.png"), CLASSES)
    said = [f"{f.summary} {f.found}" for f in done.findings]
    assert any("1 images of" in text and text.endswith("are left out. gone.jpg") for text in said)
    assert any("get no mask. other" in text for text in said)
    Image.new("RGB", (14, 13)).save(images / "sub" / "one.png")
    with pytest.raises(DataError, match=r"(?s)one\.png has another size.*14 x 13 px.*14 x 12 px"):
        convert(coco(tmp_path, images=listed), tmp_path / "out2", images=images)


@pytest.mark.parametrize(
    ("names", "files", "expected"),
    [
        (["train/a.png", "val/a.png"], ["val/a.png"], ["val/a"]),
        (["train/a.png"], ["val/a.png", "b.png"], []),
        (["all/val/a.png"], ["val/a.png", "test/a.png"], ["val/a"]),
        (["a.png"], ["x/a.png", "y/a.png"], []),
        (["ba.png"], ["a.png"], []),
    ],
)
def test_an_image_of_one_name_in_another_folder_is_another(
    names: list[str], files: list[str], expected: list[str], tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (14, 12)).save(tmp_path / "images" / file)
    listed = [{"id": n, "file_name": name, "height": 12, "width": 14} for n, name in enumerate(names, start=1)]
    source = coco(tmp_path, images=listed)
    if not expected:
        with pytest.raises(DataError, match="nothing to convert"):
            convert(source, tmp_path / "out", images=tmp_path / "images")
        return
    convert(source, tmp_path / "out", images=tmp_path / "images")
    written = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")]
    assert written == [f"{stem}.png" for stem in expected]


def test_masks_are_checked_against_their_images(tmp_path: Path) -> None:
    images, source = draw_dataset(tmp_path, count=3, seed=0)
    done = convert(source, tmp_path / "out", images=images)
    assert done.masks == 3
    for path in source.iterdir():
        assert np.array_equal(read(tmp_path / "out" / path.name), read(path))
    next(iter(sorted(images.iterdir()))).unlink()
    with pytest.raises(DataError, match="has no image"):
        convert(source, tmp_path / "out2", images=images)


def test_given_names_decide_the_ids(tmp_path: Path) -> None:
    names = ClassNames(("ground", "dog", "bird", "cat"))
    done = convert(coco(tmp_path), tmp_path / "out", names=names)
    assert np.array_equal(read(done.path / "one.png"), np.uint8([0, 3, 1])[CLASSES])
    assert done.names == names.names
    with pytest.raises(DataError, match="--classes does not list cat"):
        convert(coco(tmp_path), tmp_path / "x", names=ClassNames(("ground", "dog")))
    with pytest.raises(OptionError, match="--classes gives values"):
        convert(coco(tmp_path), tmp_path / "x", names=ClassNames(("a", "b"), (0, 1)))


def test_names_of_labelme_for_nothing_and_for_ignored(tmp_path: Path) -> None:
    boxes = {"cat": (0, 0, 14, 12), "_background_": (0, 0, 14, 2), "__ignore__": (0, 10, 14, 12)}
    shapes = [{"label": label, "points": corners(*box)} for label, box in boxes.items()]
    done = convert(labelme(tmp_path, shapes=shapes), tmp_path / "out")
    assert done.names == ("background", "cat")
    assert done.ignore == 255
    assert read(done.path / "one.png")[:, 0].tolist() == [0] * 2 + [1] * 8 + [255] * 2


def bad_polygon(folder: Path) -> Path:
    source = labelme(folder)
    shapes = [{"label": "cat", "points": [[1, 1]]}]
    (source / "two.json").write_text(json.dumps({"imageHeight": 12, "imageWidth": 14, "shapes": shapes}))
    return source


def no_json(folder: Path) -> Path:
    (folder / "x.json").write_text("{")
    return folder / "x.json"


def other_json(folder: Path) -> Path:
    (folder / "x.json").write_text('{"type": "FeatureCollection"}')
    return folder / "x.json"


def nothing(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def two_of_a_name(folder: Path) -> Path:
    images = [{"id": n, "file_name": f"one.{end}", "height": 12, "width": 14} for n, end in ((1, "jpg"), (2, "png"))]
    return coco(folder, images=images)


def a_bomb(folder: Path) -> Path:
    return coco(folder, images=[{"id": 1, "file_name": "one.jpg", "height": 10**6, "width": 10**6}])


def two_categories(folder: Path, second: str) -> Path:
    return coco(folder, categories=[{"id": 1, "name": "a"}, {"id": 2, "name": second}])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bad_polygon, r"two\.json: shape 0 is no polygon"),
        (no_json, r"x\.json cannot be read as JSON"),
        (other_json, r"(?s)x\.json is neither a COCO nor a labelme file.*type"),
        (nothing, "holds nothing to convert"),
        (lambda folder: folder / "absent", "absent does not exist"),
        (two_of_a_name, r"Two masks would be written to one\.png"),
        (a_bomb, "one.jpg is too large"),
        (lambda folder: two_categories(folder, "a"), "Two categories have the name a"),
        (lambda folder: two_categories(folder, "b,7"), "do not fit a list"),
    ],
)
def test_what_is_wrong_leaves_nothing_behind(make: Any, message: str, tmp_path: Path) -> None:
    source = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeepmapError, match=message):
        convert(source, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_is_not_written_to(tmp_path: Path) -> None:
    source = masks(tmp_path, "ids")
    with pytest.raises(OutputError, match="exists and is no empty folder"):
        convert(source, source)
    (tmp_path / "free").mkdir()
    assert convert(source, tmp_path / "free").masks == 1
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot be written"):
        convert(source, tmp_path / "file" / "out")
    with pytest.raises(OptionError, match="--ignore and --instances are for masks"):
        convert(coco(tmp_path), tmp_path / "x", ignore="7")
