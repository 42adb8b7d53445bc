"""Every kind of image file that is not what it seems, through the command line: refused by name, or read and said.

The numbers, here, in test_bad_input.py and in test_bad_models.py, are those of the table of faults that keepmap is to
survive.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from keepmap.cli.main import main

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
SIZES = {
    "a": (41, 53), "b": (37, 45), "c": (40, 50), "-d": (33, 61), "\u00e9" * 122 + "e": (35, 35), "f": (1, 1),
    "g": (1, 3000), "h": (48, 40),
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images of 40 x 50 px with masks of 0 and 1."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in "abcd":
        Image.fromarray(RGB).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray((RGB[..., 0] > 99).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of odd sizes and names with 16-bit masks, one of them empty and one ignored, and a RUN trained on them.

    One has one pixel, one a single row, one is of one colour; the batch is larger than the data set.
    """
    folder = tmp_path_factory.mktemp("trained")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        mask = (image[..., 0] > 99) * 300 + (name == "a") * (image[..., 0] > 200) * 600
        mask = {"c": np.zeros_like(mask), "-d": np.full_like(mask, 7)}.get(name, mask)
        image[...] = 9 if name == "h" else image
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask.astype(np.uint16)).save(folder / "masks" / f"{name}.png")
    (folder / "held.txt").write_text("b\n")
    (folder / "classes.csv").write_text("ground,0\nroad,300\ncar,900\n")
    words = ["--model", "unet", "--set", "widths=4,8", "--steps", "1", "--crop", "32", "--batch", "9"]
    words += ["--device", "cpu", "--classes", str(folder / "classes.csv"), "--ignore", "7"]
    words += ["--validation", str(folder / "held.txt")]
    assert main(["train", str(folder / "images"), str(folder / "masks"), "-o", str(folder / "run"), *words]) == 0
    return folder


def said(words: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """What a command that ends with `code` says, in one line."""
    capsys.readouterr()
    assert main(words) == code
    both = capsys.readouterr()
    text = " ".join((both.out + both.err).split())
    assert "Traceback" not in text
    return text


def replace(data: Path, name: str, array: np.ndarray | Image.Image = RGB, **options: object) -> Path:
    """Put another image in the place of b.png."""
    (data / "images" / "b.png").unlink()
    path = data / "images" / name
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **options)
    else:
        (Image.fromarray(array) if isinstance(array, np.ndarray) else array).save(path, **options)
    return path


def cut_jpeg(data: Path) -> None:
    path = replace(data, "b.jpg")
    path.write_bytes(path.read_bytes()[:900])


def flipped(data: Path) -> None:
    content = bytearray((data / "images" / "b.png").read_bytes())
    content[1000:1010] = b"\0" * 10
    (data / "images" / "b.png").write_bytes(content)


def folder(data: Path) -> None:
    (data / "images" / "b.png").unlink()
    (data / "images" / "b.png").mkdir()


def pipe(data: Path) -> None:
    (data / "images" / "b.png").unlink()
    os.mkfifo(data / "images" / "b.png")


def circle(data: Path) -> None:
    (data / "images" / "b.png").unlink()
    (data / "images" / "b.png").symlink_to(data / "images" / "b2.png")
    (data / "images" / "b2.png").symlink_to(data / "images" / "b.png")


def lost_link(data: Path) -> None:
    (data / "images" / "b.png").unlink()
    (data / "images" / "b.png").symlink_to("nowhere.png")


def link_outside(data: Path) -> None:
    (data / "elsewhere").mkdir()
    (data / "images" / "b.png").rename(data / "elsewhere" / "b.png")
    (data / "images" / "b.png").symlink_to(data / "elsewhere" / "b.png")


def capitals(data: Path) -> None:
    if (data / "images" / "B.png").exists():
        pytest.skip("the file system does not tell capital letters")
    for kind in ("images", "masks"):
        shutil.copyfile(data / kind / "b.png", data / kind / "B.png")


