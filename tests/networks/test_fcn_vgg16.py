"""The reference FCN against its prototxt in plain functions, and what its paper and its code say of it in numbers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keepmap.errors import OptionError
from keepmap.geometry.tiles import cover, round_up
from keepmap.networks.fcn_vgg16 import FCNVGG16, FCNVGG16Config, as_convolution, from_classifier
from keepmap.networks.grid import Grid, extents_of
from keepmap.networks.layers import dense_bilinear

CONVOLUTIONS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
STRIDES = (32, 16, 8)
OFFSETS = ((19,), (5, 27), (5, 9, 31))
"""Of the crops, as the reference code's prototxt files have them: pool4, pool3, final."""
PEAKS = (Fraction(25, 2), Fraction(-23, 2), Fraction(-47, 2))
"""The image row that row 0 of the last score map is centred on: 12.5, -11.5, -23.5."""


def tiny(skips: int, **options: Any) -> FCNVGG16:
    """A narrow network in eval mode with scores that are not zero."""
    torch.manual_seed(0)
    config = FCNVGG16Config(2, 3, skips=skips, widths=(4, 4, 6, 6, 8), head_width=8, **options)  # type: ignore[arg-type]
    network = FCNVGG16(config).eval()
    for name, parameter in network.named_parameters():
        if "score" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def plain(state: dict[str, Tensor], x: Tensor, skips: int, scales: tuple[float, ...] = (1.0, 1.0)) -> Tensor:
    """The prototxt: pad 100 in the first convolution, ceil pooling, offsets written down."""
    size, pooled = x.shape[2:], []
    for block in CONVOLUTIONS:
        for index in block:
            name = f"encoder.features.{index}"
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1 if index else 100))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        pooled.append(x)
    for name in ("fc6", "fc7"):
        x = F.relu(F.conv2d(x, state[f"head.{name}.weight"], state[f"head.{name}.bias"]))
    x = F.conv2d(x, state["head.score.weight"], state["head.score.bias"])
    for index in range(skips):
        x = F.conv_transpose2d(x, state[f"lift.{index}.weight"], stride=2)
        weight, bias = state[f"score.{index}.weight"], state[f"score.{index}.bias"]
        skip = F.conv2d(pooled[3 - index] * scales[index], weight, bias)
        o = OFFSETS[skips][index]
        x = x + skip[:, :, o : o + x.shape[2], o : o + x.shape[3]]
    x = F.conv_transpose2d(x, state["up.weight"], stride=STRIDES[skips])
    o = OFFSETS[skips][-1]
    return x[:, :, o : o + size[0], o : o + size[1]]


@pytest.mark.parametrize("size", [(27, 27), (37, 53), (64, 96), (101, 28)])
@pytest.mark.parametrize("skips", [0, 1, 2])
def test_equals_the_prototxt_in_plain_functions(skips: int, size: tuple[int, int]) -> None:
    network, x = tiny(skips), torch.randn(2, 2, *size)
    with torch.inference_mode():
        found, expected = network(x), plain(network.state_dict(), x, skips)
    assert found.shape == expected.shape == (2, 3, *size)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(1, 1), (26, 9), (70, 2)])
@pytest.mark.parametrize("skips", [0, 2])
def test_below_27_px_zeros_make_two_rows_of_scores(skips: int, size: tuple[int, int]) -> None:
    network, x = tiny(skips), torch.randn(1, 2, *size)
    padded = F.pad(x, (0, max(27 - size[1], 0), 0, max(27 - size[0], 0)))
    with torch.inference_mode():
        found = network(x)
        expected = plain(network.state_dict(), padded, skips)[:, :, : size[0], : size[1]]
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        if skips == 0:
            assert min(network.coarse(network.prepare(x)).shape[2:]) == 2


@pytest.mark.parametrize("skips", [0, 2])
def test_exports_once_for_all_sizes(skips: int) -> None:
    network, some = tiny(skips), torch.export.Dim.DYNAMIC
    shapes = ({0: some, 2: some, 3: some},)
    exported = torch.export.export(network, (torch.randn(2, 2, 75, 101),), dynamic_shapes=shapes).module()
    with torch.inference_mode():
        for size in ((1, 1), (27, 26), (33, 130)):
            x = torch.randn(1, 2, *size)
            assert torch.allclose(exported(x), network(x), atol=1e-5)


