"""The engine: a step against plain torch, exact state round trips, a loss that is no number changes nothing."""

import copy
import itertools
import math
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keepmap.errors import OutOfMemory
from keepmap.networks.catalogue import build_network
from keepmap.networks.network import Network
from keepmap.planning.plan import Plan
from keepmap.training import loss as loss_module
from keepmap.training.engine import Engine, learning_rate
from keepmap.training.loss import cross_entropy_dice


def small_network() -> Network:
    torch.manual_seed(0)
    return build_network("unet", channels=1, classes=3, options={"widths": [4, 8]})


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 1, 16, 16, generator=generator), torch.randint(0, 3, (2, 16, 16), generator=generator)


def test_a_float32_step_equals_plain_adamw() -> None:
    network = small_network()
    plain = copy.deepcopy(network).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0)
    engine = Engine(network, device="cpu", precision="float32", weight_decay=0.0)
    for seed in range(3):
        x, y = batch(seed)
        loss = cross_entropy_dice(plain(x.contiguous(memory_format=torch.channels_last)), y)
        assert engine.step(x, y, 1e-3) == pytest.approx(loss.item(), rel=1e-6)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for mine, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_norms_and_biases_do_not_decay() -> None:
    engine = Engine(small_network(), device="cpu", precision="float32", weight_decay=0.5)
    decayed, plain = engine.optimiser.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in plain["params"]} == {1}


def test_state_goes_on_bit_for_bit() -> None:
    whole = Engine(small_network(), device="cpu", precision="float32", weight_decay=1e-2)
    first = Engine(small_network(), device="cpu", precision="float32", weight_decay=1e-2)
    for seed in range(2):
        whole.step(*batch(seed), 1e-2)
        first.step(*batch(seed), 1e-2)
    second = Engine(small_network(), device="cpu", precision="float32", weight_decay=1e-2)
    second.restore(first.state())
    for seed in range(2, 5):
        assert whole.step(*batch(seed), 1e-2) == second.step(*batch(seed), 1e-2)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    engine = Engine(small_network(), device="cpu", precision="float32", weight_decay=1e-2)
    engine.step(*batch(), 1e-2)
    before = {name: t.clone() for name, t in engine.network.state_dict().items()}
    x, y = batch()
    x[0, 0, 0, 0] = float("nan")
    assert not torch.isfinite(torch.tensor(engine.step(x, y, 1e-2)))
    for name, tensor in engine.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Pointwise(nn.Module):
    """Two heads without batch statistics; the second, at half the extent, sees other labelled pixels."""

    deep_heads = ((1, 0.75), (2, 0.25))

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.layer(x)
        return scores

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        return [self(x), self(x)[:, :, ::2, ::2]]


def uneven_batch() -> tuple[Tensor, Tensor]:
    """Five crops, one without a labelled pixel, one with few."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 1, 16, 16, generator=generator), torch.randint(0, 3, (5, 16, 16), generator=generator)
    y[1], y[3, 2:] = -1, -1
    return x, y


@pytest.mark.parametrize("heads", [Pointwise.deep_heads, ()])
def test_the_gradient_of_parts_is_that_of_the_whole_batch(
    heads: tuple[tuple[int, float], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of cross-entropy; Dice is not additive, its share in the loss is left out here."""
    monkeypatch.setattr(loss_module, "_dice", lambda *_: torch.zeros(()))
    monkeypatch.setattr(Pointwise, "deep_heads", heads)
    found = []
    for micro in (0, 1, 2, 5, 9):
        engine = Engine(Pointwise(), device="cpu", precision="float32", weight_decay=0.0)
        engine.micro = micro
        value = engine.step(*uneven_batch(), 1e-3)
        found.append((value, [p.grad for p in engine.network.parameters()]))
    for value, gradients in found[1:]:
        assert value == pytest.approx(found[0][0], rel=1e-6)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-5, atol=1e-7)


def test_dice_of_parts_counts_by_the_crops() -> None:
    """Parts of two, two and one: the loss is the one that is written down here."""
    x, y = uneven_batch()
    engine = Engine(Pointwise(), device="cpu", precision="float32", weight_decay=0.0)
    engine.heads, engine.micro = (), 2
    logits, labelled = engine.network(x).detach(), (y >= 0).sum()
    expected = F.cross_entropy(logits, y, ignore_index=-1)
    for part in (slice(0, 2), slice(2, 4), slice(4, 5)):
        z, t = logits[part], y[part]
        dice = cross_entropy_dice(z, t) - F.cross_entropy(z, t, ignore_index=-1)
        expected = expected + dice * len(t) / len(y)
    assert labelled < y.numel()
    assert engine.step(x, y, 1e-3) == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("broken", [0, 4])
def test_one_bad_part_leaves_the_whole_step_out(broken: int) -> None:
    engine = Engine(small_network(), device="cpu", precision="float32", weight_decay=1e-2)
    engine.micro = 2
    before = {name: t.clone() for name, t in engine.network.state_dict().items()}
    x, y = uneven_batch()
    assert math.isfinite(engine.step(x, y, 0.0))
    engine.network.load_state_dict(before)
    x[broken] = float("nan")
    assert not math.isfinite(engine.step(x, y, 1e-2))
    for name, tensor in engine.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_after_a_lack_of_memory_the_step_is_taken_in_smaller_parts_as_if_nothing_had_been() -> None:
    engines = [Engine(small_network(), device="cpu", precision="float32", weight_decay=1e-2) for _ in range(2)]
    count = iter(range(9))

    def run_out(*_: object) -> None:
        if next(count) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    short, other = engines
    short.network.head.register_forward_pre_hook(run_out)
    short.micro, other.micro = 4, 2
    with pytest.raises(OutOfMemory, match="a training step of 4 images"):
        short.step(*uneven_batch(), 1e-2)
    short.micro = 2
    assert short.step(*uneven_batch(), 1e-2) == other.step(*uneven_batch(), 1e-2)
    for name, tensor in short.state().items():
        assert torch.equal(tensor, other.state()[name]), name


