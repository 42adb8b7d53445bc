"""Networks that score classes on a coarse grid and then enlarge the scores: every FCN.

Knows that there is a score map and what enlarges it; not how the scores are made.
"""

from __future__ import annotations

from torch import Tensor, nn

from keepmap.networks.network import Network


class ScoreNetwork(Network):
    """A network whose logits are an enlarged score map, which can be had without the enlargement.

    up:           what enlarges the score map to logits.
    score_stride: pixels of the image per row of the score map.
    score_crop:   rows of the score map that lie before the image.
    """

    up: nn.Module
    score_stride: int
    score_crop: int = 0

    def coarse(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> the score map (N, K, *T), as it is before the last upsampling."""
        raise NotImplementedError

    def core(self, x: Tensor) -> Tensor:
        """Padded values (N, C, *S) -> logits (N, K, *S): the score map, enlarged."""
        logits: Tensor = self.up(self.coarse(x))
        return logits

    def scores(self, x: Tensor) -> Tensor:
        """The raw score map (N, K, *T) of raw values x (N, C, *S), where T is S / score_stride, rounded up.

        Row i scores the pixel rows from score_stride * i on. Skips of shallower levels are fused in, nothing is
        activated. Raises ValueError as `forward` does.
        """
        scores = self.coarse(self.prepare(x))
        for axis, extent in enumerate(x.shape[2:], start=2):
            scores = scores.narrow(axis, self.score_crop, -(-extent // self.score_stride))
        return scores
