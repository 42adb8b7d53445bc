"""Names of encoders."""

from __future__ import annotations

import pytest
import torch

from keepmap.errors import OptionError
from keepmap.networks.encoders import ENCODERS, build_encoder


@pytest.mark.parametrize("name", ENCODERS)
def test_every_name_builds_an_encoder_of_five_features(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(name, 1)
        features = encoder(torch.zeros(1, 1, 64, 64))
    assert [feature.shape[1:] for feature in features] == [
        (width, 64 // stride, 64 // stride) for width, stride in zip(encoder.widths, encoder.strides, strict=True)
    ]


def test_a_misspelt_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"did you mean resnet18\?"):
        build_encoder("resnet-18", 3)
