"""A repaired copy has no error left, loses nothing that could be kept, and never touches the originals."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keepmap.data.classes import ClassNames, read_classes
from keepmap.data.masks import read_mask
from keepmap.data.repair import Repair, repair, require_new
from keepmap.data.scan import DataReport, scan
from keepmap.errors import OutputError
from keepmap.options import CheckOptions
from keepmap.protocols import Silent

Damage = Callable[[Path, Path], None]


def draw(folder: Path, count: int = 6) -> tuple[Path, Path]:
    """Pairs 0.png to (count - 1).png of 40 x 30 px: noise, and blocks of 0 and 255."""
    random = np.random.default_rng(count)
    for side in ("images", "masks"):
        (folder / side).mkdir(parents=True)
    for index in range(count):
        image = random.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        mask = np.kron(random.integers(0, 2, (3, 4)), np.ones((10, 10))).astype(np.uint8) * 255
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    return folder / "images", folder / "masks"


def mend(images: Path, masks: Path, out: Path) -> Repair:
    return repair(images, masks, out, class_names=None, options=CheckOptions(), progress=Silent())


def check(folder: Path) -> DataReport:
    return scan(folder / "images", folder / "masks", class_names=None, ignore="auto", progress=Silent())


def state(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def to_jpeg(image: Path, mask: Path) -> None:
    Image.open(mask).save(mask.with_suffix(".jpg"), quality=70)
    mask.unlink()


def blur(image: Path, mask: Path) -> None:
    Image.open(mask).resize((20, 15)).resize((40, 30), Image.Resampling.BILINEAR).save(mask)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def paint(image: Path, mask: Path) -> None:
    pixels = np.array(Image.open(mask))
    pixels[4, 4] = 99
    Image.fromarray(pixels).save(mask)


def turn(image: Path, mask: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(image).save(image, exif=exif)


def make_grey(image: Path, mask: Path) -> None:
    Image.open(image).convert("L").save(image)


def make_cmyk(image: Path, mask: Path) -> None:
    Image.open(image).convert("CMYK").save(image.with_suffix(".jpg"))
    image.unlink()


def copy(image: Path, mask: Path) -> None:
    for path in (image, mask):
        shutil.copyfile(path, path.with_name(f"{path.stem}_again.png"))


def copy_with_another_mask(image: Path, mask: Path) -> None:
    copy(image, mask)
    pixels = np.array(Image.open(mask))
    pixels[:10] = 255 - pixels[:10]
    Image.fromarray(pixels).save(mask.with_name(f"{mask.stem}_again.png"))


def to_pipe(image: Path, mask: Path) -> None:
    image.unlink()
    os.mkfifo(image)


DAMAGES: dict[str, Damage] = {
    "jpeg": to_jpeg,
    "blur": blur,
    "stray": paint,
    "turned": turn,
    "grey": make_grey,
    "cmyk": make_cmyk,
    "copy": copy,
    "two masks": copy_with_another_mask,
    "cut image": lambda image, mask: cut(image),
    "cut mask": lambda image, mask: cut(mask),
    "empty image": lambda image, mask: empty(image),
    "empty mask": lambda image, mask: empty(mask),
    "no image": lambda image, mask: image.unlink(),
    "no mask": lambda image, mask: mask.unlink(),
    "small mask": lambda image, mask: Image.open(mask).resize((20, 15)).save(mask),
    "text": lambda image, mask: image.write_text("hello") and None,
    "capitals": lambda image, mask: mask.rename(mask.with_name(f"IMG_{mask.stem}_Seg.PNG")) and None,
    "second image": lambda image, mask: Image.open(image).convert("L").save(image.with_suffix(".tif")),
    "pipe": to_pipe,
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(sorted(DAMAGES)), min_size=1, max_size=5), st.integers(0, 3))
def test_the_copy_has_no_error_whatever_the_damage(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], spared: int
) -> None:
    folder = tmp_path_factory.mktemp("data")
    images, masks = draw(folder / "data", len(names) + spared + 3)
    clean = {path.stem: read_mask(path) for path in masks.iterdir()}
    for index, name in enumerate(names):
        DAMAGES[name](images / f"{index}.png", masks / f"{index}.png")
    before = state(folder / "data")
    done = mend(images, masks, folder / "out")
    report = check(folder / "out")
    assert [str(finding) for finding in report.errors] == []
    assert not [finding for finding in report.findings if "same pixels" in finding.summary]
    assert len(report.facts) == done.pairs
    assert state(folder / "data") == before
    for fact in report.facts:
        if not fact.stem.endswith("_again") and int(fact.stem) >= len(names):
            assert (read_mask(fact.mask) == clean[fact.stem]).all()
    assert {str(index) for index in range(len(names), len(clean))} <= {fact.stem for fact in report.facts}
    assert sorted(path.name for path in folder.iterdir()) == ["data", "out"]


def test_every_change_is_a_row_and_every_lost_file_is_in_the_quarantine(tmp_path: Path) -> None:
    images, masks = draw(tmp_path / "data")
    for index, name in enumerate(("jpeg", "cut image", "no mask")):
        DAMAGES[name](images / f"{index}.png", masks / f"{index}.png")
    done = mend(images, masks, tmp_path / "out")
    with (tmp_path / "out" / "changes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(done.changes)
    told = {(Path(row["file"]).parent.name + "/" + Path(row["file"]).name, row["done"]) for row in rows}
    assert told == {
        ("masks/0.jpg", "snapped to the nearest label around"),
        ("images/1.png", "copied to the quarantine"),
        ("masks/1.png", "copied to the quarantine"),
        ("images/2.png", "copied to the quarantine"),
    }
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out" / "quarantine").rglob("*.*")}
    assert found == {f"quarantine/{name}" for name in ("images/1.png", "masks/1.png", "images/2.png")}
    assert (done.pairs, done.quarantined) == (4, 3)
    assert {name: files for name, _, files, _ in done.summary}["smoothed or compressed"] == 1


def test_an_untouched_data_set_is_copied_byte_by_byte(tmp_path: Path) -> None:
    images, masks = draw(tmp_path / "data")
    (images / "sub").mkdir()
    (masks / "sub").mkdir()
    for path in (images / "0.png", masks / "0.png"):
        path.rename(path.parent / "sub" / "0.png")
    done = mend(images, masks, tmp_path / "out")
    assert done.changes == ()
    copied = {name: content for name, content in state(tmp_path / "out").items() if name != "changes.csv"}
    assert copied == state(tmp_path / "data")


def test_colours_become_ids_and_are_listed(tmp_path: Path) -> None:
    images, masks = draw(tmp_path / "data")
    colours = np.array([(0, 0, 0), (200, 30, 60)], np.uint8)
    for path in masks.iterdir():
        Image.fromarray(colours[read_mask(path) // 255]).save(path)
    done = mend(images, masks, tmp_path / "out")
    assert done.classes
    assert read_classes(Path(done.classes)) == ClassNames(("rgb 0,0,0", "rgb 200,30,60"), (0, 1))
    report = check(tmp_path / "out")
    assert not report.failed
    assert set(report.pixels) == {0, 1}


def test_every_format_is_kept_repaired_or_quarantined_with_the_reason(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    images, masks = draw(tmp_path / "data", 8)
    pixels, values = ([np.array(Image.open(side / f"{n}.png")) for n in range(8)] for side in (images, masks))
    for number in range(1, 8):
        for side in (images, masks):
            (side / f"{number}.png").unlink()
    for number in (1, 5):
        np.save(images / f"{number}.npy", pixels[number])
        np.save(masks / f"{number}.npy", values[number])
    for number in (2, 6):
        for side, array in ((images, pixels), (masks, values)):
            zarr.save_array(side / f"{number}.zarr", array[number])
    for number in (3, 7):
        tifffile.imwrite(images / f"{number}.ome.tif", pixels[number], photometric="rgb")
        tifffile.imwrite(masks / f"{number}.tif", values[number], compression="jpeg" if number == 7 else None)
    Image.fromarray(pixels[4]).save(images / "4.webp", lossless=True)
    Image.fromarray(values[4]).convert("RGB").save(masks / "4.webp", quality=60)
    Image.fromarray(values[0]).save(masks / "0.bmp")
    (masks / "0.png").unlink()
    (images / "5.npy").write_bytes((images / "5.npy").read_bytes()[:200])
    chunk = next(path for path in (images / "6.zarr").rglob("*") if path.is_file() and path.name != "zarr.json")
    chunk.write_bytes(b"broken")
    done = mend(images, masks, tmp_path / "out")
    assert not check(tmp_path / "out").failed
    assert done.pairs == 6
    changed = {Path(change.file).name: change.problem for change in done.changes if "images" not in change.file}
    assert changed == {"4.webp": "smoothed or compressed", "7.tif": "smoothed or compressed"} | dict.fromkeys(
        ("5.npy", "6.zarr"), "its partner cannot be used"
    )
    assert all("damaged" not in change.problem or change.done.startswith("copied") for change in done.changes)
    kept = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert kept == {"0.png", "1.npy", "2.zarr", "3.ome.tif", "4.webp", "7.ome.tif"}
    assert (tmp_path / "out" / "quarantine" / "images" / "6.zarr" / "zarr.json").is_file()


def test_names_that_differ_in_case_are_paired(tmp_path: Path) -> None:
    images, masks = draw(tmp_path / "data")
    (images / "0.png").rename(images / "Cell.png")
    (masks / "0.png").rename(masks / "cell_GT.png")
    mend(images, masks, tmp_path / "out")
    assert (tmp_path / "out" / "masks" / "Cell.png").exists()


def test_an_out_that_exists_or_lies_inside_is_refused(tmp_path: Path) -> None:
    images, masks = draw(tmp_path / "data")
    for out in (images, tmp_path / "data", images / "out", masks / "a" / "b"):
        with pytest.raises(OutputError):
            require_new(out, images, masks)
    (tmp_path / "link").symlink_to(masks)
    with pytest.raises(OutputError, match="lies inside"):
        require_new(tmp_path / "link" / "out", images, masks)
    require_new(tmp_path / "data" / "out", images, masks)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    images, masks = draw(tmp_path / "data")
    calls = []

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 5:
            raise error

    monkeypatch.setattr("keepmap.data.repair.shutil.copyfile", fail)
    with pytest.raises(OutputError if error is OSError else error):
        mend(images, masks, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
