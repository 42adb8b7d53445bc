"""Training with parts computed twice against the plain one: every bit of loss, gradients, buffers and weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.footprint import Ledger
from keepmap.networks.layers import conv
from keepmap.networks.network import Network
from keepmap.networks.norms import NORM
from keepmap.networks.recompute import Recomputing, in_turn, recomputed
from keepmap.networks.trace import steps_of

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {"widths": (4, 6, 8), "deep": 1}),
    "unet residual": ("unet", {"widths": (4, 6, 8), "block": "residual", "attention": True, "context": True}),
    "unet instance": ("unet", {"widths": (4, 6, 8), "norm": "instance", "act": "silu", "match": "pad"}),
    "encoder_unet": ("encoder_unet", {"widths": (12, 10, 8, 6, 4)}),
    "encoder_unet lite0": ("encoder_unet", {"widths": (12, 10, 8, 6, 4), "encoder": "efficientnet_lite0"}),
    "fcn": ("fcn", {"head_width": 8, "encoder": "vgg11_bn"}),
    "fcn_vgg16": ("fcn_vgg16", {"widths": (4, 4, 6, 6, 8), "head_width": 8, "up": "learned"}),
    "fcn_dilated": ("fcn_dilated", {"width": 4, "aux": True}),
    "unet2015": ("unet2015", {"widths": (4, 6, 8)}),
}
"""Batch norm in six of them, dropout in three, and every network."""


def twins(case: str) -> tuple[Network, Network]:
    """The network of a case, plain and recomputing, with the same weights."""
    torch.manual_seed(0)
    name, options = CASES[case]
    plain = build_network(name, channels=2, classes=3, options=options)
    for parameter in plain.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return plain.train(), recomputing(plain)


def recomputing(plain: Network) -> Network:
    config: Any = dataclasses.replace(cast(Any, plain.config), checkpointing=True)
    other = type(plain)(config).train()
    other.load_state_dict(plain.state_dict())
    return other


def trained(network: Network, *, half: bool = False) -> list[Tensor]:
    """Three steps; the loss and all gradients, buffers and weights after each."""
    torch.manual_seed(1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    deep = getattr(network, "forward_deep", None)
    found = []
    for step in range(3):
        x = torch.randn(2, 2, 40, 33, generator=torch.Generator().manual_seed(step))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = deep(x) if deep is not None else [network(x)]
            loss = torch.stack([each.float().logsumexp(1).mean() - each.float()[:, 1].mean() for each in logits]).sum()
        optimiser.zero_grad()
        loss.backward()
        found += [loss.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
        optimiser.step()
        found += [value.detach().clone() for value in network.state_dict().values()]
    assert torch.rand(1).isfinite()
    return [*found, torch.get_rng_state()]


def test_the_cases_cover_every_network() -> None:
    assert {name for name, _ in CASES.values()} == set(NETWORKS)
    layers = [type(layer) for case in CASES for layer in twins(case)[0].modules()]
    assert layers.count(nn.Dropout) >= 4
    assert layers.count(NORM[2]) > 50


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_loss_gradients_and_buffers_are_those_of_the_plain_run(case: str, half: bool) -> None:
    plain, other = twins(case)
    want, found = trained(plain, half=half), trained(other, half=half)
    assert len(found) == len(want)
    assert [index for index, pair in enumerate(zip(found, want, strict=True)) if not torch.equal(*pair)] == []


def test_an_encoder_of_timm_is_one_part(peers: None) -> None:
    torch.manual_seed(0)
    options = {"encoder": "timm:test_resnet", "widths": (12, 10, 8, 6, 4), "stem_skip": False}
    plain = build_network("encoder_unet", channels=2, classes=3, options=options).train()
    other = recomputing(plain)
    want, found = trained(plain), trained(other)
    assert all(torch.equal(*pair) for pair in zip(found, want, strict=True))
    assert len({step.part for step in steps_of(plain)}) == 1 + 1 + 5


@pytest.mark.parametrize("case", CASES)
def test_what_the_parts_hold_is_not_kept(case: str) -> None:
    """All that is not kept lies in parts: none of the layers before the heads is left out."""
    kept = []
    for network in twins(case):
        with Ledger(network) as counts:
            logits = network(torch.zeros(2, 2, 64, 64))
            kept.append(counts.now - logits.nbytes)
    assert kept[1] < 0.5 * kept[0]


@pytest.mark.parametrize("case", ["unet", "fcn"])
def test_elsewhere_the_plain_way_is_taken(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, other = twins(case)

    def refuse(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("a part was to be recomputed")

    monkeypatch.setattr("keepmap.networks.recompute.checkpoint", refuse)
    x = torch.randn(2, 2, 64, 64)
    steps, same = steps_of(other), steps_of(plain)
    assert [(step.kind, step.inputs, step.part) for step in steps] == [(s.kind, s.inputs, s.part) for s in same]
    assert max(step.part for step in steps) > 4
    with torch.no_grad():
        other(x)
    graph = torch.compile(other, backend="eager", fullgraph=True)
    torch.compiler.reset()
    assert graph(x).requires_grad
    torch.compiler.reset()
    assert torch.equal(other.eval()(x), _copied(plain, other)(x))
    with pytest.raises(AssertionError, match="recomputed"):
        other.train()(x)


def _copied(plain: Network, other: Network) -> Network:
    plain.load_state_dict(other.state_dict())
    return plain.eval()


class Small(nn.Module):
    """One part of a convolution and a norm, then something that fails or not when it is computed again."""

    def __init__(self, ending: Callable[[Tensor], Tensor], momentum: float | None = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv(1, 2), NORM[2](2, momentum=momentum), nn.ReLU())
        self.checkpointing = True
        self.ending = ending
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        def part(values: list[Tensor]) -> Tensor:
            self.calls += 1
            return self.ending(in_turn(self.layers)(values))

        values = [x]
        y = recomputed(cast(Recomputing, self), part, values)
        assert not values
        return y

    @property
    def norm(self) -> Any:
        return self.layers[1]


def test_statistics_are_tracked_again_after_an_error() -> None:
    network = Small(lambda y: y * y)
    loss = network(torch.randn(2, 1, 8, 8)).sum()

    def fail(y: Tensor) -> Tensor:
        raise MemoryError

    network.ending = fail
    with pytest.raises(MemoryError):
        loss.backward()
    assert network.norm.momentum == 0.1
    assert int(network.norm.num_batches_tracked) == 1
    network.ending = lambda y: y
    network(torch.randn(2, 1, 8, 8))
    assert int(network.norm.num_batches_tracked) == 2


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_retained_graph_is_computed_once_more(momentum: float | None) -> None:
    network = Small(lambda y: y * y, momentum)
    loss = network(torch.randn(2, 1, 8, 8)).sum()
    mean = network.norm.running_mean.clone()
    first = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(network.parameters()))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert network.calls == 3
    assert torch.equal(network.norm.running_mean, mean)
    assert int(network.norm.num_batches_tracked) == 1


def test_a_norm_with_fixed_statistics_uses_them_again() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = Small(lambda y: y * y).train()
        network.checkpointing = checkpointing
        network.norm.eval().running_mean.fill_(0.3)
        network(torch.randn(2, 1, 8, 8)).sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
