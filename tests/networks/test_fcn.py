"""What the fully convolutional networks have beside the contract of all networks."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from keepmap.errors import OptionError
from keepmap.networks.catalogue import build_network, network_recipe
from keepmap.networks.fcn import FCN, FCNConfig, from_classifier


@pytest.mark.parametrize(("skips", "factors"), [(0, [32]), (1, [2, 16]), (2, [2, 2, 8])])
def test_skips_decide_the_upsampling(skips: Literal[0, 1, 2], factors: list[int]) -> None:
    network = FCN(FCNConfig(3, 4, skips=skips, head_width=8))
    layers = [*network.lift, network.up]
    assert [layer.stride[0] for layer in layers] == factors
    assert [layer.kernel_size[0] for layer in layers] == [2 * factor for factor in factors]
    assert all(layer.groups == 4 for layer in layers)


def test_begins_as_the_bilinear_interpolation_of_fused_scores() -> None:
    torch.manual_seed(0)
    network = FCN(FCNConfig(3, 4, skips=2, head_width=8)).eval()
    x = torch.randn(1, 3, 192, 160)
    for layer in network.score:
        nn.init.normal_(layer.weight)
    with torch.inference_mode():
        *_, eighth, sixteenth, last = network.encoder(x)
        fused = F.interpolate(network.head(last), scale_factor=2.0, mode="bilinear") + network.score[0](sixteenth)
        fused = F.interpolate(fused, scale_factor=2.0, mode="bilinear") + network.score[1](eighth)
        expected = F.interpolate(fused, scale_factor=8.0, mode="bilinear")
        inner = (..., slice(64, -64), slice(64, -64))
        assert torch.allclose(network(x)[inner], expected[inner], atol=1e-4 * float(expected.abs().max()))


def test_a_finer_network_begins_as_the_coarser_one_and_learns() -> None:
    torch.manual_seed(0)
    coarse, fine = (FCN(FCNConfig(3, 4, skips=skips, head_width=8)).eval() for skips in (0, 2))
    assert not fine.load_state_dict({n: t for n, t in coarse.state_dict().items() if n != "up.weight"}, False)[1]
    x = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        half = F.interpolate(coarse.scores(x), scale_factor=2.0, mode="bilinear")
        expected = F.interpolate(half, scale_factor=2.0, mode="bilinear")
        inner = (..., slice(4, -4), slice(4, -4))
        assert torch.allclose(fine.scores(x)[inner], expected[inner], atol=1e-5 * float(expected.abs().max()))
    fine(x).square().sum().backward()
    assert all(layer.weight.grad.any() for layer in fine.score)


def test_an_impossible_head_is_refused() -> None:
    with pytest.raises(OptionError, match="head_width"):
        FCN(FCNConfig(3, 4, head_width=0))


@pytest.mark.usefixtures("peers")
@pytest.mark.parametrize("encoder", ["resnet18", "resnet50"])
def test_the_mean_of_a_kept_classifier_is_what_the_classifier_says(encoder: str) -> None:
    from torchvision import models

    torch.manual_seed(0)
    theirs = getattr(models, encoder)(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    network = FCN(FCNConfig(3, 4, encoder=encoder, classifier="kept")).eval()
    rest = network.load_state_dict(from_classifier(theirs.state_dict()), strict=False)
    begun = {
        "mean",
        "std",
        *(name for name in network.state_dict() if name.startswith(("head.score", "score", "lift", "up"))),
    }
    assert set(rest.missing_keys) == begun
    assert not rest.unexpected_keys
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        said = network.head.fc(network.encoder(x)[-1])
        expected = theirs(x)
        assert said.shape == (2, 1000, 3, 2)
        assert torch.allclose(said.mean((2, 3)), expected, atol=1e-5 * float(expected.abs().max()))


def classifier_state() -> dict[str, Any]:
    network = FCN(FCNConfig(3, 4, classifier="kept"))
    state = {f"{name}": value for name, value in network.encoder.state_dict().items()}
    return {**state, "fc.weight": network.head.fc.weight[:, :, 0, 0], "fc.bias": network.head.fc.bias}


def test_a_new_classifier_takes_the_features_alone() -> None:
    network = FCN(FCNConfig(3, 4))
    converted = from_classifier(classifier_state(), kept=False)
    assert set(converted) == {name for name in network.state_dict() if name.startswith("encoder.")}
    assert not network.load_state_dict(converted, strict=False).unexpected_keys


@pytest.mark.parametrize("name", ["conv1.weight", "layer4.0.conv1.weight", "fc.weight", "fc.bias"])
def test_weights_of_something_else_are_refused(name: str) -> None:
    state = classifier_state()
    del state[name]
    with pytest.raises(ValueError, match=f"not the weights of a ResNet classifier: {name} is missing"):
        from_classifier(state)


def test_a_kept_classifier_is_followed_by_relu_and_new_scores() -> None:
    network = build_network("fcn", channels=1, classes=3, options={"classifier": "kept", "encoder": "resnet50"})
    assert isinstance(network.head.act, nn.ReLU)
    assert network.head.score.weight.shape == (3, 1000, 1, 1)
    assert network_recipe(network)[1]["classifier"] == "kept"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier": "kept", "encoder": "vgg16"}, "Only the classifier of a ResNet"),
        ({"classifier": "kept", "head_width": 8}, "has 1000 channels"),
    ],
)
def test_a_classifier_that_cannot_be_kept_is_refused(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(OptionError, match=message):
        FCN(FCNConfig(3, 4, **options))
