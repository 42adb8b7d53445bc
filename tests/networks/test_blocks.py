"""The blocks against plain torch functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from keepmap.networks.blocks import AttentionGate, Context, ResidualBlock


def test_a_residual_block_adds_what_it_computes_to_its_input() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(6, 6, norm="none", act="leaky_relu").eval()
    state, x = block.state_dict(), torch.randn(2, 6, 9, 7)
    y = F.leaky_relu(F.conv2d(x, state["first.conv.weight"], state["first.conv.bias"], padding=1), 0.01)
    y = F.conv2d(y, state["second.conv.weight"], state["second.conv.bias"], padding=1)
    before = x.clone()
    assert torch.allclose(block(x), F.leaky_relu(y + x, 0.01), atol=1e-5)
    assert torch.equal(x, before)


def test_the_shortcut_of_a_residual_block_averages_and_projects() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 6, stride=2, norm="instance").eval()
    for layer in (block.first.conv, block.second.conv):
        torch.nn.init.zeros_(layer.weight)
    x = torch.randn(1, 4, 8, 6)
    projected = F.conv2d(F.avg_pool2d(x, 2), block.shortcut[1].conv.weight)
    want = F.relu(F.instance_norm(projected))
    assert torch.allclose(block(x), want, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"norm": "group", "act": "gelu"}])
def test_residual_blocks_of_any_rank(options: dict[str, Any]) -> None:
    step = options.get("stride", 1)
    for ndim in (2, 3):
        x = torch.randn(2, 4, *[8] * ndim)
        assert ResidualBlock(4, 6, ndim=ndim, **options)(x).shape == (2, 6, *[8 // step] * ndim)


def test_an_attention_gate_weighs_pixels_by_the_level_below() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(6, 10)
    skip, gating, state = torch.randn(2, 6, 8, 12), torch.randn(2, 10, 4, 6), gate.state_dict()
    sums = F.conv2d(skip, state["theta.weight"], stride=2) + F.conv2d(gating, state["phi.weight"], state["phi.bias"])
    weights = torch.sigmoid(F.conv2d(F.relu(sums), state["psi.weight"], state["psi.bias"]))
    weights = F.interpolate(weights, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(gate(skip, gating), skip * weights, atol=1e-5)


def test_a_context_is_one_vector_for_each_image() -> None:
    torch.manual_seed(0)
    block, x = Context(5), torch.randn(3, 5, 6, 8)
    added = block(x) - x
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added), atol=1e-5)
    assert torch.allclose(added[1, :, 0, 0], block.project.weight[:, :, 0, 0] @ x[1].mean((1, 2)), atol=1e-5)
    assert Context(2, ndim=3)(torch.randn(1, 2, 3, 4, 5)).shape == (1, 2, 3, 4, 5)
