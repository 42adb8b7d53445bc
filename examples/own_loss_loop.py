"""A keepmap network in a training loop of your own, with a loss of your own (here focal loss, Lin 2017).

usage: python examples/own_loss_loop.py [STEPS]
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

import keepmap
from keepmap.data.drawn import draw_pair


def focal_loss(logits: torch.Tensor, classes: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Cross-entropy that fades where the network is sure; logits (N, K, H, W), classes (N, H, W) int64."""
    entropy = F.cross_entropy(logits, classes, reduction="none")
    return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()


@cache
def field(index: int) -> tuple[np.ndarray, np.ndarray]:
    """One drawn image (H, W, 3) uint8 and its classes (H, W) uint8."""
    return draw_pair(seed=0, index=index)


def batch(step: int, size: int = 4, side: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of drawn images: raw values (N, 3, side, side) float32 and classes (N, side, side) int64."""
    random = np.random.default_rng(step)
    images, masks = [], []
    for _ in range(size):
        image, classes = field(int(random.integers(16)))
        top, left = (int(random.integers(n - side + 1)) for n in classes.shape)
        images.append(image[top : top + side, left : left + side])
        masks.append(classes[top : top + side, left : left + side])
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return x, torch.from_numpy(np.stack(masks)).long()


def main(steps: int) -> list[float]:
    """Train for `steps` steps; return the losses."""
    torch.manual_seed(0)
    network = keepmap.build_model("unet", channels=3, classes=3, widths=(16, 32, 64))
    first, _ = batch(0)
    network.set_normalisation(first.mean((0, 2, 3)).tolist(), first.std((0, 2, 3)).tolist())
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    losses = []
    for step in range(steps):
        x, classes = batch(step)
        loss = focal_loss(network(x), classes)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if step % 10 == 0:
            print(f"step {step:4d}  loss {losses[-1]:.4f}")
    return losses


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