@pytest.mark.parametrize("skips", [1, 2])
def test_at_once_scales_the_pooled_features(skips: int) -> None:
    network, x = tiny(skips, at_once=True), torch.randn(1, 2, 40, 50)
    with torch.inference_mode():
        found = network(x)
        expected = plain(network.state_dict(), x, skips, (0.01, 0.0001))
        unscaled = plain(network.state_dict(), x, skips)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(found, unscaled, rtol=1e-3)


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_crop_offsets_follow_from_the_layers(skips: int) -> None:
    network = tiny(skips)
    assert (*(crop.before for crop in network.trim), network.crop_before) == OFFSETS[skips]


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_all_crops_fit_at_every_side_length(skips: int) -> None:
    """What happens at the far end depends on the side length modulo 32 alone."""
    network = tiny(skips)
    for side in (*range(1, 60), 500, 1999, 3000):
        rows = extents_of(network, (side, 1))[-1][0] - network.crop_before - side
        assert rows >= 0
        if side >= 27:
            assert extents_of(network, (side + 32, 1))[-1][0] - network.crop_before - (side + 32) == rows


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_a_single_score_peaks_at_the_analytic_coordinate(skips: int) -> None:
    network, stride = tiny(skips), STRIDES[skips]
    with torch.inference_mode():
        scores = torch.zeros_like(network.coarse(network.prepare(torch.zeros(1, 2, 200, 232))))
        for row, column in ((6, 7), (5, 4)) if skips else ((3, 4), (2, 5)):
            scores.zero_()[0, 1, row, column] = 1
            logits = network.crop(network.up(scores), (200, 232))[0]
            rows, columns = (logits[1] == logits[1].max()).nonzero().T
            centre = [float(PEAKS[skips] + stride * index) for index in (row, column)]
            assert [rows.double().mean().item(), columns.double().mean().item()] == centre
            assert logits[1].max() == pytest.approx((1 - 1 / (2 * stride)) ** 2)
            assert not logits[[0, 2]].any(), "bilinear upsampling mixes no classes"


@pytest.mark.parametrize("skips", [1, 2])
def test_a_single_deepest_score_peaks_at_the_analytic_coordinate(skips: int) -> None:
    """Through every upsampling and crop: row i of the deepest score map is centred on image row 12.5 + 32 i."""
    network = tiny(skips)
    with torch.inference_mode():
        x = network.head(network.encoder(network.prepare(torch.zeros(1, 2, 200, 200)))[-1]).zero_()
        x[0, 1, 3, 2] = 1
        for lift in network.lift:
            x = lift(x)
        logits = network.crop(network.up(x), (200, 200))[0, 1]
    around = (logits / logits.sum()).double()
    index = torch.arange(200, dtype=torch.float64)
    assert float((around.sum(1) * index).sum()) == pytest.approx(12.5 + 32 * 3, abs=1e-4)
    assert float((around.sum(0) * index).sum()) == pytest.approx(12.5 + 32 * 2, abs=1e-4)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_is_the_filter_of_the_reference_code(factor: int) -> None:
    kernel = 2 * factor
    f = (kernel + 1) // 2
    c = f - 1 if kernel % 2 else f - 0.5
    line = torch.tensor([1 - abs(i - c) / f for i in range(kernel)])
    layer = dense_bilinear(3, factor)
    assert layer.bias is None
    assert layer.padding == (0, 0)
    expected = torch.eye(3)[:, :, None, None] * line[:, None] * line
    assert torch.allclose(layer.weight, expected)


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_the_reach_is_that_of_fc6_and_the_upsampling(skips: int) -> None:
    """Row i of the deepest scores sees image rows 32 i - 189 to 32 i + 214 and raises logits from 32 i - offset on."""
    side = 214 + OFFSETS[skips][-1]
    assert tiny(skips).reach == (side, side)
    assert skips or side == 233


@pytest.mark.parametrize(("skips", "count"), [(0, 134_346_581), (2, 134_362_751)])
def test_parameters_of_the_paper(skips: int, count: int) -> None:
    with torch.device("meta"):
        network = FCNVGG16(FCNVGG16Config(3, 21, skips=skips))  # type: ignore[arg-type]
    upsamplers = ("lift.", "up.")
    named = [(name, p.numel()) for name, p in network.named_parameters() if not name.startswith(upsamplers)]
    assert sum(numel for _, numel in named) == count
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(("up", "learned"), [("fixed", []), ("inner", ["lift.0", "lift.1"]), ("learned", None)])
def test_upsampling_is_learned_where_told(up: str, learned: list[str] | None) -> None:
    network = tiny(2, up=up)
    upsamplers = {n: p for n, p in network.named_parameters() if n.startswith(("lift.", "up."))}
    found = [name.removesuffix(".weight") for name, parameter in upsamplers.items() if parameter.requires_grad]
    assert found == (["lift.0", "lift.1", "up"] if learned is None else learned)


