"""The reach of random chains of layers against the NaN probe, and what has none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from keepmap.networks.layers import Upsample, pad, pool, transposed
from keepmap.networks.network import Network
from keepmap.networks.reach import fields_of
from keepmap.networks.unet import UNetConfig


class Chain(Network):
    """Layers one after the other."""

    def __init__(self, layers: list[nn.Module], stride: int = 4) -> None:
        super().__init__(UNetConfig(1, 2), stride)
        self.layers = nn.Sequential(*layers)

    def core(self, x: Tensor) -> Tensor:
        return self.layers(x)


def sized(kernel: int, dilation: int) -> nn.Module:
    return nn.Conv2d(1, 1, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False)


same = st.builds(sized, st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
down = st.sampled_from(
    [
        lambda: [pool()],
        lambda: [pool(3, padding=1)],
        lambda: [nn.Conv2d(1, 1, 3, 2, 1, bias=False)],
        lambda: [nn.Conv2d(1, 1, 7, 2, 3, bias=False)],
        lambda: [pad(0, 1), nn.Conv2d(1, 1, 3, 2, bias=False)],
        lambda: [pad(1, 2), nn.Conv2d(1, 1, 5, 2, bias=False)],
    ]
)
up = st.sampled_from(
    [
        lambda: [Upsample(2)],
        lambda: [transposed(1, 1)],
        lambda: [transposed(1, 1, kernel=4, padding=1)],
        lambda: [transposed(1, 1, kernel=3, padding=1, output_padding=1)],
        lambda: [transposed(1, 1, kernel=6, padding=2)],
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.tuples(same, down, same, down, same, up, same, up, same))
def test_reach_equals_the_nan_probe(parts: tuple[object, ...]) -> None:
    layers: list[nn.Module] = []
    for part in parts:
        layers += [part] if isinstance(part, nn.Module) else part()  # type: ignore[operator]
    network = Chain(layers)
    before = after = 0
    for row in range(200, 204):
        x = torch.zeros(1, 1, 400, 8)
        x[:, :, row] = float("nan")
        with torch.inference_mode():
            bad = network(x).isnan().any(dim=-1)[0, 0].nonzero().flatten()
        before, after = max(before, int(bad[-1]) - row), max(after, row - int(bad[0]))
    assert network.reach == (before, after)


def test_the_two_axes_may_differ_and_the_larger_counts() -> None:
    network = Chain([nn.Conv2d(1, 1, (3, 9), padding=(1, 4)), nn.ZeroPad2d((2, 0, 0, 0)), nn.Conv2d(1, 2, (1, 3))])
    assert fields_of(network, 0)[-1].reach == (1, 1)
    assert fields_of(network, 1)[-1].reach == (6, 4)
    assert network.reach == (6, 4)


class _Mystery(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(2)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (_Mystery(), "_Mystery.*unknown"),
        (nn.GroupNorm(1, 1), "GroupNorm.*whole image"),
        (nn.AdaptiveAvgPool2d(1), "AdaptiveAvgPool2d.*whole image"),
        (nn.BatchNorm2d(1, track_running_stats=False), "BatchNorm2d.*whole image"),
        (nn.Conv2d(1, 1, 3, padding="same"), "in pixels"),
        (nn.Conv2d(1, 1, 3, stride=3), "grid of the total stride 4"),
    ],
)
def test_unknown_and_unlimited_layers_are_refused_by_name(layer: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        _ = Chain([layer]).reach


def test_local_says_whether_parts_equal_the_whole() -> None:
    assert Chain([nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)]).local
    assert not Chain([nn.GroupNorm(1, 1)]).local
    assert not Chain([nn.BatchNorm2d(1, track_running_stats=False)]).local


def test_values_of_different_strides_cannot_be_joined() -> None:
    class Joined(Chain):
        def core(self, x: Tensor) -> Tensor:
            return self.layers(x) + x

    with pytest.raises(TypeError, match="different strides"):
        _ = Joined([pool()]).reach
