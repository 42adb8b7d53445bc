"""The U-Net against the same arithmetic in plain functions, against the field's own code, and its parameter counts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import keepmap
from keepmap.config import from_dict, to_dict
from keepmap.errors import OptionError
from keepmap.networks.blocks import AttentionGate, ResidualBlock
from keepmap.networks.norms import NORM
from keepmap.networks.reach import CONVS
from keepmap.networks.unet import UNet, UNetConfig

ODD = [(37, 50), (64, 48), (33, 33), (16, 31), (95, 17)]


def double(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    for index in (0, 1):
        weight = state[f"{name}.{index}.conv.weight"]
        x = F.conv2d(x, weight, state.get(f"{name}.{index}.conv.bias"), padding=1)
        if f"{name}.{index}.norm.weight" in state:
            norm = [state[f"{name}.{index}.norm.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
            x = F.batch_norm(x, *norm)
        x = F.relu(x)
    return x


def plain_unet(state: dict[str, Tensor], x: Tensor, depth: int) -> Tensor:
    """The double-convolution U-Net of the field, its decoder interpolating to the skip's size."""
    skips = [double(state, "stem", x)]
    for level in range(depth):
        skips.append(double(state, f"down.{level}", F.max_pool2d(skips[-1], 2)))
    x = skips.pop()
    for level in range(depth):
        if f"up.{level}.weight" in state:
            x = F.conv_transpose2d(x, state[f"up.{level}.weight"], state[f"up.{level}.bias"], stride=2)
        else:
            x = F.interpolate(x, size=skips[-1].shape[2:], mode="bilinear")
            x = F.conv2d(x, state[f"up.{level}.0.weight"], state[f"up.{level}.0.bias"])
        x = double(state, f"merge.{level}", torch.cat([skips.pop(), x], 1))
    return F.conv2d(x, state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("options", [{}, {"up": "bilinear"}, {"norm": "none"}])
def test_equals_the_networks_arithmetic_in_plain_functions(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = UNet(UNetConfig(3, 4, widths=(6, 8, 10, 12), **options))
    for _ in range(3):
        network(torch.randn(2, 3, 48, 32))
    network.eval()
    x = torch.randn(2, 3, 48, 32)
    with torch.inference_mode():
        assert torch.allclose(network(x), plain_unet(network.state_dict(), x, 3), atol=1e-5)


def test_the_classic_has_the_fields_parameter_count() -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig(3, 2))
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_037_698


@pytest.mark.parametrize(
    ("options", "reach"),
    [({}, 107), ({"up": "bilinear"}, 122), ({"widths": (8,) * 6}, 219), ({"widths": (8,)}, 2)],
)
def test_known_reaches(options: dict[str, Any], reach: int) -> None:
    with torch.device("meta"):
        network = UNet(UNetConfig(3, 2, **options))
    assert network.reach == (reach, reach)
    assert network.stride == 2 ** (len(network.config.widths) - 1)


class FieldDouble(nn.Sequential):
    """The field's double convolution: 3x3 with padding 1, batch norm, ReLU, twice."""

    def __init__(self, inputs: int, outputs: int, middle: int | None = None) -> None:
        middle = middle or outputs
        super().__init__(
            nn.Conv2d(inputs, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class FieldUp(nn.Module):
    """The field's upsample and concatenate: what comes up is zero-padded to the skip by half the difference."""

    def __init__(self, inputs: int, outputs: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = FieldDouble(inputs, outputs, inputs // 2)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
            self.conv = FieldDouble(inputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.conv(torch.cat([skip, x], 1))


class FieldUNet(nn.Module):
    """The most copied U-Net, of four levels below the first, both with learnt and with bilinear upsampling."""

    def __init__(self, width: int, bilinear: bool) -> None:
        super().__init__()
        half = 2 if bilinear else 1
        widths = [width * 2**level for level in range(5)]
        widths[4] //= half
        self.inc = FieldDouble(3, width)
        self.down = nn.ModuleList(FieldDouble(widths[level], widths[level + 1]) for level in range(4))
        outputs = [width, *(widths[level] // half for level in range(1, 4))]
        self.up = nn.ModuleList(FieldUp(2 * width * 2**level, outputs[level], bilinear) for level in (3, 2, 1, 0))
        self.outc = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.inc(x)]
        for down in self.down:
            skips.append(down(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for up in self.up:
            x = up(x, skips.pop())
        return self.outc(x)


def settled(network: nn.Module) -> nn.Module:
    """In eval mode, with statistics of batch norms that are not the identity."""
    for module in network.modules():
        if isinstance(module, tuple(NORM.values())):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("bilinear", [False, True])
def test_match_pad_computes_what_the_fields_own_code_does(bilinear: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs = settled(FieldUNet(4, bilinear))
    widths = (4, 8, 16, 32, 32 if bilinear else 64)
    ours = UNet(UNetConfig(3, 4, widths=widths, match="pad", up="aligned" if bilinear else "transposed")).eval()
    names = [key for key in ours.state_dict() if key not in ("mean", "std")]
    values = list(theirs.state_dict().values())
    order = _our_order(theirs, bilinear)
    assert len(names) == len(values)
    state = dict(zip(names, (theirs.state_dict()[key] for key in order), strict=True))
    ours.load_state_dict({**ours.state_dict(), **state}, strict=True)
    x = torch.randn(2, 3, *size)
    with torch.inference_mode():
        found, want = ours(x), theirs(x)
    assert found.shape == want.shape
    assert float((found - want).abs().max()) <= 1e-4 * float(want.abs().max())


def _our_order(theirs: nn.Module, bilinear: bool) -> list[str]:
    """Their names in the order of ours, which lists all upsamplings before all convolutions of the way up."""
    names = list(theirs.state_dict())
    ups = [] if bilinear else [name for name in names if ".up." in name]
    convs = [name for name in names if name.startswith("up.") and ".conv." in name]
    before = [name for name in names if name.startswith(("inc", "down"))]
    return [*before, *ups, *convs, *[name for name in names if name.startswith("outc")]]


def test_the_fields_bilinear_form_has_its_parameters() -> None:
    with torch.device("meta"):
        ours = UNet(UNetConfig(3, 2, widths=(64, 128, 256, 512, 512), up="aligned", match="pad"))
    assert sum(parameter.numel() for parameter in ours.parameters()) == 17_262_977 + 65


def plain_match(state: dict[str, Tensor], x: Tensor, depth: int, match: str, up: str) -> Tensor:
    """The U-Net whose maps are cropped or resized to fit, in plain functions."""
    skips = [double(state, "stem", x)]
    for level in range(depth):
        skips.append(double(state, f"down.{level}", F.max_pool2d(skips[-1], 2)))
    x = skips.pop()
    for level in range(depth):
        skip = skips.pop()
        if up == "transposed":
            x = F.conv_transpose2d(x, state[f"up.{level}.weight"], state[f"up.{level}.bias"], stride=2)
        else:
            x = F.conv2d(x, state[f"up.{level}.0.weight"], state[f"up.{level}.0.bias"])
        mode = "nearest" if up == "nearest" else "bilinear"
        if match == "resize":
            x = F.interpolate(x, size=skip.shape[2:], mode=mode)
        else:
            x = x if up == "transposed" else F.interpolate(x, scale_factor=2, mode=mode)
            top, left = ((skip.shape[axis] - x.shape[axis]) // 2 for axis in (2, 3))
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        x = double(state, f"merge.{level}", torch.cat([skip, x], 1))
    return F.conv2d(x, state["head.weight"], state["head.bias"])


@pytest.mark.parametrize("size", [(37, 50), (8, 15), (64, 41)])
@pytest.mark.parametrize("up", ["transposed", "bilinear", "nearest"])
def test_match_resize_interpolates_to_the_skip(up: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = settled(UNet(UNetConfig(3, 4, widths=(6, 8, 10, 12), match="resize", up=up)))
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        found, want = network(x), plain_match(network.state_dict(), x, 3, "resize", up)
    assert found.shape == want.shape
    assert torch.allclose(found, want, atol=1e-5)


@pytest.mark.parametrize("size", [(37, 50), (9, 15), (64, 41)])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_match_crop_crops_skips_and_mirrors_the_border_until_the_image_is_covered(
    up: str, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = settled(UNet(UNetConfig(3, 4, widths=(6, 8, 10, 12), match="crop", up=up)))
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        cropped = plain_match(network.state_dict(), x, 3, "crop", up)
        assert cropped.shape[2:] == tuple(side // 8 * 8 for side in size), "without a border it would be too small"
        assert torch.allclose(network.core(x), cropped, atol=1e-5)
        missing = [max(16, -(-side // 8) * 8) - side for side in size]
        bordered = F.pad(x, (0, missing[1], 0, missing[0]), mode="reflect")
        want = plain_match(network.state_dict(), bordered, 3, "crop", up)[:, :, : size[0], : size[1]]
        assert torch.allclose(network(x), want, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "padded"),
    [
        ({}, (16, 40)),
        ({"match": "crop"}, (16, 40)),
        ({"match": "pad"}, (8, 37)),
        ({"match": "resize"}, (8, 37)),
        ({"match": "pad", "norm": "instance"}, (16, 37)),
    ],
)
def test_only_multiple_and_crop_enlarge_the_image_to_the_stride(
    options: dict[str, Any], padded: tuple[int, int]
) -> None:
    assert UNet(UNetConfig(1, 2, widths=(2, 2, 2, 2), **options)).padded((3, 37)) == padded


@pytest.mark.parametrize("match", ["multiple", "pad", "crop", "resize"])
def test_where_nothing_has_to_be_matched_all_ways_agree(match: str) -> None:
    torch.manual_seed(0)
    plain = settled(UNet(UNetConfig(3, 4, widths=(6, 8, 10))))
    network = UNet(UNetConfig(3, 4, widths=(6, 8, 10), match=match)).eval()
    network.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 16, 24)
    with torch.inference_mode():
        assert torch.allclose(network(x), plain(x), atol=1e-5)


def test_deep_supervision_returns_the_logits_and_those_of_levels_below() -> None:
    torch.manual_seed(0)
    network = settled(UNet(UNetConfig(3, 4, widths=(6, 8, 10, 12), deep=2)))
    x = torch.randn(2, 3, 37, 50)
    with torch.inference_mode():
        found = network.forward_deep(x)
        assert torch.equal(found[0], network(x))
    assert [tuple(logits.shape) for logits in found] == [(2, 4, 37, 50), (2, 4, 19, 25), (2, 4, 10, 13)]
    assert [head.weight.shape[1] for head in network.deep] == [8, 10]
    assert all(logits.shape[2:] for logits in UNet(UNetConfig(3, 2, widths=(4, 4))).forward_deep(x))


@pytest.mark.parametrize(
    ("levels", "deep", "weights"),
    [(2, 0, ()), (5, 0, ()), (5, 1, (2 / 3, 1 / 3)), (5, 2, (4 / 7, 2 / 7, 1 / 7)), (5, 3, (4 / 7, 2 / 7, 1 / 7, 0))],
)
def test_heads_weigh_as_in_nnunet(levels: int, deep: int, weights: tuple[float, ...]) -> None:
    heads = UNet(UNetConfig(3, 4, widths=(4,) * levels, deep=deep)).deep_heads
    assert [stride for stride, _ in heads] == [2**level for level in range(len(weights))]
    assert [weight for _, weight in heads] == pytest.approx(weights)


def test_deep_logits_are_those_of_their_level() -> None:
    """With the finer levels poisoned, a deeper head still sees numbers: it hangs on its own level."""
    torch.manual_seed(0)
    network = settled(UNet(UNetConfig(3, 4, widths=(6, 8, 10), deep=1)))
    nn.init.constant_(network.merge[-1][0].conv.weight, float("nan"))
    with torch.inference_mode():
        fine, coarse = network.forward_deep(torch.randn(1, 3, 20, 20))
    assert fine.isnan().all()
    assert coarse.isfinite().all()


def test_deep_supervision_trains_every_parameter() -> None:
    torch.manual_seed(0)
    network = UNet(UNetConfig(3, 4, widths=(6, 8, 10), deep=1))
    loss = sum((logits * torch.randn_like(logits)).sum() for logits in network.forward_deep(torch.randn(4, 3, 32, 32)))
    loss.backward()
    assert [name for name, value in network.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("match", ["pad", "resize"])
def test_deep_logits_without_padding_have_the_levels_own_extent(match: str) -> None:
    network = UNet(UNetConfig(3, 2, widths=(4, 4, 4), deep=1, match=match)).eval()
    assert [logits.shape[2:] for logits in network.forward_deep(torch.randn(1, 3, 21, 30))] == [(21, 30), (10, 15)]


def test_the_residual_encoder_is_that_of_nnunet() -> None:
    config = UNetConfig(3, 2, residual_encoder=512)
    assert config.widths == (32, 64, 128, 256, 512, 512, 512, 512)
    assert config.blocks == (1, 3, 4, 6, 6, 6, 6, 6)
    assert [len(UNetConfig(1, 2, residual_encoder=patch).widths) for patch in (1, 256, 320)] == [1, 7, 7]
    assert from_dict(UNetConfig, to_dict(config), "unet") == config
    with pytest.raises(OptionError, match=r"(?s)residual_encoder of unet sets norm.*norm=group.*norm=instance"):
        UNetConfig(3, 2, residual_encoder=512, norm="group")
    with pytest.raises(OptionError, match="a side in pixels"):
        UNetConfig(3, 2, residual_encoder=-1)
    with torch.device("meta"):
        network = UNet(config)
    blocks = [sum(isinstance(part, ResidualBlock) for part in level) for level in (network.stem, *network.down)]
    assert blocks == [1, 3, 4, 6, 6, 6, 6, 6]
    convolutions = [sum(isinstance(layer, CONVS) for layer in merge.modules()) for merge in network.merge]
    assert convolutions == [1] * 7
    assert not network.local
    assert network.stride == 128


def test_the_residual_encoder_has_the_parameters_of_its_layers() -> None:
    """Counted from the description: 3x3 convolutions, projections where channels change, and norms."""
    with torch.device("meta"):
        network = keepmap.build_model("unet", channels=3, classes=5, residual_encoder=64)
    config = network.config
    widths, total, inputs = config.widths, 3 * 32 * 9 + 2 * 32, 32
    for width, count in zip(widths, config.blocks, strict=True):
        total += 9 * inputs * width + 9 * width * width + 4 * width + (count - 1) * (18 * width * width + 4 * width)
        total += inputs * width + 2 * width if inputs != width else 0
        inputs = width
    for outer, inner in zip(widths[:0:-1], widths[-2::-1], strict=True):
        total += 4 * outer * inner + inner + 9 * 2 * inner * inner + 2 * inner
    total += 32 * 5 + 5
    assert sum(parameter.numel() for parameter in network.parameters()) == total


def test_the_residual_encoder_runs_at_small_width() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(
        UNetConfig(2, 3, residual_encoder=64), residual_encoder=0, widths=(4, 6, 8, 10, 12)
    )
    network = UNet(config).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 2, 45, 70)).isfinite().all()


def test_attention_gates_hang_on_the_level_below() -> None:
    torch.manual_seed(0)
    network = settled(UNet(UNetConfig(3, 4, widths=(6, 8, 10), attention=True)))
    plain = UNet(UNetConfig(3, 4, widths=(6, 8, 10))).eval()
    plain.load_state_dict(network.state_dict(), strict=False)
    assert [gate.theta.in_channels for gate in network.gate] == [8, 6]
    assert all(isinstance(gate, AttentionGate) for gate in network.gate)
    for gate in network.gate:
        nn.init.zeros_(gate.psi.weight)
        nn.init.constant_(gate.psi.bias, 40.0)
    x = torch.randn(1, 3, 16, 24)
    with torch.inference_mode():
        assert torch.allclose(network(x), plain(x), atol=1e-5), "gates that are wide open change nothing"
        nn.init.constant_(network.gate[0].psi.bias, -40.0)
        assert not torch.allclose(network(x), plain(x), atol=1e-3)


@pytest.mark.parametrize("options", [{"context": True}, {"norm": "instance"}, {"norm": "group"}])
def test_what_sees_the_whole_image_is_said_and_the_reach_is_that_of_the_rest(options: dict[str, Any]) -> None:
    with torch.device("meta"):
        network, plain = UNet(UNetConfig(3, 2, **options)), UNet(UNetConfig(3, 2))
    assert plain.local
    assert not network.local
    assert network.reach == plain.reach == (107, 107)


def test_names_of_weights_are_those_of_earlier_runs() -> None:
    names = UNet(UNetConfig(3, 2, widths=(4, 6))).state_dict()
    for name in ("stem.0.conv.weight", "down.0.1.norm.running_var", "up.0.bias", "merge.0.0.conv.weight", "head.bias"):
        assert name in names
    assert len(names) == 2 + 6 * 6 + 2 + 2


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": (1, 2)},
        {"blocks": (0,)},
        {"blocks": ()},
        {"decoder_blocks": (1, 2, 3)},
        {"deep": 4},
        {"deep": -1},
        {"match": "pad", "attention": True},
        {"match": "crop", "down": "stride"},
        {"up": "bilinear", "up_init": "bilinear"},
        {"up_init": "bilinear"},
    ],
)
def test_fields_that_do_not_go_together_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError), torch.device("meta"):
        UNet(UNetConfig(3, 2, **options))


@pytest.mark.parametrize("options", [{"widths": ()}, {"widths": (4, 0)}, {"up_kernel": 3}, {"up_padding": 1}])
def test_impossible_configurations_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        UNet(UNetConfig(3, 2, **options))
