"""The classic U-Net as most repositories write and train it, in eager float32: the peer of the speed benchmark.

Knows nothing of keepmap, except the order in which it takes over weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def double(inner: int, outer: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU, twice."""

    def once(channels: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(channels, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)

    return nn.Sequential(*once(inner), *once(outer))


class PlainUNet(nn.Module):
    """Five levels, 64 to 1024 channels, transposed convolutions; (N, 3, H, W) normalised to logits (N, K, H, W)."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (64, 128, 256, 512, 1024)) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.stem = double(3, widths[0])
        self.down = nn.ModuleList(double(a, b) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs))
        self.merge = nn.ModuleList(double(2 * a, a) for a, _ in reversed(pairs))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the input's own size, which is a multiple of 16."""
        skips = [self.stem(x)]
        for block in self.down:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        logits: Tensor = self.head(x)
        return logits

    def take_over(self, weights: Mapping[str, Tensor]) -> None:
        """Copy the tensors of a network with the same layers in the same order."""
        own = self.state_dict()
        if [t.shape for t in own.values()] != [t.shape for t in weights.values()]:
            raise ValueError("the weights are of another network")
        self.load_state_dict(dict(zip(own, (t.clone() for t in weights.values()), strict=True)))


def plain_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy plus Dice over the batch."""
    p = logits.softmax(1)
    t = F.one_hot(classes, logits.shape[1]).permute(0, 3, 1, 2).float()
    overlap, total = (p * t).sum((0, 2, 3)), p.sum((0, 2, 3)) + t.sum((0, 2, 3))
    return F.cross_entropy(logits, classes) + 1 - ((2 * overlap + 1) / (total + 1)).mean()
