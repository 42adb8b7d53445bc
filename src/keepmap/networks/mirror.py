"""Borders made by mirroring an image, repeatedly where the border is wider than the image.

Knows no network and nothing of how wide a border has to be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mirror(x: Tensor, before: int, size: Sequence[int]) -> Tensor:
    """x (N, C, *S) continued to (N, C, *size) with `before` rows, and columns, put before it and the rest behind it.

    The outermost row is not doubled (3 2 1 | 2 3); an axis of one pixel repeats it. By index arithmetic, so that any
    width of border works on any extent and in an exported network. Keeps channels_last memory.
    """
    channels_last = x.stride(1) == 1
    first = 1 if channels_last else 2
    x = x.movedim(1, -1) if channels_last else x
    for axis, extent in enumerate(size, start=first):
        x = x.index_select(axis, _reflected(x.shape[axis], before, extent, x.device))
    return x.movedim(-1, 1) if channels_last else x


def _reflected(extent: int, before: int, rows: int, device: torch.device) -> Tensor:
    """Which of `extent` rows lies at each of `rows` rows, the first of them `before` rows above row 0: int64."""
    least = torch.sym_max(2 * extent - 2, 1)  # type: ignore[no-untyped-call]
    period = torch.full((1,), least, device=device)  # a tensor: ONNX has no remainder by a number that varies
    place = torch.arange(-before, rows - before, device=device) % period
    return torch.minimum(place, period - place)
