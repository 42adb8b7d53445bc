"""Wrong input through the command line: exit code 2, the file's name, the reason, and nothing half-written."""

from __future__ import annotations

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
    "truncated": (truncated, "b.png", "truncated"),
    "empty": (empty, "b.png", "empty"),
    "text": (text, "b.png", "HTML"),
    "other size": (other_size, "b.png", "41"),
    "stray label": (stray_label, "b.png", "value 128, which is not a label"),
    "colour-coded": (colour_coded, "b.png", "colour"),
    "no mask": (no_mask, "b.png", "has no mask"),
    "no image": (no_image, "b.png", "has no image"),
    "one stem twice": (one_stem_twice, "b.jpg", "b.png"),
    "no images": (no_images, "images", "holds no images"),
    "one image": (one_image, "images", "too few"),
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
    message = said.out + said.err
    assert code == 2
    assert file in message
    assert reason.lower() in message.lower()
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
        ("--time", "3s", "at least 10 s"),
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