def lossy_mask(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    Image.fromarray((RGB[..., 0] > 99).astype(np.uint8) * 255).save(data / "masks" / "b.jpg")


def transparent(data: Path) -> None:
    replace(data, "b.png", np.concatenate([RGB, RGB[..., :1]], axis=2))


def cmyk(data: Path) -> None:
    replace(data, "b.jpg", Image.fromarray(RGB).convert("CMYK"))


def turned(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    replace(data, "b.jpg", exif=exif)


def header(width: int, height: int) -> Callable[[Path], None]:
    """A PNG file that promises a size and holds nothing."""

    def write(data: Path) -> None:
        def chunk(kind: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
        (data / "images" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b""))

    return write


def animated(data: Path) -> None:
    replace(data, "b.gif", save_all=True, append_images=[Image.fromarray(255 - RGB)])


def animated_png(data: Path) -> None:
    replace(data, "b.png", save_all=True, append_images=[Image.fromarray(255 - RGB)])


def pages(data: Path) -> None:
    replace(data, "b.tif", np.stack([RGB] * 3), photometric="rgb")


def not_a_number(data: Path) -> None:
    array = RGB.astype(np.float32)
    array[3, 4:7, 1] = np.nan, np.inf, -np.inf
    replace(data, "b.tif", array, photometric="rgb")


def grey(data: Path) -> None:
    replace(data, "b.png", RGB[..., 0])


def five_bands(data: Path) -> None:
    replace(data, "b.tif", np.stack([RGB[..., 0]] * 5), photometric="minisblack", planarconfig="separate")


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "1 truncated JPEG": (cut_jpeg, "b.jpg is damaged and cannot be decoded. found image file is truncated"),
    "2 flipped bytes": (flipped, "b.png is damaged and cannot be decoded. found"),
    "5 folder": (folder, "b.png is a folder, not a file."),
    "5 pipe": (pipe, "b.png is a named pipe, not a file."),
    "6 circle of links": (circle, "b.png cannot be opened. found Too many levels of symbolic links"),
    "6 broken link": (lost_link, "b.png cannot be opened. found No such file or directory, a link to nowhere.png"),
    "6 link to another place": (link_outside, "b.png is a link that leads out of"),
    "11 JPEG mask": (lossy_mask, "b.jpg is a JPEG file, whose compression changes label values."),
    "15 transparency": (transparent, "b.png has transparent pixels. found"),
    "16 CMYK": (cmyk, "b.jpg has the colour mode CMYK, which is not read."),
    "17 EXIF rotation": (turned, "found mask 50 x 40 px, image 40 x 50 px (sides swapped)"),
    "20 capital letters": (capitals, "B.png is one of 2 images with the stem B, but for capital letters. found"),
    "25 no pixels": (header(0, 0), "b.png has no pixels. found 0 x 0 px"),
    "27 bomb": (header(30_000, 30_000), "b.png is too large to be decoded whole. found 30000 x 30000 px, 900 million"),
    "27 small bomb": (header(13_400, 13_400), "b.png is too large to be decoded whole. found 13400 x 13400 px"),
    "28 animation": (animated, "b.gif holds 2 frames. found 2 frames expected one image a file"),
    "28 animated PNG": (animated_png, "b.png holds 2 frames. found 2 frames expected one image a file"),
    "28 pages": (pages, "b.tif holds 3 frames. found 3 frames expected one image a file"),
    "29 NaN": (not_a_number, "b.tif has values that are no numbers. found NaN or infinity in 3 of 6000 values read"),
    "31 other channels": (grey, "b.png is of another kind than the other images. found 1 channel of uint8"),
    "31 five bands": (five_bands, "b.tif is of another kind than the other images. found 5 channels of uint8"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("verb", ["check", "train"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_image_is_refused_by_name_before_training(
    case: str, verb: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it, message = REFUSED[case]
    break_it(data)
    words = [verb, str(data / "images"), str(data / "masks")]
    text = said([*words, "-o", str(data / "run"), "--steps", "1"] if verb == "train" else words, capsys)
    assert message in text
    assert not (data / "run").exists()


def everything(data: Path, image: Callable[[np.ndarray], np.ndarray], mask: Callable[[np.ndarray], object]) -> None:
    """Rewrite all four pairs: image arrays as TIFF, masks as anything that Pillow can save."""
    for name in "abcd":
        for kind in ("images", "masks"):
            (data / kind / f"{name}.png").unlink()
        tifffile.imwrite(data / "images" / f"{name}.tif", image(RGB), photometric="rgb")
        picture = mask((RGB[..., 0] > 99).astype(np.uint8))
        (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(data / "masks" / f"{name}.png")


def palette(mask: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask).convert("P")
    image.putpalette([0, 0, 0, 38, 75, 220])
    return image


KEPT: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], object], tuple[str, ...]]] = {
    "8 binary mask": (np.array, lambda m: m * np.uint8(255), ("channels 3 x uint8", "0 and 255")),
    "9 palette mask": (np.array, palette, ("masks palette (4)", "2 classes")),
    "12 16-bit image": (lambda i: i.astype(np.uint16) * 257, np.array, ("channels 3 x uint16",)),
    "14 1-bit mask": (np.array, lambda m: m > 0, ("masks 1-bit (4)",)),
    "15 opaque alpha": (lambda i: np.dstack([i, np.full_like(i[..., 0], 255)]), np.array, ("channels 3 x uint8",)),
    "24 one row": (lambda i: np.tile(i, (1, 200, 1))[:1], lambda m: np.tile(m, (1, 200))[:1], ("1x10000 (4)",)),
    "29 float": (lambda i: i / np.float32(7), np.array, ("channels 3 x float32",)),
    "30 constant image": (lambda i: np.full_like(i, 9), np.array, ("channels 3 x uint8",)),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_strange_data_set_is_read_as_it_is(case: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask, parts = KEPT[case]
    everything(data, image, mask)
    text = said(["check", str(data / "images"), str(data / "masks")], capsys, 0)
    assert "ready to train" in text
    assert [part for part in parts if part not in text] == []


def test_13_labels_above_255_are_not_cut(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything(data, np.array, lambda mask: mask.astype(np.uint16) * 999)
    text = said(["check", str(data / "images"), str(data / "masks")], capsys)
    assert "masks 16-bit grey (4)" in text
    assert "found 999 (62 %), 0 (38 %)" in text


def test_21_equal_images_are_named_before_they_leak(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(["check", str(data / "images"), str(data / "masks")], capsys, 0)
    assert "warning: " in text
    assert "a.png is one of 4 images of the same pixels. found a, b, c, d" in text
    assert "remove the copies, or keepmap check --fix OUT does" in text


def test_22_names_of_any_letters_are_paired_and_unprintable_ones_refused(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    composed, decomposed = (unicodedata.normalize(form, "b\u00fc") for form in ("NFC", "NFD"))
    for old, (image, mask) in {"b": (composed, decomposed), "c": ("two 'words\"",) * 2, "d": ("-d",) * 2}.items():
        (data / "images" / f"{old}.png").rename(data / "images" / f"{image}.png")
        (data / "masks" / f"{old}.png").rename(data / "masks" / f"{mask}.png")
    words = ["check", str(data / "images"), str(data / "masks")]
    assert "ready to train" in said(words, capsys, 0)
    for name in (b"line\nbreak.png", b"latin\xfc.png"):
        shutil.copyfile(data / "images" / "a.png", os.fsencode(data / "images") + b"/" + name)
    (data / "images" / "fol\nder").mkdir()
    files = ["--html", str(data / "page.html"), "--json", str(data / "report.json"), "--fix", str(data / "out")]
    text = said([*words, *files], capsys)
    for shown in ("'line\\nbreak.png'", "'latin\\udcfc.png'", "'fol\\nder'"):
        assert f"{shown} in {data / 'images'} has characters in its name that cannot be printed. found U+" in text
    quarantined = {path.name for path in (data / "out" / "quarantine" / "images").iterdir()}
    assert {"latin_.png", "line_break.png"} <= quarantined
    assert "a file whose name begins with a dash is written ./-" in said(["predict", "run", "-d.png"], capsys)


def test_6_links_out_of_a_folder_are_followed_on_request_and_circles_never(
    data: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link_outside(data)
    predict = ["predict", str(trained / "run"), str(data / "images"), "-o", str(data / "predicted")]
    assert "b.png is a link that leads out of" in said(predict, capsys)
    assert "4 masks in" in said([*predict, "--follow-links"], capsys, 0)
    (data / "masks" / "again").symlink_to(data / "masks")
    (data / "images" / "all").symlink_to(data)
    words = ["check", str(data / "images"), str(data / "masks")]
    text = said([*words, "--fix", str(data / "out")], capsys)
    for name, target in (("b.png", "elsewhere/b.png"), ("all", "")):
        place = data / "images"
        assert f"{place / name} is a link that leads out of {place}. found {(data / target).resolve()} expected" in text
    assert "or pass --follow-links" in text
    assert f"{data / 'masks' / 'again'} leads to a folder that was read already." in text
    assert not list((data / "out" / "quarantine").rglob("images/b.png"))
    (data / "images" / "all").unlink()
    assert "4 good pairs" in said([*words, "--follow-links"], capsys, 0)


def test_13_22_23_24_26_30_32_33_34_what_is_odd_is_learnt_from_and_predicted(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (trained / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses and all(map(math.isfinite, losses))
    run, out = str(trained / "run"), tmp_path / "out"
    said(["predict", run, str(trained / "images"), "-o", str(out)], capsys, 0)
    for name, (height, width) in SIZES.items():
        with Image.open(out / f"{name}.png") as mask:
            assert (mask.size, mask.mode) == ((width, height), "I;16")
            assert set(np.unique(np.asarray(mask)).tolist()) <= {0, 300, 900}
    assert len(list(out.glob("*.[pt][ni][gf]"))) == len(SIZES)
    text = said(["predict", run, str(trained / "images"), "-o", str(tmp_path / "no"), "--overlay"], capsys)
    assert "e_overlay.png has a name that is too long. found 257 bytes expected at most 255" in text
    assert not (tmp_path / "no").exists()
    for kind in ("images", "masks"):
        shutil.copytree(trained / kind, tmp_path / kind, ignore=shutil.ignore_patterns("a.png"))
    text = said(["evaluate", run, str(tmp_path / "images"), str(tmp_path / "masks"), "-q"], capsys, 0)
    assert re.search(r"car 0 \S+ \S+ \S+ n/a", text)


def test_prediction_refuses_what_training_refuses(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four at a time, for a message shows five files; each with its reason, and nothing is written for it."""
    others = ("6 link to another place", "11", "17", "20", "29", "31")  # files of their own are good, or only unlike
    cases = [case for case in REFUSED if not case.startswith(others)]
    for first in range(0, len(cases), 4):
        folder, out = tmp_path / str(first), tmp_path / f"out{first}"
        for number, case in enumerate(cases[first : first + 4]):
            (folder / str(number) / "images").mkdir(parents=True)
            shutil.copyfile(trained / "images" / "b.png", folder / str(number) / "images" / "b.png")
            REFUSED[case][0](folder / str(number))
        text = said(["predict", str(trained / "run"), str(folder), "-o", str(out)], capsys)
        assert [case for case in cases[first : first + 4] if REFUSED[case][1] not in text] == []
        assert [path for path in out.rglob("*") if path.is_file()] == []


def test_28_a_frame_is_chosen_by_an_option(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages(data)
    words = ["check", str(data / "images"), str(data / "masks")]
    assert "--frame N with N from 0 to 2" in said(words, capsys)
    assert "ready to train" in said([*words, "--frame", "2"], capsys, 0)
    assert "b.tif holds 3 frames. found 3 frames, no frame 3" in said([*words, "--frame", "3"], capsys)
    assert "--frame -1 cannot be." in said([*words, "--frame", "-1"], capsys)


def test_27_the_pixel_limit_is_an_option(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", str(data / "images"), str(data / "masks"), "--max-pixels"]
    assert "ready to train" in said([*words, "2000"], capsys, 0)
    text = said([*words, "1999"], capsys)
    assert "a.png is too large to be decoded whole. found 50 x 40 px" in text
    assert "raise --max-pixels" in text
    assert "--max-pixels 0 cannot be." in said([*words, "0"], capsys)
    header(9500, 9500)(data)
    assert "b.png is too large to be decoded whole. found 9500 x 9500 px" in said([*words, "90000000"], capsys)
    assert "b.png is damaged and cannot be decoded." in said([*words, "90250000"], capsys)


def test_what_was_never_measured_is_said(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = np.maximum(RGB, 1)
    array[:4] = 0
    replace(data, "b.tif", array, photometric="rgb", extratags=[(42113, "s", 0, "0", True)])
    text = said(["check", str(data / "images"), str(data / "masks")], capsys, 0)
    assert "1 of 4 images have pixels that were never measured (nodata). found 10.00% of their pixels" in text


def test_each_fault_of_files_models_and_outputs_has_a_test_of_its_number() -> None:
    found: set[int] = set()
    for name in ("test_bad_files.py", "test_bad_input.py", "test_bad_models.py", "../runtime/test_onnx_runtime.py"):
        text = (Path(__file__).parent / name).read_text(encoding="utf-8")
        for numbers in re.findall(r'^(?:    "|def test_)(\d+(?:_\d+)*)[ _]', text, re.MULTILINE):
            found |= set(map(int, numbers.split("_")))
    assert found == {*range(1, 35), 37, 40, 42, 44, 46, 47, 48}
