"""The engine: a step against plain torch, exact state round trips, a loss that is no number changes nothing."""

import contextlib
import copy
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keepmap.errors import OptionError, OutOfMemory, RunError
from keepmap.networks.catalogue import NETWORKS, build_network
from keepmap.networks.network import Network
from keepmap.networks.reach import CONVS
from keepmap.planning.plan import MemoryFormat
from keepmap.planning.recipe import LossConfig, OptimiserConfig
from keepmap.training.engine import Engine, fast_format
from keepmap.training.loss import Truth, loss_of


def small_network() -> Network:
    torch.manual_seed(0)
    return build_network("unet", channels=1, classes=3, options={"widths": [4, 8]})


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 1, 16, 16, generator=generator), torch.randint(0, 3, (2, 16, 16), generator=generator)


def cross_entropy_dice(logits: Tensor, y: Tensor) -> Tensor:
    return loss_of(LossConfig())(logits, Truth(y), Truth(y))


def test_a_float32_step_equals_plain_adamw() -> None:
    network = small_network()
    plain = copy.deepcopy(network).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0)
    engine = Engine(network, device="cpu", precision="float32", optimiser=OptimiserConfig(weight_decay=0.0))
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
    engine = Engine(small_network(), device="cpu", precision="float32", optimiser=OptimiserConfig(weight_decay=0.5))
    decayed, plain = engine.optimiser.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert {p.ndim for p in decayed["params"]} == {4}
    assert {p.ndim for p in plain["params"]} == {1}