def test_begins_with_scores_of_zero() -> None:
    network = FCNVGG16(FCNVGG16Config(1, 2, widths=(2, 2, 2, 2, 2), head_width=2))
    assert not network(torch.randn(1, 1, 20, 20)).any()


def test_dropout_acts_in_training_alone() -> None:
    network, x = tiny(0), torch.randn(1, 2, 40, 40)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_tiles_equal_the_whole_up_to_every_border(skips: int) -> None:
    """Each tile is padded on all sides: its context hides that at a cut, and a true border is the whole's."""
    network, size = tiny(skips), (905, 39)
    halo = tuple(round_up(side, 32) for side in network.reach)
    x = torch.randn(1, 2, *size)
    with torch.inference_mode():
        whole = network(x)
        tiles = list(cover(size, (608, 64), (halo, halo), (32, 32)))  # type: ignore[arg-type]
        assert network.local
        assert len(tiles) > 2
        for tile in tiles:
            part = network(x[(..., *tile.read)])[(..., *tile.crop)]
            difference = (part - whole[(..., *tile.write)]).abs().max()
            assert difference <= 1e-5 * whole.abs().max()


def test_a_matrix_on_flattened_features_is_a_convolution() -> None:
    matrix, features = torch.randn(11, 6 * 49), torch.randn(4, 6, 7, 7)
    kernel = as_convolution(matrix, 7)
    assert kernel.shape == (11, 6, 7, 7)
    expected = F.linear(features.flatten(1), matrix)
    assert torch.allclose(F.conv2d(features, kernel)[:, :, 0, 0], expected, atol=1e-4)
    assert as_convolution(torch.empty(4096, 25088, device="meta"), 7).shape == (4096, 512, 7, 7)
    with pytest.raises(ValueError, match="50 columns"):
        as_convolution(torch.zeros(2, 50), 7)


def test_a_classifier_becomes_the_network_but_for_its_scores() -> None:
    network = tiny(2)
    state = {n.removeprefix("encoder."): torch.randn_like(t) / 4 for n, t in network.encoder.state_dict().items()}
    for index, (inputs, outputs) in ((0, (8 * 49, 8)), (3, (8, 8)), (6, (8, 10))):
        state[f"classifier.{index}.weight"] = torch.randn(outputs, inputs) / 8
        state[f"classifier.{index}.bias"] = torch.randn(outputs)
    missing, unexpected = network.load_state_dict(from_classifier(state), strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"mean", "std", "head", "score", "lift", "up"}
    assert [name for name in missing if name.startswith("head")] == ["head.score.weight", "head.score.bias"]
    features = torch.randn(5, 8, 7, 7)
    expected = features.flatten(1)
    for index in (0, 3):
        expected = F.relu(F.linear(expected, state[f"classifier.{index}.weight"], state[f"classifier.{index}.bias"]))
    found = network.head[:-1](features)[:, :, 0, 0]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    for index in (0, 28):
        assert torch.equal(network.encoder.features[index].weight, state[f"features.{index}.weight"])


def test_what_is_no_classifier_is_refused_by_the_missing_name() -> None:
    with pytest.raises(ValueError, match=r"classifier\.0\.bias is missing"):
        from_classifier({"classifier.0.weight": torch.zeros(2, 49)})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"widths": (4, 4)}, "widths"), ({"head_width": 0}, "head_width"), ({"dropout": 1.0}, "dropout")],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FCNVGG16(FCNVGG16Config(3, 2, **options))


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_scores_of_each_stride_lie_three_pixels_before_their_cells(skips: int) -> None:
    """The centre of a cell is (stride - 1) / 2 on; pad 100 leaves the whole network 3 px short of it."""
    network, stride = tiny(skips), STRIDES[skips]
    first = Grid(Fraction(stride), PEAKS[skips]).without(network.score_crop)
    assert first.origin == Fraction(stride - 1, 2) - 3
