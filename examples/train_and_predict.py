"""Train on a drawn sample, score images that training did not see, and predict one of them.

usage: python examples/train_and_predict.py [FOLDER] [TIME]        such as: sample 1m
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import keepmap
from keepmap.data.drawn import draw_dataset


def main(folder: Path, time: str) -> None:
    """Write the sample, the run and a mask into `folder`."""
    images, masks = draw_dataset(folder / "train", count=24, seed=0)
    unseen, truth = draw_dataset(folder / "test", count=4, seed=1)

    run = keepmap.train(images, masks, folder / "run", time=time, classes=str(folder / "train" / "classes.txt"))
    scores = keepmap.evaluate(run.path, unseen, truth)
    for row in scores.classes:
        print(f"{row.name:<15} IoU {'n/a' if row.iou is None else f'{row.iou:.3f}'}")

    predictor = keepmap.load(run.path)
    image = np.asarray(Image.open(unseen / "cells_000.png"))
    labels = predictor(image)
    sure = predictor.probabilities(image).max(axis=0)
    print(f"{labels.shape} labels {np.unique(labels)}, {(sure > 0.9).mean():.0%} of the pixels above 0.9")
    Image.fromarray(labels).save(folder / "prediction.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "sample"), sys.argv[2] if len(sys.argv) > 2 else "1m")