WAYS = {
    "adamw": OptimiserConfig(),
    "averaged": OptimiserConfig(averaging=0.99),
    "sgd": OptimiserConfig(optimiser="sgd", averaging=0.9, clipping=0.5, frozen_statistics=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_state_goes_on_bit_for_bit(way: str) -> None:
    whole, first, second = (
        Engine(small_network(), device="cpu", precision="float32", optimiser=WAYS[way]) for _ in range(3)
    )
    for seed in range(2):
        whole.step(*batch(seed), 1e-2)
        first.step(*batch(seed), 1e-2)
    second.restore(first.state())
    for seed in range(2, 5):
        assert whole.step(*batch(seed), 1e-2) == second.step(*batch(seed), 1e-2)
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name
    for engine in (whole, second):
        engine.renew_statistics([batch(9)[0]])
    for name, tensor in whole.judged.state_dict().items():
        assert torch.equal(tensor, second.judged.state_dict()[name]), name


def test_a_state_without_an_average_is_refused_and_changes_nothing() -> None:
    plain = Engine(small_network(), device="cpu", precision="float32")
    plain.step(*batch(), 1e-2)
    averaged = Engine(small_network(), device="cpu", precision="float32", optimiser=WAYS["averaged"])
    before = averaged.state()
    with pytest.raises(RunError, match="no averaged weights"):
        averaged.restore(plain.state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in averaged.state().items())


def test_averaged_weights_are_those_of_the_formula_and_wait_for_nothing() -> None:
    """The first steps count more, as (1 + n) / (10 + n); a step that is left out counts nothing."""
    engine = Engine(small_network(), device="cpu", precision="float32", optimiser=OptimiserConfig(averaging=0.2))
    assert engine.judged is not engine.network
    expected = [p.detach().clone() for p in engine.network.parameters()]
    for step, decay in enumerate((0.1, 2 / 11, 0.2)):
        engine.step(*batch(step), 1e-2)
        for mean, weight in zip(expected, engine.network.parameters(), strict=True):
            mean.mul_(decay).add_((1 - decay) * weight.detach())
        x, y = batch()
        engine.step(x * math.nan, y, 1e-2)
        torch.testing.assert_close(list(engine.judged.parameters()), expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(list(engine.judged.buffers()), list(engine.network.buffers()), rtol=0, atol=0)


def test_statistics_of_the_averaged_network_are_those_of_its_own_features() -> None:
    """The mean over all of them, and the mean of the variances of the parts; the network that learns is left alone."""
    network = small_network()
    engine = Engine(network, device="cpu", precision="float32", optimiser=OptimiserConfig(averaging=0.5))
    for seed in range(3):
        engine.step(*batch(seed), 1e-2)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    x = torch.cat([batch(seed)[0] for seed in range(4)])
    engine.micro = 2
    engine.renew_statistics(x.split(4))
    assert not engine.judged.training
    first = next(m for m in engine.judged.modules() if isinstance(m, nn.BatchNorm2d))
    features: list[Tensor] = []
    with first.register_forward_pre_hook(lambda module, given: features.append(given[0])), torch.no_grad():
        engine.judged(x)
    torch.testing.assert_close(first.running_mean, features[0].mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, features[0].view(4, 2, -1, 16, 16).var((1, 3, 4)).mean(0))
    assert first.momentum == 0.1
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_no_batch_is_drawn_where_no_statistics_are_to_be_renewed() -> None:
    def drawn() -> Iterator[Tensor]:
        raise AssertionError("a batch was drawn")
        yield

    frozen = OptimiserConfig(averaging=0.9, frozen_statistics=True)
    for config in (OptimiserConfig(), frozen):
        Engine(small_network(), device="cpu", precision="float32", optimiser=config).renew_statistics(drawn())
    norms = {"widths": [4, 8], "norm": "group"}
    network = build_network("unet", channels=1, classes=3, options=norms)
    averaged = OptimiserConfig(averaging=0.9)
    Engine(network, device="cpu", precision="float32", optimiser=averaged).renew_statistics(drawn())


def test_frozen_statistics_stay_and_are_those_it_is_trained_with() -> None:
    network = small_network()
    network.eval()
    x, y = batch()
    expected = cross_entropy_dice(network(x), y).item()
    before = [b.clone() for b in network.buffers()]
    frozen = OptimiserConfig(frozen_statistics=True)
    engine = Engine(network, device="cpu", precision="float32", optimiser=frozen)
    assert engine.step(x, y, 1e-2) == pytest.approx(expected, rel=1e-6)
    assert network.head.training
    torch.testing.assert_close(list(network.buffers()), before, rtol=0, atol=0)


def test_gradients_are_cut_to_the_norm_asked_for_and_small_ones_left() -> None:
    found = {}
    for clipping in (None, 0.05, 1e9):
        config = OptimiserConfig(clipping=clipping)
        engine = Engine(small_network(), device="cpu", precision="float32", optimiser=config)
        engine.step(*batch(), 1e-3)
        found[clipping] = [p.grad for p in engine.network.parameters() if p.grad is not None]
    whole = torch.nn.utils.get_total_norm(found[None])
    assert whole > 0.05
    torch.testing.assert_close(found[1e9], found[None], rtol=0, atol=0)
    torch.testing.assert_close(found[0.05], [g * (0.05 / whole) for g in found[None]], rtol=1e-4, atol=1e-8)


def test_a_step_of_sgd_equals_plain_nesterov() -> None:
    network = small_network()
    plain = copy.deepcopy(network).train()
    optimiser = torch.optim.SGD(plain.parameters(), lr=1e-2, momentum=0.9, nesterov=True)
    config = OptimiserConfig(optimiser="sgd", weight_decay=0.0)
    engine = Engine(network, device="cpu", precision="float32", optimiser=config)
    for seed in range(3):
        x, y = batch(seed)
        loss = cross_entropy_dice(plain(x), y)
        assert engine.step(x, y, 1e-2) == pytest.approx(loss.item(), rel=1e-5)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(list(network.parameters()), list(plain.parameters()), rtol=1e-4, atol=1e-6)


def test_the_encoder_learns_at_its_own_rate_and_only_where_there_is_one() -> None:
    slow = OptimiserConfig(encoder_rate=0.25)
    network = build_network("fcn", channels=1, classes=2, options={"head_width": 4})
    engine = Engine(network, device="cpu", precision="float32", optimiser=slow)
    names = {id(p): name for name, p in network.named_parameters()}
    rates = {}
    engine.step(torch.rand(2, 1, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64), 1e-2)
    for group in engine.optimiser.param_groups:
        rates |= {names[id(p)]: (group["lr"], group["weight_decay"], p.ndim > 1) for p in group["params"]}
    assert rates.keys() == set(names.values())
    for name, (rate, decay, kernel) in rates.items():
        assert rate == (0.25e-2 if name.startswith("encoder.") else 1e-2), name
        assert decay == (0.01 if kernel else 0.0), name
    with pytest.raises(OptionError, match="Only a network with an encoder"):
        Engine(small_network(), device="cpu", precision="float32", optimiser=slow)


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    engine = Engine(small_network(), device="cpu", precision="float32")
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
    """Of the means over pixels, whatever weighs them."""
    monkeypatch.setattr(Pointwise, "deep_heads", heads)
    terms = {"cross_entropy": 1.0, "focal": 0.5}
    config = LossConfig(terms=terms, smoothing=0.1, class_weights=(1.0, 2.0, 0.5))
    x, y = uneven_batch()
    weights, found = torch.rand(y.shape), []
    for micro in (0, 1, 2, 5, 9):
        engine = Engine(Pointwise(), device="cpu", precision="float32", loss=config)
        engine.micro = micro
        value = engine.step(x, y, 1e-3, weights)
        found.append((value, [p.grad for p in engine.network.parameters()]))
    for value, gradients in found[1:]:
        assert value == pytest.approx(found[0][0], rel=1e-6)
        torch.testing.assert_close(gradients, found[0][1], rtol=1e-5, atol=1e-7)


def test_dice_of_parts_counts_by_the_crops() -> None:
    """Parts of two, two and one: the loss is the one that is written down here."""
    x, y = uneven_batch()
    engine = Engine(Pointwise(), device="cpu", precision="float32")
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
    engine = Engine(small_network(), device="cpu", precision="float32")
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
    engines = [Engine(small_network(), device="cpu", precision="float32") for _ in range(2)]
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


FORWARD: dict[tuple[str, str], dict[str, object]] = {
    ("unet", "forward"): {"widths": [4, 6]},
    ("unet", "forward_deep"): {"widths": [4, 6, 6], "deep": 1},
    ("encoder_unet", "forward"): {"widths": [8, 8, 6, 6, 4]},
    ("fcn", "forward"): {"head_width": 4},
    ("fcn_vgg16", "forward"): {"widths": [4, 4, 4, 4, 4], "head_width": 4},
    ("fcn_dilated", "forward"): {"width": 4},
    ("fcn_dilated", "forward_deep"): {"width": 4, "aux": True},
    ("unet2015", "forward"): {"widths": [4, 6]},
    ("unet2015", "forward_valid"): {"widths": [4, 6]},
}


def test_every_forward_method_is_in_the_table() -> None:
    methods = {(name, m) for name, (_, kind) in NETWORKS.items() for m in dir(kind) if m.startswith("forward")}
    assert methods == FORWARD.keys()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "method"), FORWARD)
def test_inside_of_every_forward_method_is_the_precision_asked_for(
    name: str, method: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each convolution of a step, or of the method alone where no step takes it; the weights stay float32."""
    network = build_network(name, channels=1, classes=3, options=FORWARD[name, method])
    seen, calls = set(), []
    for layer in network.modules():
        if isinstance(layer, CONVS):
            layer.register_forward_hook(lambda module, given, output: seen.add(output.dtype))
    real = getattr(type(network), method)
    monkeypatch.setattr(type(network), method, lambda self, x: calls.append(method) or real(self, x))
    engine = Engine(network, device="cpu", precision=precision, optimiser=OptimiserConfig(averaging=0.9))
    if method == "forward_valid":
        with engine.fabric.autocast():
            network.forward_valid(torch.rand(1, 1, 20, 20))  # type: ignore[operator]
    else:
        assert math.isfinite(engine.step(*batch(), 1e-3))
    assert (seen, calls) == ({getattr(torch, precision)}, [method])
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    seen.clear()
    engine.renew_statistics([batch()[0]])
    assert seen <= {getattr(torch, precision)}, "and where statistics are renewed, if there are any"


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
    engine = Engine(network, device="cpu", precision="float32")
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
    assert math.isfinite(Engine(network, device="cpu", precision="float32").step(*batch(), 1e-3))


def test_raw_values_of_16_bits_reach_the_network_whole() -> None:
    """They differ in digits that bfloat16 does not have; it is for the network to normalise them first."""
    network = build_network("unet", channels=1, classes=2, options={"widths": (4, 8)})
    network.set_normalisation([40000.0], [30.0])
    engine = Engine(network, device="cpu", precision="bfloat16")
    seen: list[torch.Tensor] = []
    network.stem.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach().float()))
    x = torch.arange(39950.0, 40050.0).repeat(2, 1, 100, 1)
    y = torch.zeros(2, 100, 100, dtype=torch.int64)
    engine.step(x, y, 1e-3)
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
    gradients = []
    formats: list[tuple[str, MemoryFormat | None]]
    formats = [("float32", None), ("float32", "channels_last"), ("bfloat16", None)]
    for precision, memory_format in formats:
        torch.manual_seed(0)
        network = Holes()
        Engine(network, device="cpu", precision=precision, memory_format=memory_format).step(x, y, 1e-3)
        gradients.append(network.holes.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gradients[2], gradients[0], rtol=0.1, atol=2e-4)
    assert fast_format(Holes(), "cpu", "float32")[0] == "contiguous"
    assert fast_format(Holes(), "cpu", "float32", "channels_last")[0] == "channels_last"
    assert fast_format(Holes(), "cuda", "float32")[0] == "channels_last"
    assert fast_format(Holes(), "cuda", "float32", "contiguous")[0] == "contiguous"
    right = channels <= 16 or channels % 16 == 0
    assert fast_format(Holes(), "cpu", "bfloat16")[0] == ("channels_last" if right else "contiguous")
    with contextlib.nullcontext() if right else pytest.raises(OptionError, match="would be wrong in channels_last"):
        fast_format(Holes(), "cpu", "bfloat16", "channels_last")


class Aliased(Network):
    """A ReLU whose input is read again after it, and one whose input is not."""

    def __init__(self) -> None:
        super().__init__(small_network().config, stride=1)
        self.first, self.last = (nn.Conv2d(n, m, 3, padding=1) for n, m in ((1, 4), (4, 3)))
        self.shared, self.alone = nn.ReLU(inplace=True), nn.ReLU(inplace=True)

    def core(self, x: Tensor) -> Tensor:
        x = self.first(x)
        kept = self.shared(x)
        return self.last(self.alone(kept + x))


def test_only_a_relu_whose_input_is_read_once_spares_it() -> None:
    network = Aliased()
    x = batch()[0]
    before = network(x)
    Engine(network, device="cpu", precision="float32")
    assert network.shared.inplace and not network.alone.inplace
    assert torch.equal(network(x), before)


def test_relus_of_other_modules_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(inplace=True))
    Engine(module, device="cpu", precision="float32")
    assert module[1].inplace
