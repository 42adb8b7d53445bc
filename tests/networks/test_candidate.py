"""What the copy of a network answers, and the form of the complaints."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from keepmap.errors import ContractError
from keepmap.networks.candidate import attempt, candidate, same
from keepmap.networks.catalogue import build_network


class Small(nn.Module):
    """One convolution that begins at zero and a norm."""

    channels, classes, stride, reach, local = 2, 2, 1, (0, 0), True

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(2, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        nn.init.zeros_(self.score.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.score(x))


def test_the_copy_shows_what_zeros_and_the_identity_hide() -> None:
    network = Small()
    copied = candidate(network)
    copied.prepare()
    assert not copied.module.training and network.training
    for name, value in copied.module.state_dict().items():
        if name != "norm.num_batches_tracked" and name != "norm.weight":
            assert not torch.equal(value, network.state_dict()[name]), name
    assert copied.logits(copied.image((3, 4), count=2), "size").any()


def test_the_copy_is_float32() -> None:
    assert candidate(Small().double()).module.score.weight.dtype == torch.float32  # type: ignore[union-attr]


def test_values_lie_around_what_the_network_subtracts() -> None:
    network = build_network("unet", channels=2, classes=2, options={"widths": (4,)})
    network.set_normalisation([1000.0, -1000.0], [10.0, 1.0])
    x = candidate(network).image((50, 50), count=4)
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.tensor([1000.0, -1000.0]), atol=1)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.tensor([10.0, 1.0]), rtol=0.1)
    assert candidate(Small()).image((50, 50)).mean().abs() < 0.1


def test_what_fails_is_named_by_its_first_line() -> None:
    def fail() -> None:
        raise RuntimeError("sizes differ\nand more")

    with pytest.raises(ContractError, match=r"It fails\.") as caught:
        attempt("size", "It fails.", fail)
    assert (caught.value.clause, caught.value.found) == ("size", "RuntimeError: sizes differ")
    assert attempt("size", "It fails.", lambda: 3) == 3


def test_values_are_the_same_within_a_share_of_the_largest() -> None:
    one, other = torch.tensor([100.0, 1.0]), torch.tensor([100.0, 1.5])
    same(one, other, "parts", "They differ.", 0.01)
    same(one, one.clone(), "parts", "They differ.")
    for tolerance, largest in ((0.0, -1.0), (0.001, -1.0), (0.01, 1.0)):
        with pytest.raises(ContractError, match=r"difference of 0\.5"):
            same(one, other, "parts", "They differ.", tolerance, largest=largest)
    with pytest.raises(ContractError):
        same(one, torch.full((2,), float("nan")), "parts", "They differ.", 1.0)
