"""The paper's U-Net against its figure, and against the same arithmetic written with plain functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from keepmap.errors import OptionError
from keepmap.networks.describe import describe
from keepmap.networks.grid import extents_of
from keepmap.networks.layers import Crop
from keepmap.networks.reach import POOLS
from keepmap.networks.trace import steps_of
from keepmap.networks.unet2015 import UNet2015, UNet2015Config

NARROW = (4, 4, 6, 6, 8)


def small(**options: Any) -> UNet2015:
    torch.manual_seed(0)
    return UNet2015(UNet2015Config(**{"widths": NARROW, "classes": 3, **options})).eval()


def paper() -> UNet2015:
    with torch.device("meta"):
        return UNet2015(UNet2015Config())


def image(*size: int) -> Tensor:
    return torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(1))


def plain_valid(state: dict[str, Tensor], x: Tensor, depth: int) -> Tensor:
    """The network of figure 1: valid convolutions, the middle of each skip beside what comes up."""

    def double(name: str, x: Tensor) -> Tensor:
        for index in (0, 2):
            x = F.relu(F.conv2d(x, state[f"{name}.{index}.weight"], state[f"{name}.{index}.bias"]))
        return x

    skips = [double("stem", x)]
    for level in range(depth):
        skips.append(double(f"down.{level}", F.max_pool2d(skips[-1], 2)))
    x = skips.pop()
    for level in range(depth):
        x = F.conv_transpose2d(x, state[f"up.{level}.weight"], state[f"up.{level}.bias"], stride=2)
        skip = skips.pop()
        top, left = ((skip.shape[axis] - x.shape[axis]) // 2 for axis in (2, 3))
        middle = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        x = double(f"merge.{level}", torch.cat([middle, x], 1))
    return F.conv2d(x, state["head.weight"], state["head.bias"])


def test_has_the_papers_parameters_and_convolutions() -> None:
    network = paper()
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_658
    assert sum(isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) for layer in network.modules()) == 23


def test_572_pixels_become_388_through_the_extents_of_figure_1() -> None:
    network = paper()
    assert network(torch.zeros(1, 1, 388, 388, device="meta")).shape == (1, 2, 388, 388)
    assert network.forward_valid(torch.zeros(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)
    steps, extents = steps_of(network), extents_of(network, (388, 388))
    pooled = [extents[step.inputs[0]][0] for step in steps if isinstance(step.layer, POOLS)]
    assert extents[0] == (572, 572)
    assert pooled == [568, 280, 136, 64]
    assert (28, 28) in extents
    assert extents[-1] == (388, 388)


def test_margins_and_border_follow_from_the_layers() -> None:
    network = paper()
    assert [crop.before for crop in network.trim if isinstance(crop, Crop)] == [4, 16, 40, 88]
    assert network.pad_before == 92
    assert small(widths=(4, 6)).pad_before == 8
    assert small(widths=(4,)).pad_before == 2


@pytest.mark.parametrize(("widths", "size"), [(NARROW, (188, 204)), ((4, 6, 8), (44, 72)), ((5,), (8, 9))])
def test_equals_the_papers_arithmetic_in_plain_functions(widths: tuple[int, ...], size: tuple[int, int]) -> None:
    network, x = small(widths=widths), image(*size)
    with torch.inference_mode():
        found, want = network.forward_valid(x), plain_valid(network.state_dict(), x, len(widths) - 1)
    assert found.shape == want.shape
    assert torch.allclose(found, want, atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
@example(height=1, width=1)
@example(height=1, width=61)
@example(height=4, width=20)
def test_forward_is_the_valid_network_on_the_mirrored_image(height: int, width: int) -> None:
    network, x = small(), image(height, width)
    behind = [92 + (4 - side) % 16 for side in (height, width)]
    bordered = np.pad(x.numpy(), ((0, 0), (0, 0), (92, behind[0]), (92, behind[1])), mode="reflect")
    with torch.inference_mode():
        found = network(x)
        want = network.forward_valid(torch.from_numpy(bordered))[:, :, :height, :width]
    assert found.shape == (1, 3, height, width)
    assert torch.allclose(found, want, atol=1e-5)


def test_forward_inside_the_image_is_the_valid_network_on_that_part() -> None:
    """The overlap-tile strategy of figure 2: what is computed from the image alone needs no mirroring."""
    network, x = small(), image(16 * 14 + 188, 16 * 14 + 204)
    with torch.inference_mode():
        found = network(x)[:, :, 112:116, 112:132]
        want = network.forward_valid(x[:, :, 20 : 20 + 188, 20 : 20 + 204])
    assert found.shape == want.shape
    assert torch.allclose(found, want, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(side=st.integers(1, 4000))
def test_valid_sides_are_188_and_sixteens(side: int) -> None:
    smaller, larger = paper_sides(side)
    every = range(188, 4200, 16)
    assert smaller == max((n for n in every if n <= side), default=188)
    assert larger == min(n for n in every if n >= side)


_PAPER = paper()


def paper_sides(side: int) -> tuple[int, int]:
    return _PAPER.valid_sides(side)


@pytest.mark.parametrize("side", [187, 189, 203, 571])
def test_sides_that_do_not_fit_are_refused_with_the_nearest_that_do(side: int) -> None:
    smaller, larger = paper_sides(side)
    with pytest.raises(ValueError, match=f"{side} px .* {smaller} and {larger}"):
        small().forward_valid(image(188, side))


def test_one_smaller_would_not_do() -> None:
    """At 172 px, the next side down, a level of the expanding path has no row left."""
    network = small()
    with pytest.raises(RuntimeError), torch.inference_mode():
        network.core(image(172, 172))
    with pytest.raises(ValueError, match="2 channels"):
        small(channels=2).forward_valid(image(188, 188))


def test_the_note_names_sides_and_results() -> None:
    assert _PAPER.size_note((512, 572)) == [
        "188 + 16 k px fit without a mirrored border, 184 px less come out",
        "nearest to 512 px: 508 -> 324 or 524 -> 340",
        "nearest to 572 px: 572 -> 388",
    ]
    assert len(_PAPER.size_note((512, 512))) == 2


def test_weights_begin_as_in_section_3() -> None:
    torch.manual_seed(0)
    network = UNet2015(UNet2015Config(widths=(32, 64, 96)))
    assert all(not value.any() for name, value in network.named_parameters() if name.endswith("bias"))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.weight.numel() > 5000:
            taps = 1 if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0, 0].numel()
            expected = (2 / (taps * layer.in_channels)) ** 0.5
            assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.05)


def test_dropout_stands_at_the_end_of_the_contracting_path() -> None:
    network = small()
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Dropout)]
    assert names == ["down.2.4", "down.3.4"]
    assert not [layer for layer in small(dropout=0.0).modules() if isinstance(layer, nn.Dropout)]
    x = image(20, 20)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_the_reach_is_that_of_the_padded_network_and_parts_may_be_computed_alone() -> None:
    network = paper()
    assert network.reach == (107, 107)
    assert network.stride == 16
    assert network.local


def test_levels_are_described_with_the_papers_extents_and_centred_reaches() -> None:
    rows = describe(paper(), (388, 388))
    assert [row.size for row in rows] == [(568, 568), (280, 280), (136, 136), (64, 64), (28, 28)]
    assert [row.channels for row in rows] == [64, 128, 256, 512, 1024]
    assert [row.reach for row in rows] == [(2, 2), (6, 6), (14, 14), (30, 30), (62, 62)]


@pytest.mark.parametrize("options", [{"widths": ()}, {"widths": (4, 0)}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_configurations_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        UNet2015(UNet2015Config(**options))
