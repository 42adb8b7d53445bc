"""Train a network that keepmap has never heard of: check it, train it, load it again, predict.

usage: python examples/own_network.py [FOLDER] [TIME]        such as: own 1m
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import keepmap
from keepmap.data.drawn import draw_dataset


class Dilated(nn.Module):
    """Convolutions with growing holes: each sees twice as far as the one before, and nothing is made smaller.

    The five attributes are what keepmap asks of a network; `check_segmenter` proves that they are true.
    """

    stride = 1  # an image may be moved by any number of pixels, and the logits move with it
    local = True  # no layer sees the whole image, so that it can be computed in tiles

    def __init__(self, channels: int, classes: int, width: int = 24, dilations: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.reach = (sum(dilations), sum(dilations))  # rows above and below on which a row of logits depends
        layers: list[nn.Module] = []
        for inputs, dilation in zip((channels, *[width] * len(dilations)), dilations, strict=False):
            convolution = nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raw values (N, channels, H, W) -> logits (N, classes, H, W): normalising is the network's own business."""
        return self.head(self.layers(x / 127.5 - 1))


def main(folder: Path, time: str) -> None:
    """Write the sample, the run and a mask into `folder`."""
    images, masks = draw_dataset(folder / "train", count=24, seed=0)
    unseen, truth = draw_dataset(folder / "test", count=4, seed=1)

    keepmap.check_segmenter(Dilated(channels=3, classes=3))
    torch.manual_seed(0)
    run = keepmap.train(images, masks, folder / "run", network=Dilated(channels=3, classes=3), time=time)

    # The run holds weights and the name of the class: whoever uses it brings the network along.
    scores = keepmap.evaluate(run.path, unseen, truth, network=Dilated(channels=3, classes=3))
    print(f"mean IoU {scores.mean_iou:.3f}")
    predictor = keepmap.load(run.path, network=Dilated(channels=3, classes=3))
    labels = predictor(np.asarray(Image.open(unseen / "cells_000.png")))
    Image.fromarray(labels).save(folder / "prediction.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "own"), sys.argv[2] if len(sys.argv) > 2 else "1m")
