"""Where rows lie and how many there are: against what torch computes, and against shifted impulses."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from keepmap.networks.catalogue import build_network
from keepmap.networks.grid import Grid, extents_of, rows_after
from keepmap.networks.layers import GLOBAL_AVERAGE, Crop, Product, Scale, Upsample, dense_bilinear, pad, pool
from keepmap.networks.network import Network
from keepmap.networks.trace import steps_of
from keepmap.networks.unet import UNetConfig

layers = st.one_of(
    st.builds(lambda k, s, p, d: nn.Conv2d(1, 1, k, s, p, d), *[st.integers(1, 4)] * 2, *[st.integers(1, 2)] * 2),
    st.builds(
        lambda k, s, ceil: pool(k, stride=s, padding=k // 2, ceil=ceil),
        st.integers(1, 4), st.integers(1, 4), st.booleans(),
    ),
    st.builds(lambda k, s, p: nn.ConvTranspose2d(1, 1, k, s, min(p, (k - 1) // 2)), *[st.integers(1, 5)] * 3),
    st.builds(pad, st.integers(-1, 3), st.integers(-1, 3)),
    st.builds(Upsample, st.integers(1, 4)),
    st.sampled_from([nn.ReLU(), nn.Identity(), nn.Dropout(), Scale(2.0), nn.BatchNorm2d(1)]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(layer=layers, height=st.integers(9, 24), width=st.integers(9, 24))
def test_extents_are_those_that_torch_returns(layer: nn.Module, height: int, width: int) -> None:
    found = layer.eval()(torch.zeros(1, 1, height, width)).shape[2:]
    assert (rows_after(layer, height, 0), rows_after(layer, width, 1)) == tuple(found)


def blurred(layer: nn.Module) -> nn.Module:
    """The same layer with a weight that keeps the centre of mass."""
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    return layer


def centre(x: Tensor) -> float:
    """The centre of mass of the rows of x (1, 1, H, W)."""
    rows = x[0, 0].sum(1)
    return float((rows * torch.arange(len(rows))).sum() / rows.sum())


@pytest.mark.parametrize(
    "layer",
    [
        blurred(nn.Conv2d(1, 1, 3, padding=1)), blurred(nn.Conv2d(1, 1, 7)), blurred(nn.Conv2d(1, 1, 3, 1, 100)),
        blurred(nn.Conv2d(1, 1, 3, 1, 2, 2)), nn.AvgPool2d(1), pad(2, 5), pad(-3, 0), Upsample(4), dense_bilinear(1, 2),
        dense_bilinear(1, 16), blurred(nn.ConvTranspose2d(1, 1, 5, 3, 1)), blurred(nn.Conv2d(1, 1, 2, 2)),
        blurred(nn.Conv2d(1, 1, 6, 4, 1)),
    ],
    ids=str,
)  # fmt: skip
def test_rows_lie_where_the_centre_of_mass_goes(layer: nn.Module) -> None:
    """A symmetric layer of any stride keeps the centre of mass of a smooth bump."""
    rows = torch.arange(96, dtype=torch.float64)
    for middle in (40.0, 47.5, 51.3):
        bump = torch.exp(-((rows - middle) ** 2) / (2 * 5.0**2)).float()[None, None, :, None].expand(1, 1, 96, 32)
        grid = Grid() if isinstance(layer, nn.AvgPool2d) else Grid().through(layer)
        with torch.no_grad():
            found = float(grid.origin) + float(grid.step) * centre(layer(bump))
        assert found == pytest.approx(middle, abs=2e-3)


def test_a_max_pooling_lies_between_its_two_rows() -> None:
    assert Grid().through(pool()) == Grid(Fraction(2), Fraction(1, 2))
    assert Grid().through(pool()).through(pool()) == Grid(Fraction(4), Fraction(3, 2))


def test_what_is_cut_moves_the_first_row_and_pointwise_layers_move_nothing() -> None:
    grid = Grid(Fraction(4), Fraction(-3))
    assert grid.through(Crop(5)) == grid.without(5) == Grid(Fraction(4), Fraction(17))
    assert grid.without(5).rows_before(grid.without(9)) == 4
    assert grid.through(nn.ReLU()) == grid.through(nn.Dropout()) == grid.through(Scale(3.0)) == grid


@pytest.mark.parametrize("other", [Grid(), Grid(Fraction(4), Fraction(-1)), Grid(Fraction(4), Fraction(-8))])
def test_grids_that_do_not_fit_are_refused(other: Grid) -> None:
    with pytest.raises(ValueError, match="cutting no number of rows"):
        Grid(Fraction(4), Fraction(-4)).rows_before(other)


def test_unknown_layers_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="LPPool2d"):
        Grid().through(nn.LPPool2d(2, 2))
    with pytest.raises(TypeError, match="LPPool2d"):
        rows_after(nn.LPPool2d(2, 2), 8)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"widths": (4, 6)}),
        ("fcn", {"encoder": "efficientnet_lite0"}),
        ("fcn_vgg16", {"widths": (2, 2, 2, 2, 2), "head_width": 2}),
        ("fcn_dilated", {"width": 2}),
    ],
)
def test_extents_of_a_core_are_those_of_a_run(name: str, options: dict[str, object]) -> None:
    network = build_network(name, channels=3, classes=2, options=options).eval()
    found: list[tuple[int, ...]] = []
    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    for leaf in leaves:
        leaf.register_forward_hook(lambda m, a, y: found.append(tuple(y.shape[2:])))
    with torch.inference_mode():
        network(torch.zeros(1, 3, 45, 70))
    expected = extents_of(network, (45, 70))
    assert [extent for extent, step in zip(expected, steps_of(network), strict=True) if step.layer] == found


@pytest.mark.parametrize("factor_first", [True, False])
def test_one_pixel_takes_the_extent_of_what_it_is_joined_with(factor_first: bool) -> None:
    class Weighed(Network):
        def __init__(self) -> None:
            super().__init__(UNetConfig(1, 2), 2)
            self.pool, self.product = GLOBAL_AVERAGE[2](1), Product()

        def core(self, x: Tensor) -> Tensor:
            mean = self.pool(x)
            return self.product(mean, x) + mean if factor_first else mean + self.product(x, mean)

    assert extents_of(Weighed(), (6, 10)) == [(6, 10), (1, 1), (6, 10), (6, 10)]
