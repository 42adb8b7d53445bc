"""The verbs that use a RUN."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import keepmap
from keepmap.api.training import Run
from keepmap.errors import DataError, OptionError, OutputError
from keepmap.protocols import Silent
from keepmap.runtime.torch_runtime import TorchRuntime


@pytest.fixture(scope="module")
def twin(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same RUN in another place."""
    return Path(shutil.copytree(run.path, tmp_path_factory.mktemp("twin") / "twin"))


@pytest.mark.parametrize("averaged", [False, True])
def test_predict_and_evaluate_agree(data: Path, run: Run, twin: Path, tmp_path: Path, averaged: bool) -> None:
    asked = {"precision": "float32"} | ({"tta": "flips", "ensemble": [twin]} if averaged else {})
    written = keepmap.predict(run.path, data / "images", tmp_path / "out", **asked)
    assert len(written) == 6
    for file in written:
        with Image.open(file) as mask, Image.open(data / "images" / file.name) as image:
            assert mask.size == image.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}
            assert np.array_equal(keepmap.load(run.path, **asked)(np.asarray(image)), np.asarray(mask))
    page = tmp_path / "page.html"
    of_run = keepmap.evaluate(run.path, data / "images", data / "masks", **asked, html=str(page))
    of_files = keepmap.evaluate(tmp_path / "out", data / "masks")
    assert of_run.matrix == of_files.matrix
    name = f"{run.path.name} + {twin.name}, averaged over flips, on "
    assert (f"<title>{name}" in page.read_text(encoding="utf-8")) == averaged
    if averaged:
        with pytest.raises(OptionError, match="--tta"):
            keepmap.evaluate(tmp_path / "out", data / "masks", tta="flips")


def test_images_that_were_trained_on_are_told_by_their_pixels(
    data: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another name and in another format too; not the held-out one, and not by the name alone."""
    split = json.loads((run.path / "split.json").read_text())
    trained, new, held_out = split["train"][0], split["train"][1], split["validation"][0]
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        with Image.open(data / folder / f"{trained}.png") as file:
            file.save(tmp_path / folder / "renamed.tif")
        with Image.open(data / folder / f"{new}.png") as file:
            file.rotate(180).save(tmp_path / folder / f"{new}.png")
        shutil.copy(data / folder / f"{held_out}.png", tmp_path / folder)
    said: list[str] = []
    progress = Silent()
    monkeypatch.setattr(progress, "say", said.append)
    folders, page, card = (tmp_path / "images", tmp_path / "masks"), tmp_path / "page.html", tmp_path / "card.md"
    scores = keepmap.evaluate(run.path, *folders, html=str(page), card=str(card), metrics="region", progress=progress)
    warning = "1 of 3 images were trained on: these numbers do not tell how it does on new images"
    assert (scores.trained_on, scores.remarks[0]) == (("renamed",), warning)
    assert f"warning {warning}" in said
    assert all(f"Warning: {warning}." in file.read_text(encoding="utf-8") for file in (page, card))
    alone = tmp_path / "alone"
    shutil.copytree(run.path, alone)
    compared = keepmap.compare(alone, run.path, images=folders[0], masks=folders[1], metrics="region")
    assert [each.remarks[0] for each in compared.scores] == [warning] * 2
    del split["digests"]
    (alone / "split.json").write_text(json.dumps(split))
    assert keepmap.evaluate(alone, *folders, metrics="region").trained_on == ()
    assert keepmap.evaluate(alone, *folders, metrics="region", ensemble=(str(run.path),)).trained_on == ("renamed",)


def test_the_predictor_takes_arrays(data: Path, run: Run) -> None:
    predictor = keepmap.load(run.path, precision="float32")
    image = np.asarray(Image.open(sorted((data / "images").iterdir())[0]))
    labels = predictor(image)
    probabilities = predictor.probabilities(image)
    assert labels.shape == image.shape[:2]
    assert probabilities.shape == (3, *image.shape[:2])
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    with pytest.raises(DataError, match="1 channel"):
        predictor(image[..., 0])


def test_an_ensemble_is_averaged_and_what_was_asked_is_recorded(
    data: Path, run: Run, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = sorted((data / "images").iterdir())[:1]
    asked = {"probabilities": True, "precision": "float32", "table": tmp_path / "t.csv", "polygons": True}
    keepmap.predict(run.path, images, tmp_path / "one", **asked)
    keepmap.predict(run.path, images, tmp_path / "two", ensemble=[twin], **asked)
    for image in images:
        one, two = (np.load(tmp_path / out / f"{image.stem}.npy") for out in ("one", "two"))
        np.testing.assert_allclose(two, one, atol=1e-6)
    first = json.loads((tmp_path / "two" / "prediction.jsonl").read_text().splitlines()[0])
    assert set(first["runs"][str(run.path)]) == {"config.json", "model.safetensors"}
    assert first["options"]["ensemble"] == [str(twin)]
    assert first["computed"] == [f"PyTorch {torch.__version__}, float32 on cpu"] * 2
    assert {path.name for path in (tmp_path / "one").glob("*.geojson")} == {f"{image.stem}.geojson" for image in images}
    before = (tmp_path / "one" / "prediction.jsonl").read_text()
    keepmap.predict(run.path, images, tmp_path / "one", resume=True, **asked)
    assert (tmp_path / "one" / "prediction.jsonl").read_text() == before
    with pytest.raises(OutputError, match="--resume"):
        keepmap.predict(run.path, images, tmp_path / "one", resume=True, tta="flips", **asked)
    monkeypatch.setattr(TorchRuntime, "__init__", renamed(TorchRuntime.__init__))
    with pytest.raises(OutputError, match=r"found +computed: "):
        keepmap.predict(run.path, images, tmp_path / "one", resume=True, **asked)


def renamed(init: Any) -> Any:
    """A runtime of another version."""

    def begin(self: TorchRuntime, *given: Any, **options: Any) -> None:
        init(self, *given, **options)
        self.name = "PyTorch later"

    return begin