class Spy(nn.Module):
    """Remembers the dtype that its convolution computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 3, 3, padding=1)
        self.seen: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        self.seen = y.dtype
        return y


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_network_computes_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    spy = Spy()
    Engine(spy, device="cpu", precision=precision, weight_decay=0.0).step(*batch(), 1e-3)
    assert spy.seen == dtype
    assert spy.layer.weight.dtype == torch.float32


class TwoHeads(Spy):
    """A second head of half the extent, in a second method."""

    deep_heads = ((1, 0.75), (2, 0.25))

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(3, 3, 2, stride=2)

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        first = self(x)
        return [first, self.second(first)]


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_second_method_computes_in_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    network, seen = TwoHeads(), []
    network.second.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    Engine(network, device="cpu", precision=precision, weight_decay=0.0).step(*batch(), 1e-3)
    assert (network.seen, seen) == (dtype, [dtype])


HEADS = {
    "unet": ({"widths": [4, 4, 6, 6], "deep": 2}, (2 / 3, 1 / 3, 0.0)),
    "fcn_dilated": ({"width": 4, "aux": True}, (1.0, 0.5)),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_step_with_several_heads_is_one_on_the_sum_written_by_hand(name: str) -> None:
    options, weights = HEADS[name]
    torch.manual_seed(0)
    network = build_network(name, channels=1, classes=3, options=options)
    by_hand = copy.deepcopy(network).train()
    x, y = batch()
    torch.manual_seed(1)
    logits = by_hand.forward_deep(x)  # type: ignore[operator]
    small = [y, y[:, 1::2, 1::2], y[:, 2::4, 2::4]] if name == "unet" else [y, y]
    loss = sum(weight * cross_entropy_dice(a, b) for weight, a, b in zip(weights, logits, small, strict=True))
    loss.backward()  # type: ignore[union-attr]
    engine = Engine(network, device="cpu", precision="float32", weight_decay=0.0)
    torch.manual_seed(1)
    assert engine.step(x, y, 1e-3) == pytest.approx(loss.item(), rel=1e-6)  # type: ignore[union-attr]
    mine, theirs = dict(network.named_parameters()), dict(by_hand.named_parameters())
    for key, parameter in mine.items():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, theirs[key].grad, rtol=1e-3, atol=1e-5)
    trained = [key for key, value in mine.items() if value.grad is not None and value.grad.any()]
    assert any(key.startswith(("deep.0.", "aux.")) for key in trained)
    assert all(not key.startswith("deep.1.") for key in trained), "the lowest level weighs nothing"


@pytest.mark.parametrize("name", ["unet", "fcn_dilated"])
def test_a_network_that_asks_for_no_other_head_is_trained_through_forward_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"widths": [4, 8, 8]} if name == "unet" else {"width": 4}
    network = build_network(name, channels=1, classes=3, options=options)
    monkeypatch.setattr(type(network), "forward_deep", None)
    assert math.isfinite(Engine(network, device="cpu", precision="float32", weight_decay=0.0).step(*batch(), 1e-3))


@dataclass(frozen=True)
class Length:
    steps: int = 100
    warm_up: int = 10
    learning_rate: float = 2e-3


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    plan: Plan = Length()  # type: ignore[assignment]
    rates = [learning_rate(step, plan) for step in range(100)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == pytest.approx(2e-3, rel=0.05)
    assert rates.index(max(rates)) in (9, 10)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] < 1e-5


def test_raw_values_of_16_bits_reach_the_network_whole() -> None:
    """They differ in digits that bfloat16 does not have; it is for the network to normalise them first."""
    network = build_network("unet", channels=1, classes=2, options={"widths": (4, 8)})
    network.set_normalisation([40000.0], [30.0])
    seen: list[torch.Tensor] = []
    network.stem.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().float()))
    x = torch.arange(39950.0, 40050.0).repeat(2, 1, 100, 1)
    y = torch.zeros(2, 100, 100, dtype=torch.int64)
    Engine(network, device="cpu", precision="bfloat16", weight_decay=0.0).step(x, y, 1e-3)
    torch.testing.assert_close(seen[0], (x - 40000) / 30, rtol=0, atol=0.01)


@pytest.mark.parametrize("channels", [16, 24, 32, 40])
def test_gradients_of_dilated_convolutions_are_right_whatever_their_channels(channels: int) -> None:
    """In channels_last memory torch leaves parts of them unset, for channels that do not fill a block."""

    class Holes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, channels, 3, padding=1)
            self.holes = nn.Conv2d(channels, channels, 3, padding=4, dilation=4)
            self.head = nn.Conv2d(channels, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.head(self.holes(self.first(x).relu()).relu())
            return scores

    x, y = torch.rand(4, 1, 48, 48), torch.randint(2, (4, 48, 48))
    gradients = {}
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        network = Holes()
        Engine(network, device="cpu", precision=precision, weight_decay=0.0).step(x, y, 1e-3)
        gradients[precision] = network.holes.weight.grad
    assert gradients["bfloat16"] is not None and gradients["float32"] is not None
    torch.testing.assert_close(gradients["bfloat16"], gradients["float32"], rtol=0.1, atol=2e-4)
