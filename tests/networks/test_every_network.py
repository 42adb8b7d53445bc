"""One contract for all networks: what holds for each of them at every size, layout, dtype and place in the image."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from keepmap.networks.catalogue import NETWORKS, build_network, network_recipe
from keepmap.networks.contract import CLAUSES, check_clause
from keepmap.networks.network import Network
from keepmap.networks.norms import NORM

NARROW = (12, 10, 8, 6, 4)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {"widths": (4, 6, 8)}),
    "unet bilinear": ("unet", {"widths": (4, 6, 8, 6), "up": "bilinear"}),
    "unet without norm": ("unet", {"widths": (4, 6), "norm": "none"}),
    "unet 4/1/0": ("unet", {"widths": (4, 6, 8), "up_kernel": 4, "up_padding": 1}),
    "unet 3/1/1": ("unet", {"widths": (4, 6, 8), "up_kernel": 3, "up_padding": 1, "up_output_padding": 1}),
    "unet of one level": ("unet", {"widths": (5,)}),
    "encoder_unet": ("encoder_unet", {"widths": NARROW}),
    "encoder_unet transposed": ("encoder_unet", {"widths": NARROW, "up": "transposed", "stem_skip": False}),
    "encoder_unet lite0": ("encoder_unet", {"widths": NARROW, "encoder": "efficientnet_lite0"}),
    "fcn-32s": ("fcn", {"skips": 0, "head_width": 8}),
    "fcn-16s lite0": ("fcn", {"skips": 1, "head_width": 8, "encoder": "efficientnet_lite0"}),
    "fcn-8s lite0": ("fcn", {"skips": 2, "head_width": 8, "encoder": "efficientnet_lite0"}),
}
PAPER = {"widths": (4, 4, 6, 6, 8), "head_width": 8}
CASES |= {
    "paper 32s": ("fcn_vgg16", {"skips": 0, **PAPER}),
    "paper 16s learned": ("fcn_vgg16", {"skips": 1, "up": "learned", **PAPER}),
    "paper 8s at once": ("fcn_vgg16", {"skips": 2, "at_once": True, **PAPER}),
    "dilated": ("fcn_dilated", {"width": 4}),
}
CASES |= {
    "unet2015": ("unet2015", {"widths": (4, 6, 8)}),
    "unet2015 of the paper's depth": ("unet2015", {"widths": (4, 4, 4, 6, 6)}),
    "unet instance": ("unet", {"widths": (4, 6, 8), "norm": "instance", "act": "leaky_relu"}),
    "unet group": ("unet", {"widths": (4, 6, 8), "norm": "group", "act": "gelu"}),
    "unet context": ("unet", {"widths": (4, 6, 8), "context": True}),
    "unet silu nearest": ("unet", {"widths": (4, 6, 8), "act": "silu", "up": "nearest"}),
    "unet residual": ("unet", {"widths": (4, 6, 8), "block": "residual", "blocks": (1, 2, 2), "decoder_blocks": (1,)}),
    "unet residual strided": ("unet", {"widths": (4, 6, 8), "block": "residual", "down": "stride", "act": "gelu"}),
    "unet strided": ("unet", {"widths": (4, 6, 8), "down": "stride", "blocks": (1, 3, 2), "decoder_blocks": (2, 1)}),
    "unet attention": ("unet", {"widths": (4, 6, 8), "attention": True}),
    "unet begins bilinear": ("unet", {"widths": (4, 6), "up_kernel": 4, "up_padding": 1, "up_init": "bilinear"}),
    "unet pad": ("unet", {"widths": (4, 6, 8, 8), "match": "pad"}),
    "unet crop": ("unet", {"widths": (4, 6, 8), "match": "crop"}),
    "unet resize": ("unet", {"widths": (4, 6, 8), "match": "resize", "up": "nearest"}),
    "unet aligned": ("unet", {"widths": (4, 6, 8, 8), "match": "pad", "up": "aligned"}),
    "encoder_unet nearest": ("encoder_unet", {"widths": NARROW, "up": "nearest"}),
    "encoder_unet to stride 4": ("encoder_unet", {"widths": (12, 10, 8)}),
    "fcn with a kept classifier": ("fcn", {"classifier": "kept", "skips": 1}),
    "encoder_unet resize": (
        "encoder_unet",
        {"widths": NARROW, "up": "nearest", "narrow": False, "match": "resize", "stem_skip": False, "head_kernel": 3},
    ),
}
NOT_LOCAL = {"unet instance", "unet group", "unet context", "unet resize", "unet aligned"}
CHANNELS, CLASSES = 2, 3
FAMILIES = ("unet", "encoder_unet lite0", "fcn-32s", "paper 8s at once", "dilated", "unet2015")
"""A case of each network, for the clauses that take longest."""
GRAPHS = [clause for clause in CLAUSES if clause in ("compile", "export")]
_FRESH: dict[str, Network] = {}
_BUILT: dict[str, Network] = {}


@pytest.fixture(params=CASES)
def network(request: pytest.FixtureRequest) -> Network:
    """One network per case in eval mode, with norm statistics that are not the identity; tests do not change it."""
    return built(request.param)


def fresh(case: str) -> Network:
    """As it begins, but for its normalisation."""
    if case not in _FRESH:
        torch.manual_seed(0)
        name, options = CASES[case]
        made = build_network(name, channels=CHANNELS, classes=CLASSES, options=options)
        made.set_normalisation([100.0, 50.0], [60.0, 30.0])
        _FRESH[case] = made
    return _FRESH[case]


def built(case: str) -> Network:
    if case not in _BUILT:
        made = copy.deepcopy(fresh(case)).eval()
        torch.manual_seed(0)
        for parameter in made.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        for module in made.modules():
            if isinstance(module, tuple(NORM.values())):
                torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.2, 0.2)
        _BUILT[case] = made
    return _BUILT[case]


def image(*size: int, count: int = 1, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, CHANNELS, *size), generator=generator).float()


@torch.inference_mode()
def run(network: Network, x: Tensor) -> Tensor:
    return network(x)


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    """Within `tolerance` of the largest absolute logit."""
    return float((one.float() - other.float()).abs().max()) <= tolerance * float(other.abs().max())


def test_every_network_has_a_case() -> None:
    assert {name for name, _ in CASES.values()} == set(NETWORKS)
    assert [CASES[case][0] for case in FAMILIES] == list(NETWORKS)


@pytest.mark.parametrize("clause", [clause for clause in CLAUSES if clause not in GRAPHS])
@pytest.mark.parametrize("case", CASES)
def test_the_contract_holds(case: str, clause: str) -> None:
    check_clause(fresh(case), clause)


@pytest.mark.parametrize("clause", GRAPHS)
@pytest.mark.parametrize("case", FAMILIES)
def test_one_graph_computes_every_size(case: str, clause: str) -> None:
    check_clause(fresh(case), clause)


def test_bfloat16_weights_give_nearly_the_same_logits(network: Network) -> None:
    name, options = network_recipe(network)
    half = build_network(name, channels=CHANNELS, classes=CLASSES, options=options).eval()
    half.load_state_dict(network.state_dict())
    half = half.to(torch.bfloat16)
    x = image(64, 50)
    logits = run(half, x)
    assert logits.dtype == torch.bfloat16
    assert half.mean.dtype == half.std.dtype == torch.float32
    difference = (logits.float() - run(network, x)).abs().mean()
    assert difference < 0.1 * run(network, x).abs().mean()


def test_autocast_gives_nearly_the_same_logits(network: Network) -> None:
    x = image(64, 50)
    with torch.autocast("cpu", torch.bfloat16):
        logits = run(network, x)
    assert (logits.float() - run(network, x)).abs().mean() < 0.1 * run(network, x).abs().mean()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float64])
def test_raw_values_of_any_dtype_give_the_same_logits(network: Network, dtype: torch.dtype) -> None:
    x = image(20, 30)
    assert torch.equal(run(network, x.to(dtype)), run(network, x))


def test_a_network_is_built_again_from_its_recipe(network: Network) -> None:
    name, options = network_recipe(network)
    again = build_network(name, channels=CHANNELS, classes=CLASSES, options=options).eval()
    assert again.config == network.config
    again.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(run(again, image(33, 20)), run(network, image(33, 20)))


@pytest.mark.parametrize("case", sorted(NOT_LOCAL))
def test_a_tile_of_what_is_not_local_differs_from_the_whole(case: str) -> None:
    network = built(case)
    stride = network.stride
    halo = [-(-side // stride) * stride for side in network.reach]
    start = halo[0] + 2 * stride
    stop = start + stride + 5
    x = image(stop + halo[1] + 2 * stride + 3, 2 * stride + 7)
    whole = run(network, x)
    tile = run(network, x[:, :, start - halo[0] : stop + halo[1]])[:, :, halo[0] : halo[0] + stop - start]
    assert not close(tile, whole[:, :, start:stop])


@pytest.mark.parametrize("case", CASES)
def test_a_network_says_whether_it_is_local(case: str) -> None:
    assert built(case).local == (case not in NOT_LOCAL)


@pytest.mark.parametrize("case", ["unet instance", "unet group", "unet context"])
def test_one_pixel_of_what_sees_the_whole_image_changes_every_other(case: str) -> None:
    network = built(case)
    x = image(64 * network.stride, 1)
    x[:, :, 0] = float("nan")
    assert run(network, x).isnan().all()
