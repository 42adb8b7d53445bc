"""The reach of random chains of layers against the NaN probe, and what has none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from keepmap.networks.layers import AVERAGE, Join, Product, Upsample, pad, pool, transposed
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
        lambda: [AVERAGE[2](2, 2)],
        lambda: [nn.Conv2d(1, 1, 3, 2, 1, bias=False)],
        lambda: [nn.Conv2d(1, 1, 7, 2, 3, bias=False)],
        lambda: [pad(0, 1), nn.Conv2d(1, 1, 3, 2, bias=False)],
        lambda: [pad(1, 2), nn.Conv2d(1, 1, 5, 2, bias=False)],
    ]
)
up = st.sampled_from(
    [
        lambda: [Upsample(2)],
        lambda: [Upsample(2, nearest=True)],
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


@pytest.mark.parametrize(("pad_before", "crop_before"), [(0, 0), (3, 3), (5, 2), (2, 5), (0, 4)])
def test_reach_counts_from_the_image_however_the_core_is_framed(pad_before: int, crop_before: int) -> None:
    """The same core, its input moved down and its logits moved up: the NaN probe sees both."""
    network = Chain([nn.Conv2d(1, 1, 5, padding=2), pool(), transposed(1, 1)], 2)
    network.pad_before, network.crop_before = pad_before, crop_before
    network.padded = lambda size: tuple(extent + 16 for extent in size)  # type: ignore[method-assign]
    before = after = 0
    for row in range(50, 54):
        x = torch.zeros(1, 1, 100, 8)
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
        (nn.AdaptiveAvgPool2d(6), "AdaptiveAvgPool2d.*unknown"),
        (nn.Conv2d(1, 1, 3, padding="same"), "in pixels"),
        (nn.Conv2d(1, 1, 3, stride=3), "grid of the total stride 4"),
    ],
)
def test_unknown_layers_are_refused_by_name(layer: nn.Module, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        _ = Chain([layer]).reach


GLOBAL_LAYERS = [
    nn.GroupNorm(1, 1),
    nn.InstanceNorm2d(1),
    nn.AdaptiveAvgPool2d(1),
    nn.BatchNorm2d(1, track_running_stats=False),
]


@pytest.mark.parametrize("layer", GLOBAL_LAYERS, ids=lambda layer: type(layer).__name__)
def test_what_sees_the_whole_image_is_not_local_and_adds_nothing_to_the_reach(layer: nn.Module) -> None:
    convs = [nn.Conv2d(1, 1, 5, padding=2), nn.Conv2d(1, 1, 3, padding=1)]
    network = Chain([convs[0], layer, convs[1]])
    assert Chain(convs).local
    assert not network.local
    assert network.reach == Chain(convs).reach == (3, 3)


def test_what_depends_on_the_extent_is_not_local() -> None:
    assert Chain([pool(), Upsample(2), nn.BatchNorm2d(1)]).local
    assert not Chain([pool(), Upsample(2, aligned=True)]).local


class Joined(Chain):
    """A map beside a skip, joined by a layer."""

    def __init__(self, join: nn.Module, *, enlarge: bool = True) -> None:
        super().__init__([nn.Conv2d(1, 1, 3, padding=1), pool(), *([Upsample(2)] if enlarge else [])])
        self.join, self.head = join, nn.Conv2d(2, 2, 1)

    def core(self, x: Tensor) -> Tensor:
        return self.head(self.join(x, self.layers(x)))


@pytest.mark.parametrize("match", ["pad", "crop", "resize"])
def test_a_join_reaches_as_far_as_what_it_joins(match: Any) -> None:
    plain = Chain([nn.Conv2d(1, 1, 3, padding=1), pool(), Upsample(2)])
    assert Joined(Join(match)).reach == plain.reach
    assert Joined(Join(match)).local == (match != "resize")
    if match == "resize":
        assert Joined(Join(match), enlarge=False).reach == plain.reach


def test_a_product_reaches_as_far_as_its_factors() -> None:
    class Gated(Chain):
        def __init__(self) -> None:
            super().__init__([nn.Conv2d(1, 1, 7, padding=3), nn.Sigmoid()])
            self.product = Product()

        def core(self, x: Tensor) -> Tensor:
            return self.product(x, self.layers(x))

    assert Gated().reach == (3, 3)
    assert fields_of(Gated())[-1].channels == 1


def test_values_of_different_strides_cannot_be_joined() -> None:
    class Added(Chain):
        def core(self, x: Tensor) -> Tensor:
            return self.layers(x) + x

    with pytest.raises(TypeError, match="different strides"):
        _ = Added([pool()]).reach
