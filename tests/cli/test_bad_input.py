"""Wrong input through the command line: exit code 2, the file's name, the reason, and nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.cli.main import main

Break = Callable[[Path], None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four images of 40 x 50 px with masks of 0 and 255."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for name in "abcd":
        image = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(((image[..., 0] > 128) * 255).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path


def truncated(data: Path) -> None:
    file = data / "images" / "b.png"
    file.write_bytes(file.read_bytes()[:400])


def empty(data: Path) -> None:
    (data / "images" / "b.png").write_bytes(b"")


def text(data: Path) -> None:
    (data / "images" / "b.png").write_text("<!DOCTYPE html><html>not found</html>")


def other_size(data: Path) -> None:
    Image.new("L", (50, 41)).save(data / "masks" / "b.png")


def stray_label(data: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[:2, :3] = 128
    mask[5:] = 255
    Image.fromarray(mask).save(data / "masks" / "b.png")


def colour_coded(data: Path) -> None:
    mask = np.zeros((40, 50, 3), np.uint8)
    mask[10:] = (255, 0, 0)
    Image.fromarray(mask).save(data / "masks" / "b.png")


def every_mask(data: Path, mask: np.ndarray) -> None:
    for file in (data / "masks").iterdir():
        Image.fromarray(mask).save(file)


def coloured(data: Path, odd: tuple[int, int, int]) -> None:
    """Colour-coded masks, one of them with a thin line of another colour."""
    mask = np.zeros((40, 50, 3), np.uint8)
    mask[10:] = (200, 0, 0)
    mask[20:30] = (0, 90, 0)
    every_mask(data, mask)
    mask[10] = odd
    Image.fromarray(mask).save(data / "masks" / "b.png")


def smoothed_colours(data: Path) -> None:
    coloured(data, (100, 0, 0))


def id_beyond_a_gap(data: Path) -> None:
    every_mask(data, (np.arange(2000).reshape(40, 50) % 3).astype(np.uint8))
    mask = (np.arange(2000).reshape(40, 50) % 3).astype(np.uint8)
    mask[3, 3] = 7
    Image.fromarray(mask).save(data / "masks" / "b.png")


def blurred(data: Path) -> None:
    mask = np.zeros((40, 50), np.uint8)
    mask[9:31, 9:39] = 255
    every_mask(data, np.asarray(Image.fromarray(mask).resize((25, 20)).resize((50, 40))))


def jpeg_mask(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    Image.new("L", (50, 40)).save(data / "masks" / "b.jpg")


def photograph(data: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data / "masks" / "b.png")


def transparent(data: Path) -> None:
    Image.new("RGBA", (50, 40), (0, 0, 0, 9)).save(data / "masks" / "b.png")


def turned(data: Path) -> None:
    Image.new("L", (40, 50)).save(data / "masks" / "b.png")


def large_numbers(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    Image.fromarray(np.full((40, 50), 70_000, np.int32)).save(data / "masks" / "b.tif")


def one_class(data: Path) -> None:
    every_mask(data, np.zeros((40, 50), np.uint8))


def folder_named_png(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    (data / "masks" / "b.png").mkdir()


def link_to_nothing(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    (data / "masks" / "b.png").symlink_to("absent.png")


def link_to_itself(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    (data / "masks" / "b.png").symlink_to("b.png")


def no_mask(data: Path) -> None:
    (data / "masks" / "b.png").unlink()


def no_image(data: Path) -> None:
    (data / "images" / "b.png").unlink()


def one_stem_twice(data: Path) -> None:
    Image.new("RGB", (50, 40)).save(data / "images" / "b.jpg")


def no_images(data: Path) -> None:
    for kind in ("images", "masks"):
        for file in (data / kind).iterdir():
            file.unlink()


def one_image(data: Path) -> None:
    for kind in ("images", "masks"):
        for name in "bcd":
            (data / kind / f"{name}.png").unlink()


CASES: dict[str, tuple[Break, str, str]] = {
    "1 truncated": (truncated, "b.png", "b.png is damaged and cannot be decoded. found the file is truncated"),
    "3 empty": (empty, "b.png", "b.png is an empty file. found 0 bytes"),
    "4 text": (text, "b.png", "b.png is not the PNG file that its name promises. found text that starts with “<"),
    "5 folder": (folder_named_png, "b.png", "is a folder, not a file"),
    "6 link to nothing": (link_to_nothing, "b.png", "cannot be opened"),
    "6 link to itself": (link_to_itself, "b.png", "cannot be opened"),
    "7 stray label": (stray_label, "b.png", "value 128, which is not a label. found 128 (0.3 %, 6 px)"),
    "7 id beyond a gap": (id_beyond_a_gap, "b.png", "value 7, which is not a label"),
    "10 colour-coded among others": (colour_coded, "b.png", "is colour-coded, unlike the other masks"),
    "10 photograph": (photograph, "b.png", "is no mask: it has too many colours"),
    "11 smoothed colours": (smoothed_colours, "b.png", "colour 100,0,0, which is not a label"),
    "11 blurred": (blurred, "masks", "was smoothed or compressed. found 0 (56 %), 255 (23 %), 23 (4 %"),
    "11 JPEG mask": (jpeg_mask, "b.jpg", "whose compression changes label values"),
    "13 large numbers": (large_numbers, "b.tif", "label values out of range"),
    "15 transparent mask": (transparent, "b.png", "has transparent pixels, whose label is unknown"),
    "17 turned": (turned, "b.png", "(sides swapped)"),
    "18 other size": (other_size, "b.png", "found mask 50 x 41 px, image 50 x 40 px"),
    "19 no mask": (no_mask, "b.png", "b.png: this image has no mask"),
    "19 no image": (no_image, "b.png", "b.png: this mask has no image"),
    "20 one stem twice": (one_stem_twice, "b.jpg", "b.jpg is one of 2 images with the stem b. found"),
    "32 one class": (one_class, "masks", "fewer than two classes"),
    "33 no images": (no_images, "images", "images holds no images"),
    "33 one image": (one_image, "images", "too few images with masks. found 1:"),
}


def everything(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verb", ["check", "train"])
def test_bad_data(verb: str, case: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_it, file, reason = CASES[case]
    break_it(data)
    before = everything(data)
    words = [verb, str(data / "images"), str(data / "masks")]
    code = main([*words, "-o", str(data / "run"), "--steps", "1"] if verb == "train" else words)
    said = capsys.readouterr()
    message = " ".join((said.out + said.err).split())
    assert code == 2
    assert file in message
    assert reason in message
    assert "Traceback" not in message
    assert everything(data) == before
    assert not (data / "run").exists()


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that must fail with exit code 2 says on stderr."""
    capsys.readouterr()
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_an_output_that_cannot_be_written_is_found_before_training(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "file").write_text("mine")
    words = ["train", str(data / "images"), str(data / "masks"), "--steps", "1", "-o"]
    for out in (data / "file" / "run", data / ("long" * 100)):
        message = failure([*words, str(out)], capsys)
        assert out.name[:20] in message
        assert "choose another -o" in message
    assert "is no empty folder" in failure([*words, str(data)], capsys)
    assert (data / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", ["predict", "evaluate", "train"])
def test_a_run_folder_that_is_none(verb: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {
        "predict": ["predict", str(data), str(data / "images"), "-o", str(data / "out")],
        "evaluate": ["evaluate", str(data), str(data / "images"), str(data / "masks")],
        "train": ["train", "-o", str(data), "--resume"],
    }[verb]
    message = failure(words, capsys)
    assert f"{data} is no RUN" in message
    assert "no config.json in it" in message
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("--model", "encoder_unit", "did you mean encoder_unet?"),
        ("--encoder", "resnet19", "did you mean resnet18?"),
        ("--device", "cdua", "did you mean cuda?"),
        ("--weights", "imagnet", "imagenet"),
        ("--seed", "-1", "0 to"),
        ("--crop", "1", "32 to"),
        ("--time", "3s", "at least 11 s"),
        ("--time", "soon", "such as 90s"),
        ("--tiem", "3m", "--time"),
    ],
)
def test_wrong_options_are_found_before_the_data_is_read(
    option: str, value: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(tmp_path / "absent"), str(tmp_path / "absent"), "-o", str(tmp_path / "run")]
    message = failure([*words, option, value], capsys)
    assert hint in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", ["all listed", "one colour more", "names without colours", "ids"])
