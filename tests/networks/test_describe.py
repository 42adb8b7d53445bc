"""The described extents, bytes and operations against a run that counts them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.describe import describe, multiply_adds, parameters, peak_bytes, summarise
from keepmap.networks.footprint import Ledger
from keepmap.networks.grid import extents_of
from keepmap.networks.network import Network
from keepmap.networks.reach import fields_of
from keepmap.networks.trace import steps_of

CASES: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"widths": (8, 16, 24)}),
    ("unet", {"widths": (8, 16, 24), "up": "bilinear", "norm": "none"}),
    ("encoder_unet", {}),
    ("encoder_unet", {"encoder": "efficientnet_lite0"}),
    ("fcn", {"encoder": "resnet50"}),
    ("unet", {"widths": (8, 16, 24), "norm": "instance", "act": "silu", "up": "nearest"}),
    ("unet", {"widths": (8, 16, 24), "block": "residual", "down": "stride", "act": "leaky_relu"}),
    ("unet", {"widths": (8, 16, 24), "attention": True, "context": True}),
    ("unet", {"widths": (8, 16, 24), "match": "pad", "norm": "group", "act": "gelu"}),
    ("unet", {"widths": (8, 16, 24), "match": "resize", "up": "bilinear"}),
    ("unet2015", {"widths": (8, 12, 16)}),
    ("fcn_vgg16", {"widths": (8, 8, 12, 12, 16), "head_width": 32, "at_once": True}),
    ("fcn_dilated", {"width": 16}),
    ("encoder_unet", {"encoder": "timm:convnext_atto"}),
    ("encoder_unet", {"encoder": "timm:mobilenetv3_small_050"}),
    ("fcn", {"encoder": "timm:test_convnext3"}),
    ("fcn", {"classifier": "kept"}),
]
SIZE = (90, 130)


@pytest.fixture(params=CASES, ids=str)
def network(request: pytest.FixtureRequest) -> Network:
    name, options = request.param
    if options.get("encoder", "").startswith("timm:"):
        request.getfixturevalue("peers")
    return build_network(name, channels=3, classes=4, options=options).eval()


def test_channels_and_extents_are_those_of_a_run(network: Network) -> None:
    found: list[tuple[int, ...]] = []
    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    hooks = [leaf.register_forward_hook(lambda m, a, y: found.append(tuple(y.shape[1:]))) for leaf in leaves]
    with torch.inference_mode():
        network(torch.zeros(1, 3, *SIZE))
    for hook in hooks:
        hook.remove()
    described = zip(steps_of(network), fields_of(network), extents_of(network, SIZE), strict=True)
    layers = [(field.channels, *extent) for step, field, extent in described if step.kind == "layer"]
    assert found == layers


def test_peak_in_inference_is_that_of_a_run_or_little_more(network: Network) -> None:
    x = torch.zeros(1, 3, *SIZE)
    with torch.inference_mode(), Ledger(network) as ledger:
        network(x)
    promised = peak_bytes(network, SIZE)
    assert ledger.peak <= promised <= 1.2 * (ledger.peak + x.nbytes) + 4 * x.nbytes


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_memory_of_training_is_that_of_a_run_or_little_more(network: Network, checkpointing: bool) -> None:
    """Between forward and backward to a tenth, the peak from above, to 0.6; a little more for channelwise layers."""
    least, most = (0.75, 1.7) if "convnext" in str(network.config) else (0.9, 1.6)
    network = _with(network, checkpointing=checkpointing).train()
    x = torch.zeros(2, 3, *SIZE)
    with Ledger(network) as ledger:
        loss = network(x).sum()
        between = ledger.now
        loss.backward()
    largest = max(parameter.nbytes for parameter in network.parameters())
    kept = 2 * sum(row.training_bytes for row in describe(network, SIZE))
    assert least * kept <= between <= 1.1 * kept + 4 * x.nbytes
    promised = 2 * peak_bytes(network, SIZE, training=True)
    assert ledger.peak - largest <= promised <= most * ledger.peak


def _with(network: Network, **fields: Any) -> Network:
    return type(network)(dataclasses.replace(network.config, **fields))  # type: ignore[type-var, call-arg, arg-type]


def test_the_classic_recomputed_keeps_a_fifth_and_peaks_below_half() -> None:
    """Of the network alone, at 512 px: 3.8 of 20.4 times a full map of 64 MiB kept, 10.8 of 22.4 at the peak."""
    with torch.device("meta"):
        plain = build_network("unet", channels=3, classes=2)
        classic = build_network("unet", channels=3, classes=2, options={"checkpointing": True})
    kept = [sum(row.training_bytes for row in describe(each, (512, 512))) / 2**26 for each in (plain, classic)]
    assert kept == pytest.approx([20.4, 3.8], abs=0.1)
    peaks = [peak_bytes(each, (512, 512), training=True) for each in (plain, classic)]
    assert peaks[1] < 0.6 * peaks[0]


def test_operations_are_those_that_torch_counts(network: Network) -> None:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *SIZE))
    assert multiply_adds(network, SIZE) == pytest.approx(counter.get_total_flops() / 2, rel=1e-6)


def test_the_classic_at_512_px() -> None:
    with torch.device("meta"):
        classic = build_network("unet", channels=3, classes=2)
    assert parameters(classic) == 31_037_698
    assert round(2e-9 * multiply_adds(classic, (512, 512))) == 385
    rows = describe(classic, (361, 479))
    assert [row.level for row in rows] == [0, 1, 2, 3, 4]
    assert [row.size for row in rows] == [(368, 480), (184, 240), (92, 120), (46, 60), (23, 30)]
    assert [row.padding for row in rows] == [(7, 1), (3, 0), (1, 0), (0, 0), (0, 0)]
    assert [row.channels for row in rows] == [64, 128, 256, 512, 1024]
    assert [row.reach for row in rows] == [(2, 2), (6, 6), (14, 14), (30, 30), (62, 62)]
    assert [row.skip_bytes for row in rows] == [4 * 64 * 368 * 480 // 2**level for level in range(4)] + [0]


def test_bytes_follow_the_width_of_a_value(network: Network) -> None:
    single, half = describe(network, SIZE), describe(network, SIZE, bytes_per_value=2)
    for one, other in zip(single, half, strict=True):
        assert (one.skip_bytes, one.inference_bytes) == (2 * other.skip_bytes, 2 * other.inference_bytes)
        assert other.training_bytes <= one.training_bytes <= 2 * other.training_bytes
        assert one.skip_bytes <= one.inference_bytes


def test_skips_of_an_encoder_are_its_features() -> None:
    with torch.device("meta"):
        network = build_network("encoder_unet", channels=3, classes=2, options={"encoder": "efficientnet_lite0"})
    assert [row.channels for row in describe(network, (64, 64))][:5] == [8, 16, 24, 40, 112]


def test_the_reference_fcn_is_described_with_its_padding() -> None:
    with torch.device("meta"):
        network = build_network("fcn_vgg16", channels=3, classes=21)
    rows = describe(network, (500, 375))
    assert [row.stride for row in rows] == [1, 2, 4, 8, 16, 32]
    assert rows[0].size == (698, 573)
    assert rows[0].padding == (198, 198)
    assert [row.channels for row in rows][:5] == [64, 128, 256, 256, 512], "pool3 and pool4 are the skips"
    assert rows[5].size == (16, 12)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_summary_for_each_network(name: str) -> None:
    row = summarise(name)
    assert row.name == name
    assert row.parameters > 1_000_000
    assert row.stride in (8, 16, 32)
    assert min(row.reach) > 100
    assert row.summary.endswith(".")
