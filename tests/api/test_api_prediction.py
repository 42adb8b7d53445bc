"""The verbs that use a RUN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keepmap
from keepmap.api.training import Run
from keepmap.errors import DataError


def test_predict_and_evaluate_agree(data: Path, run: Run, tmp_path: Path) -> None:
    written = keepmap.predict(run.path, data / "images", tmp_path / "out", precision="float32")
    assert len(written) == 6
    for file in written:
        with Image.open(file) as mask, Image.open(data / "images" / file.name) as image:
            assert mask.size == image.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}
    of_run = keepmap.evaluate(run.path, data / "images", data / "masks", precision="float32")
    of_files = keepmap.evaluate(tmp_path / "out", data / "masks")
    assert of_run.matrix == of_files.matrix


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