def test_colours_and_the_table_of_classes(case: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coloured(data, (0, 0, 200) if case == "one colour more" else (0, 0, 0))
    table = data / "classes.csv"
    table.write_text({"names without colours": "ground\ncar\n", "ids": "ground,0\ncar,1\n"}.get(
        case, "ground,0,0,0\ncar,200,0,0\ntree,0,90,0\n"))  # fmt: skip
    words = ["check", str(data / "images"), str(data / "masks"), "--classes", str(table)]
    code = main(words)
    out = " ".join(capsys.readouterr().out.split())
    assert code == (0 if case == "all listed" else 2)
    assert {
        "all listed": "3 colours are taken for classes",
        "one colour more": "b.png contains colour 0,0,200, which is not a label",
        "names without colours": "The masks are colour-coded, and --classes names no colours",
        "ids": "The masks contain colours that --classes does not list. found rgb 200,0,0 (49 %), rgb 0,90,0 (25 %)",
    }[case] in out


def test_values_are_taken_as_they_are_stored(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Palette, 1-bit and 16-bit masks: indices and numbers, never colours nor shades."""
    ids = (np.arange(2000).reshape(40, 50) % 4).astype(np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    said = {}
    for name, mask in (("palette", palette), ("1-bit", Image.fromarray(ids > 1)), ("16-bit",
                       Image.fromarray(ids.astype(np.uint16) * 300))):  # fmt: skip
        for file in (data / "masks").iterdir():
            mask.save(file)
        table = data / "ids.csv"
        table.write_text("".join(f"c{n},{n * 300}\n" for n in range(4)))
        words = ["--classes", str(table)] if name == "16-bit" else []
        assert main(["check", str(data / "images"), str(data / "masks"), *words]) == 0
        said[name] = capsys.readouterr().out
    assert "values 0 to 3 are taken for the ids of 4 classes" in said["palette"]
    assert "values 0 to 1 are taken for the ids of 2 classes" in said["1-bit"]
    assert "900 c3" in " ".join(said["16-bit"].split())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--validation", "val.txt"], "a.png and b.png are equal, and val.txt parts them"),
        (["--validation", "absent.txt"], "The list of held-out images in absent.txt cannot be read"),
        (["--validation", "typo.txt"], "typo.txt names bb, which is no image"),
        (["--group-by", "folder"], "--group-by folder puts all images into one group"),
        (["--group-by", "foldr"], "did you mean folder?"),
        (["--group-by", "("], "is no regular expression"),
        (["--group-by", "(x)"], "gives no group to 4 of 4 images"),
        (["--group-by", "groups.csv"], "gives no group to 1 of 4 images"),
        (["--group-by", "(.)", "--validation", "typo.txt"], "which is no image"),
        (["--instances", "maybe"], "--instances maybe does not exist"),
    ],
)
def test_21_a_split_that_leaks_or_cannot_be_made(
    words: list[str], hint: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data)
    (data / "images" / "b.png").write_bytes((data / "images" / "a.png").read_bytes())
    (data / "val.txt").write_text("b\n")
    (data / "typo.txt").write_text("bb\n")
    (data / "groups.csv").write_text("stem,group\na,1\nb,1\nc,2\n")
    message = failure(["train", "images", "masks", "-o", "run", "--steps", "1", *words], capsys)
    assert hint in message.replace("images/", "")
    assert not (data / "run").exists()


def test_21_33_equal_images_are_held_out_together_and_a_batch_of_one_trains(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keepmap.planning.choice._widths", lambda *_: ({"widths": [4, 8]}, ""))
    (data / "images" / "b.png").write_bytes((data / "images" / "a.png").read_bytes())
    words = ["train", str(data / "images"), str(data / "masks"), "-o", str(data / "run"), "--model", "unet"]
    assert main([*words, "--steps", "1", "--crop", "64", "--batch", "1", "--device", "cpu"]) == 0
    assert "groups  1 image is equal to others and stay with them" in capsys.readouterr().out
    split = json.loads((data / "run" / "split.json").read_text())
    assert split["groups"]["a"] == split["groups"]["b"]
    assert ("a" in split["train"]) is ("b" in split["train"])
