"""Reading the core of a network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from keepmap.networks.efficientnet import EfficientNetLite0
from keepmap.networks.layers import Product
from keepmap.networks.trace import steps_of


class Small(nn.Module):
    """A core with every kind of step, and a swapped one for what is refused."""

    def __init__(self, ending: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
        self.pool = nn.MaxPool2d(1)
        self.ending = ending

    def core(self, x: Tensor) -> Tensor:
        y = self.block(x)
        return self.ending(torch.cat([self.pool(y), self.pool(x)], 1) + torch.cat((x, y), dim=1))


class Lister(nn.Module):
    """A core whose backbone returns a list."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(1)

    def core(self, x: Tensor) -> Tensor:
        return self.backbone(x)[-1]


def test_values_returned_in_a_list_are_marked() -> None:
    steps = steps_of(Lister())
    assert [step.listed for step in steps if step.listed] == ["backbone"] * 5
    assert steps[-1].listed == "backbone"


def test_steps_in_order_of_execution() -> None:
    network = Small()
    steps = steps_of(network)
    assert [step.kind for step in steps] == ["input", *["layer"] * 4, "cat", "cat", "add"]
    assert [step.inputs for step in steps] == [(), (0,), (1,), (2,), (0,), (3, 4), (0, 2), (5, 6)]
    assert [step.layer for step in steps[1:5]] == [network.block[0], network.block[1], network.pool, network.pool]
    assert steps[1].scopes[0] == steps[2].scopes[0] == "block"
    assert steps[3].scopes != steps[4].scopes, "two calls of one module are two scopes"


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        (lambda x: x * x, "mul"),
        (lambda x: x + 1, "add"),
        (lambda x: torch.cat([x, x], 2), "cat"),
        (lambda x: x.relu(), "relu"),
        (lambda x: nn.functional.pad(x, (0, 1)), "pad"),
    ],
)
def test_anything_else_is_refused_by_name(ending: Callable[[Tensor], Tensor], name: str) -> None:
    with pytest.raises(TypeError, match=name):
        steps_of(Small(ending))


class Scaled(nn.Module):
    """A core that uses a parameter as a value."""

    def __init__(self, *, added: bool = False) -> None:
        super().__init__()
        self.conv, self.product, self.added = nn.Conv2d(2, 2, 1), Product(), added
        self.factor = nn.Parameter(torch.ones(2))

    def core(self, x: Tensor) -> Tensor:
        factor = self.factor.reshape(1, -1, 1, 1)
        return self.conv(x) + factor if self.added else self.product(self.conv(x), factor)


def test_a_parameter_may_be_a_factor_and_is_no_step() -> None:
    network = Scaled()
    steps = steps_of(network)
    assert [step.layer for step in steps] == [None, network.conv, network.product]
    assert [step.inputs for step in steps] == [(), (0,), (1,)]
    with pytest.raises(TypeError, match="takes a parameter as a value"):
        steps_of(Scaled(added=True))
