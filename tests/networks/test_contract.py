"""A network that keeps its promises passes; each small network that breaks one is refused with its clause."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import keepmap
from keepmap.errors import ContractError
from keepmap.networks.contract import CLAUSES, check_clause, check_segmenter


class Plain(nn.Module):
    """A network of one's own: two convolutions with a norm between them, and a score for each class."""

    channels, classes, stride, reach, local = 2, 3, 1, (2, 2), True

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 3, 1)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.norm(self.first(x)))))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.features(x))


class Pyramid(Plain):
    """Pads to even sides, halves and doubles them, and crops."""

    stride, reach = 2, (3, 3)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = self.features(F.pad(x, (0, (width + 1) // 2 * 2 - width, 0, (height + 1) // 2 * 2 - height)))
        return self.crop(self.head(F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0)), height, width)

    def crop(self, x: Tensor, height: int, width: int) -> Tensor:
        return x.index_select(2, torch.arange(height)).index_select(3, torch.arange(width))


class WrongSize(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(super().forward(F.max_pool2d(x, 2, ceil_mode=True)), scale_factor=2.0)


class NotForOnePixel(Plain):
    def features(self, x: Tensor) -> Tensor:
        return super().features(F.pad(x, (1, 1, 1, 1), mode="reflect")[:, :, 1:-1, 1:-1])


class NotFinite(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / x.std(dim=(2, 3), keepdim=True).mean(1, keepdim=True)


class Mapping(Plain):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": super().forward(x)}


class Random(Plain):
    def features(self, x: Tensor) -> Tensor:
        return F.dropout(super().features(x), 0.1)


class InPlace(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5))


class BatchDependent(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Dead(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(6, 3, 1)


class Silenced(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).relu() * 0)


class LosesDtype(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class Viewing(Plain):
    def features(self, x: Tensor) -> Tensor:
        return super().features(x.view(len(x), -1).view(x.shape))


class Forgetful(Plain):
    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name != "head.bias"}


class WrongReach(Plain):
    reach = (2, 1)


class GlobalPool(Plain):
    def features(self, x: Tensor) -> Tensor:
        x = super().features(x)
        return x + x.mean(dim=(2, 3), keepdim=True)


class WrongStride(Pyramid):
    stride = 1


class Placed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.linspace(-1, 1, x.shape[2], dtype=x.dtype)[:, None]


class Branching(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.head.weight.sum() > 0 else 3)


class Sliced(Pyramid):
    def crop(self, x: Tensor, height: int, width: int) -> Tensor:
        return x[:, :, :height, :width]


BROKEN: dict[str, tuple[type[Plain], ...]] = {
    "size": (WrongSize, NotForOnePixel, NotFinite, Mapping),
    "determinism": (Random, InPlace),
    "batch": (BatchDependent,),
    "gradients": (Dead, Silenced),
    "bfloat16": (LosesDtype,),
    "channels_last": (Viewing,),
    "state_dict": (Forgetful,),
    "reach": (WrongReach,),
    "local": (GlobalPool,),
    "stride": (WrongStride,),
    "parts": (Placed,),
    "compile": (),
    "export": (Sliced,),
}


def made(kind: type[Plain]) -> Plain:
    torch.manual_seed(0)
    return kind()


@pytest.mark.parametrize("kind", [Plain, Pyramid])
def test_a_network_that_keeps_its_promises_passes(kind: type[Plain]) -> None:
    keepmap.check_segmenter(made(kind))


def test_each_clause_has_a_network_that_breaks_it() -> None:
    proven = {*CLAUSES, "local", "stride", "reach"} - {"probe"}
    assert set(BROKEN) == proven


@pytest.mark.parametrize(
    ("clause", "kind"), [(clause, kind) for clause, kinds in BROKEN.items() for kind in kinds], ids=str
)
def test_a_broken_network_is_refused_with_its_clause(clause: str, kind: type[Plain]) -> None:
    with pytest.raises(ContractError) as caught:
        check_segmenter(made(kind))
    assert caught.value.clause == clause
    assert caught.value.summary.endswith(".")
    assert caught.value.found


def test_a_network_that_branches_on_values_is_refused() -> None:
    """In a process of its own: after a failure to compile torch keeps the values of later calls alive for longer."""
    code = (
        "import runpy, sys; from keepmap.errors import ContractError; from keepmap import check_segmenter\n"
        "try: check_segmenter(runpy.run_path(sys.argv[1])['Branching']())\n"
        "except ContractError as error: print(error.clause)"
    )
    done = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "compile"


def test_a_network_that_is_not_local_may_see_all_of_the_image() -> None:
    network = made(GlobalPool)
    network.local = False
    for clause in ("probe", "parts"):
        check_clause(network, clause)


@pytest.mark.parametrize(
    ("name", "value"),
    [("channels", 0), ("classes", 1), ("stride", 0), ("reach", 2), ("reach", (-1, 2)), ("local", None)],
)
def test_what_is_declared_must_make_sense(name: str, value: object) -> None:
    network = made(Plain)
    setattr(network, name, value)
    with pytest.raises(ContractError, match="makes no sense") as caught:
        check_segmenter(network)
    assert caught.value.clause == "members"
    assert f"{name}={value!r}" in caught.value.found


def test_a_module_that_declares_nothing_is_told_what_is_missing() -> None:
    with pytest.raises(ContractError, match="does not say its channels"):
        check_segmenter(nn.Conv2d(2, 3, 1))  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="This is no network"):
        check_segmenter(lambda x: x)  # type: ignore[arg-type]


def test_nothing_is_changed() -> None:
    network = made(Pyramid).train()
    before, generator = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    check_segmenter(network, seed=3)
    assert network.training
    assert all(value.grad is None for value in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.is_grad_enabled()


class NoGradientForBias(nn.Conv2d):
    """A convolution whose bias has a gradient of zero, as a norm behind it would make it but for rounding."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight, bias * 0)


def test_a_bias_may_have_a_gradient_of_zero_right_before_a_norm_and_nowhere_else() -> None:
    network = made(Plain)
    network.first = NoGradientForBias(2, 6, 3, padding=1)
    check_clause(network, "gradients")
    network.second = NoGradientForBias(6, 6, 3, padding=1)
    with pytest.raises(ContractError, match="1 of 8 trainable") as caught:
        check_clause(network, "gradients")
    assert caught.value.found == "second.bias: zero throughout"


def test_the_seed_is_the_only_option() -> None:
    parameters = inspect.signature(keepmap.check_segmenter).parameters
    assert list(parameters) == ["network", "seed"]
    assert parameters["seed"].kind is inspect.Parameter.KEYWORD_ONLY
