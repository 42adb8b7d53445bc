"""How a first convolution that was trained on three colours takes images of any number of channels.

Knows one tensor; not which one of a network it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

COLOURS = 3


def adapted(weight: Tensor, channels: int) -> Tensor:
    """The kernel (O, 3, *K) of a first convolution for images of `channels` channels: (O, channels, *K).

    3 channels:    unchanged.
    more than 3:   channel i takes the filter of colour i % 3, divided by the number of channels that share this colour.
    fewer than 3:  every channel takes the sum of the three filters, divided by the number of channels.
    So an image whose channels are all alike gives just what the grey image of three equal colours gave.
    ValueError where the kernel is not of three colours.
    """
    if weight.shape[1] != COLOURS:
        raise ValueError(f"a kernel of {weight.shape[1]} channels was not trained on three colours")
    if channels == COLOURS:
        return weight
    if channels < COLOURS:
        total = weight.sum(1, keepdim=True) / channels
        return total.repeat(1, channels, *[1] * (weight.ndim - 2))
    colour = torch.arange(channels) % COLOURS
    sharing = torch.bincount(colour)[colour].to(weight.dtype)
    return weight[:, colour] / sharing.view(1, -1, *[1] * (weight.ndim - 2))
