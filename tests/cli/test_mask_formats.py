"""Masks of every kind through the command line: what went in comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keepmap
from keepmap.cli.main import main
from keepmap.runs import RunFolder

COLOURS = {"ground": (0, 0, 0), "car": (200, 0, 40), "tree": (7, 130, 7), "void": (255, 255, 255)}
TABLE = "".join(f"{name},{r},{g},{b}\n" for name, (r, g, b) in COLOURS.items() if name != "void")
SHORT = ["--steps", "2", "--crop", "64", "--batch", "2", "--model", "unet", "--device", "cpu"]


def write(folder: Path, kind: str, *, count: int = 4) -> tuple[Path, Path]:
    """Images and masks of one kind of 48 x 56 px: squares on a ground."""
    random = np.random.default_rng(0)
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for number in range(count):
        values = np.zeros((48, 56), np.uint8)
        for place in range(30):
            row, column = divmod(place, 6)
            values[9 * row + 1 : 9 * row + 7, 9 * column + 1 : 9 * column + 7] = place + 1
        classes = np.minimum(values % 4, 3) if kind == "colours" else values
        mask = np.array(list(COLOURS.values()), np.uint8)[classes] if kind == "colours" else values
        noise = random.integers(0, 60, (48, 56, 3))
        Image.fromarray((noise + 50 * (classes[..., None] > 0)).astype(np.uint8)).save(images / f"s{number}.png")
        Image.fromarray(mask).save(masks / f"s{number}.png")
    return images, masks


def known_images(text: str) -> str:
    """The scores of a RUN as those of its predictions, of which nobody knows what it was trained on."""
    remark = next(line for line in text.splitlines(keepends=True) if "images were trained on" in line)
    return text.replace(remark, "")


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is trained in a moment."""
    monkeypatch.setattr("keepmap.planning.choice._widths", lambda *_: ({"widths": [4, 8]}, ""))


@pytest.mark.parametrize("table", [True, False])
def test_colour_coded_masks_come_out_in_their_colours(
    table: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, masks = write(tmp_path, "colours")
    (tmp_path / "classes.csv").write_text("name,r,g,b\n" + TABLE)
    classes = ["--classes", tmp_path / "classes.csv", "--ignore", "255,255,255"] if table else []
    run("check", images, masks, *classes)
    assert ("rgb 200,0,40 car" if table else "rgb 200,0,40 rgb") in " ".join(capsys.readouterr().out.split())
    run("train", images, masks, "-o", tmp_path / "run", *SHORT, *classes)
    run("train", "-o", tmp_path / "run", "--resume")
    labels = RunFolder(tmp_path / "run").read_config().labels
    assert labels.names[:3] == (("ground", "car", "tree") if table else ("rgb 0,0,0", "rgb 255,255,255", "rgb 7,130,7"))
    run("predict", tmp_path / "run", images, "-o", tmp_path / "out", "--overlay")
    known = {COLOURS[name] for name in COLOURS if not (table and name == "void")}
    predictor = keepmap.load(tmp_path / "run")
    for image in images.iterdir():
        with Image.open(tmp_path / "out" / image.name) as mask:
            assert (mask.mode, mask.size) == ("RGB", (56, 48))
            pixels = np.asarray(mask)
        assert {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()} <= known
        values = predictor(np.asarray(Image.open(image)))
        indices = [[labels.colours.index(tuple(colour)) for colour in row] for row in pixels.tolist()]
        assert np.array_equal(labels.encode(values), indices)
    capsys.readouterr()
    run("evaluate", tmp_path / "run", images, masks, "-q", "--metrics", "region")
    scores = known_images(capsys.readouterr().out)
    run("evaluate", tmp_path / "out", masks, "-q", "--metrics", "region", *classes)
    assert capsys.readouterr().out == scores


def test_instance_masks_train_as_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = write(tmp_path, "objects")
    run("check", images, masks)
    assert "each value above 0 is taken for the number of an object" in capsys.readouterr().out
    run("train", images, masks, "-o", tmp_path / "run", *SHORT)
    run("predict", tmp_path / "run", images, "-o", tmp_path / "out")
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out" / "s0.png"))).tolist()) <= {0, 1}
    capsys.readouterr()
    run("evaluate", tmp_path / "run", images, masks, "-q", "--metrics", "region")
    scores = known_images(capsys.readouterr().out)
    run("evaluate", tmp_path / "out", masks, "-q", "--metrics", "region", "--instances", "yes")
    assert capsys.readouterr().out == scores
    run("check", images, masks, "--instances", "no")
    assert "values 0 to 30 are taken for the ids of 31 classes" in capsys.readouterr().out
