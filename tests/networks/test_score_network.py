"""The raw score map of every FCN: its extent, and that the logits are it, enlarged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.score_network import ScoreNetwork

TINY = {"widths": (2, 2, 2, 2, 2), "head_width": 4}
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "fcn-32s": ("fcn", {"skips": 0, "head_width": 4}, 32),
    "fcn-16s": ("fcn", {"skips": 1, "head_width": 4}, 16),
    "fcn-8s": ("fcn", {"skips": 2, "head_width": 4}, 8),
    "paper 32s": ("fcn_vgg16", {"skips": 0, **TINY}, 32),
    "paper 16s": ("fcn_vgg16", {"skips": 1, **TINY}, 16),
    "paper 8s": ("fcn_vgg16", {"skips": 2, **TINY}, 8),
    "dilated": ("fcn_dilated", {"width": 2}, 8),
    "dilated resize": ("fcn_dilated", {"width": 2, "match": "resize"}, 8),
}
_BUILT: dict[str, ScoreNetwork] = {}


def built(case: str) -> ScoreNetwork:
    if case not in _BUILT:
        torch.manual_seed(0)
        name, options, _ = CASES[case]
        network = build_network(name, channels=1, classes=3, options=options).eval()
        assert isinstance(network, ScoreNetwork)
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        _BUILT[case] = network
    return _BUILT[case]


def test_every_score_network_has_a_case() -> None:
    kinds = {name for name, (_, kind) in NETWORKS.items() if isinstance(kind, type) and issubclass(kind, ScoreNetwork)}
    assert kinds == {name for name, _, _ in CASES.values()}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 80), width=st.integers(1, 80))
@example(height=1, width=65)
def test_a_score_for_each_stride_of_the_image(case: str, height: int, width: int) -> None:
    network, stride = built(case), CASES[case][2]
    with torch.inference_mode():
        scores = network.scores(torch.rand(1, 1, height, width))
    assert scores.shape == (1, 3, -(-height // stride), -(-width // stride))


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_scores_enlarged(case: str) -> None:
    network = built(case)
    x = torch.rand(2, 1, 96, 160)
    with torch.inference_mode():
        coarse = network.coarse(network.prepare(x))
        assert torch.allclose(network.crop(network.up(coarse), (96, 160)), network(x), atol=1e-6)
        first, rows, columns = network.score_crop, 96 // network.score_stride, 160 // network.score_stride
        inner = coarse[:, :, first : first + rows, first : first + columns]
        assert torch.equal(network.scores(x), inner)


@pytest.mark.parametrize("case", CASES)
def test_a_score_lies_on_its_own_pixels(case: str) -> None:
    """A score raised alone raises most the pixels that it is said to stand for, within half a stride."""
    network = built(case)
    stride, first = network.score_stride, network.score_crop
    with torch.inference_mode():
        scores = torch.zeros_like(network.coarse(network.prepare(torch.zeros(1, 1, 256, 256))))
        scores[:, 1, first + 3, first + 4] = 1
        raised = network.crop(network.up(scores), (256, 256))[0, 1]
    row, column = divmod(int(raised.argmax()), 256)
    assert 3 * stride <= row < 4 * stride
    assert 4 * stride <= column < 5 * stride


def test_wrong_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        built("dilated").scores(torch.zeros(1, 2, 8, 8))
