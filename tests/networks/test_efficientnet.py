"""EfficientNet-Lite0 has the shapes of the published network; on its weights it is compared in tests/weights."""

from __future__ import annotations

import torch

from keepmap.networks.efficientnet import EfficientNetLite0


def test_features_have_the_promised_widths_and_strides() -> None:
    encoder = EfficientNetLite0(5).eval()
    with torch.inference_mode():
        features = encoder(torch.randn(1, 5, 64, 96))
    assert tuple(feature.shape[1] for feature in features) == encoder.widths == (16, 24, 40, 112, 320)
    assert [96 // feature.shape[3] for feature in features] == list(encoder.strides)
    assert sum(parameter.numel() for parameter in EfficientNetLite0(3).parameters()) == 4_652_008 - 1_693_160
