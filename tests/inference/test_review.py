"""The table of what to look at first: the expected Dice of each image, whatever way it was computed."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import keepmap
from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet, default_colours
from keepmap.errors import DataError
from keepmap.inference.files import predict_files
from keepmap.inference.predictor import Predictor
from keepmap.inference.review import FILE, Sums
from keepmap.metrics.calibration import Calibration, expected_dice
from keepmap.networks.catalogue import build_network
from keepmap.options import ImageOptions, PredictOptions
from keepmap.runtime.torch_runtime import TorchRuntime


class Nowhere:
    """An ArraySink that keeps nothing."""

    def write(self, window: object, labels: object) -> None:
        """Forget a window."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    network = build_network("unet", channels=3, classes=3, options={"widths": (4, 8)})
    network.set_normalisation([100.0] * 3, [60.0] * 3)
    labels = LabelSet((0, 1, 2), ("ground", "a, b", "rest"), None, default_colours(3))
    runtime = TorchRuntime(network, device="cpu", precision="float32", temperature=0.2)
    return Predictor(runtime, labels, memory_bytes=2**19, way="bands")


def test_rows_are_what_the_probabilities_expect_the_worst_first(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    random = np.random.default_rng(0)
    for name, size in (("a", (70, 40)), ("b", (9, 8)), ("c", (33, 90))):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    wanted = PredictOptions(probabilities=True, review=True)
    predict_files(predictor, [tmp_path / "in"], out, wanted, about={})
    first = (out / FILE).read_text(encoding="utf-8")
    header, *rows = csv.reader(io.StringIO(first))
    assert header == ["image", "expected_dice", *(f"expected_dice {name}" for name in predictor.labels.names)]
    assert [float(row[1]) for row in rows] == sorted(float(row[1]) for row in rows)
    assert {row[0] for row in rows} == {str(tmp_path / "in" / f"{name}.png") for name in "abc"}
    for row in rows:
        values = np.load(tmp_path / "out" / f"{Path(row[0]).stem}.npy")
        calibration = Calibration(3)
        calibration.add(values, np.zeros(values.shape[1:], np.int16))
        mean = expected_dice(calibration.expected)
        assert mean is not None
        assert abs(float(row[1]) - mean) < 1e-4
        known = [float(value) for value in row[2:] if value]
        assert abs(np.mean(known) - mean) < 2e-4
        assert len(known) == len(np.unique(values.argmax(0)))
    (out / "b.png").unlink()
    predict_files(predictor, [tmp_path / "in"], out, replace(wanted, resume=True), about={})
    assert (out / FILE).read_text(encoding="utf-8") == first


def test_what_was_never_measured_has_no_part(predictor: Predictor, tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(1, 256, (40, 30, 3), np.uint8)
    image[:, 20:] = 0
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extratags=[(42113, "s", 0, "0", True)])
    source = open_image(tmp_path / "a.tif", ImageOptions())
    sums = Sums(source, 3, None)
    predictor.predict(source, Nowhere(), probabilities=sums)
    assert sums.sums[:, 0].sum() == 40 * 20


def test_the_table_is_there_when_one_image_fails(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "in" / "grey.png")
    monkeypatch.setattr("keepmap.api.prediction.load_averaged", lambda *_: predictor)
    with pytest.raises(DataError, match="1 of 2 images"):
        keepmap.predict("run", tmp_path / "in", tmp_path / "out", review=True)
    lines = (tmp_path / "out" / "review_first.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and lines[1].startswith(str(tmp_path / "in" / "a.png"))
