"""A second look at an image sees what was counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from keepmap.data.labels import LabelSet, default_colours
from keepmap.evaluation.counting import count_folders, count_run
from keepmap.evaluation.looking import sight_of_masks, sight_of_run
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import ConfusionMatrix
from keepmap.networks.catalogue import build_network
from keepmap.options import ImageOptions, ScoreOptions
from keepmap.runtime.torch_runtime import TorchRuntime


def test_looks_add_up_to_the_counts(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for part in ("images", "masks", "found"):
        (tmp_path / part).mkdir()
    for name in ("a", "b"):
        mask = random.choice(np.array([0, 255], np.uint8), (21, 30))
        Image.fromarray(random.integers(0, 256, (21, 30, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
        Image.fromarray(255 - mask).save(tmp_path / "found" / f"{name}.png")
    for part in ("images", "masks", "found"):  # a link to a folder elsewhere
        (tmp_path / "linked" / part).mkdir(parents=True)
        (tmp_path / "linked" / part / "far").symlink_to(tmp_path / part)
    torch.manual_seed(0)
    network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
    labels = LabelSet((0, 255), ("background", "cell"), None, default_colours(2))
    predictor = Predictor(TorchRuntime(network, device="cpu", precision="float32"), labels)
    images, masks, found = (tmp_path / "linked" / part for part in ("images", "masks", "found"))
    reading, options = ImageOptions(follow_links=True), ScoreOptions(follow_links=True)
    sights = (
        (sight_of_run(predictor, (images, masks), reading), count_run(predictor, images, masks, reading=reading)),
        (sight_of_masks(found, masks, options), count_folders(found, masks, reading=options)),
    )
    for sight, tally in sights:
        matrix = ConfusionMatrix(2)
        for stem in ("far/a", "far/b"):
            look = sight.look(stem)
            assert sight.pixels(stem) == look.truth.size == 630
            assert (look.image is None) == (look.seconds == 0) == (sight.predictor is None)
            matrix.add(look.truth, look.prediction)
        assert np.array_equal(matrix.matrix, tally.matrix.matrix)
