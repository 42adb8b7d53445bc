"""Networks of other libraries by name: the same logits as their own code gives at odd sizes, from their own files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import keepmap
from keepmap.networks.network import Network
from keepmap.runs import RunFolder
from keepmap.weights.sources import SOURCES, VOC, without_biases

ODD = [(65, 47), (33, 64), (50, 50)]


class TheirDouble(nn.Module):
    """Two 3x3 convolutions with padding 1, batch norm and ReLU; bias: in the convolutions, as older versions had."""

    def __init__(self, inputs: int, outputs: int, middle: int, bias: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((inputs, middle), (middle, outputs)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=bias), nn.BatchNorm2d(after), nn.ReLU()]
        self.double_conv = nn.Sequential(*layers)


class TheirDown(nn.Module):
    """Pooling, then the double convolution."""

    def __init__(self, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), TheirDouble(inputs, outputs, outputs, bias))


class TheirUp(nn.Module):
    """Learnt or bilinear upsampling, and the double convolution over skip and map."""

    def __init__(self, inputs: int, outputs: int, bilinear: bool, bias: bool) -> None:
        super().__init__()
        if bilinear:
            self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
        self.conv = TheirDouble(inputs, outputs, inputs // 2 if bilinear else outputs, bias)


class TheirOut(nn.Module):
    """The scores."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, classes, 1)


class TheirUNet(nn.Module):
    """milesial's U-Net from its published shapes and names, any width."""

    def __init__(self, channels: int, classes: int, *, bilinear: bool, width: int, bias: bool = False) -> None:
        super().__init__()
        w, half = width, 2 if bilinear else 1
        self.inc = TheirDouble(channels, w, w, bias)
        self.down1, self.down2 = TheirDown(w, 2 * w, bias), TheirDown(2 * w, 4 * w, bias)
        self.down3, self.down4 = TheirDown(4 * w, 8 * w, bias), TheirDown(8 * w, 16 * w // half, bias)
        self.up1 = TheirUp(16 * w, 8 * w // half, bilinear, bias)
        self.up2 = TheirUp(8 * w, 4 * w // half, bilinear, bias)
        self.up3 = TheirUp(4 * w, 2 * w // half, bilinear, bias)
        self.up4 = TheirUp(2 * w, w, bilinear, bias)
        self.outc = TheirOut(w, classes)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.inc.double_conv(x)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            pooled, double = down.maxpool_conv
            skips.append(double.double_conv(pooled(skips[-1])))
        x = skips.pop()
        for up in (self.up1, self.up2, self.up3, self.up4):
            skip, x = skips.pop(), up.up(x)
            rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
            x = up.conv.double_conv(torch.cat([skip, x], 1))
        return self.outc.conv(x)


def settled(network: nn.Module) -> nn.Module:
    """In eval mode, with statistics of batch norms that are not the identity."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return network.eval()


def imported(state: dict[str, Any], source: str, folder: Path, **options: Any) -> tuple[Network, RunFolder]:
    """The network of the RUN that a file of this state dict is turned into."""
    torch.save(state, folder / "theirs.pth")
    run = RunFolder(keepmap.import_weights(folder / "theirs.pth", source, folder / "run", **options))
    return run.load_network()[0], run


def agree(found: Tensor, expected: Tensor) -> bool:
    """Within 1e-4 of the largest logit."""
    return found.shape == expected.shape and bool(
        (found - expected).abs().max() <= 1e-4 * float(expected.abs().max())
    )


def check_logits(ours: Network, theirs: nn.Module, mean: Any, std: Any, sizes: list[tuple[int, int]]) -> None:
    for size in sizes:
        raw = torch.randint(0, 256, (2, ours.channels, *size)).float()
        normal = (raw - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        with torch.inference_mode():
            expected = theirs(normal)
            found = ours(raw)
        expected = expected["out"] if isinstance(expected, dict) else expected
        if expected.shape[1] == 1:
            assert torch.equal(found[:, :1], torch.zeros_like(expected))
            found = found[:, 1:]
        assert agree(found, expected), size


@pytest.mark.parametrize(("encoder", "aux"), [("resnet50", True), ("resnet50", False), ("resnet101", True)])
def test_torchvision(encoder: str, aux: bool, peers: None, tmp_path: Path) -> None:
    from torchvision.models import segmentation

    torch.manual_seed(0)
    build = getattr(segmentation, f"fcn_{encoder}")
    theirs = settled(build(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux))
    ours, run = imported(theirs.state_dict(), f"torchvision:fcn_{encoder}", tmp_path)
    mean, std = [255 * v for v in (0.485, 0.456, 0.406)], [255 * v for v in (0.229, 0.224, 0.225)]
    check_logits(ours, theirs, mean, std, ODD)
    assert run.read_config().labels.names == VOC
    assert (ours.aux is not None) is aux


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50"])
def test_smp(encoder: str, peers: None, tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    classes = 1 if encoder == "resnet18" else 5
    theirs = settled(smp.Unet(encoder, encoder_weights=None, in_channels=3, classes=classes))
    ours, _ = imported(theirs.state_dict(), f"smp:unet-{encoder}", tmp_path)
    mean, std = [255 * v for v in (0.485, 0.456, 0.406)], [255 * v for v in (0.229, 0.224, 0.225)]
    check_logits(ours, theirs, mean, std, ODD)
    assert ours.local, "tiles of it are exact"


def test_smp_with_other_channels_and_widths(peers: None, tmp_path: Path) -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    widths = (48, 40, 24, 12, 8)
    theirs = settled(smp.Unet("resnet18", encoder_weights=None, in_channels=5, classes=2, decoder_channels=widths))
    ours, _ = imported(theirs.state_dict(), "smp:unet-resnet18", tmp_path, mean=(10.0,) * 5, std=(20.0,))
    assert ours.config.widths == widths
    check_logits(ours, theirs, [10.0] * 5, [20.0] * 5, [(45, 70)])


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bilinear", [False, True])
def test_milesial(bilinear: bool, bias: bool, classes: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = settled(TheirUNet(3, classes, bilinear=bilinear, width=8, bias=bias))
    ours, _ = imported(theirs.state_dict(), "milesial:unet", tmp_path)
    check_logits(ours, theirs, [0.0] * 3, [255.0] * 3, [*ODD, (16, 31)])


@pytest.mark.parametrize(("bilinear", "count"), [(False, 31_037_698), (True, 17_262_977 + 65)])
def test_the_written_down_milesial_has_its_parameters_and_names(bilinear: bool, count: int) -> None:
    with torch.device("meta"):
        theirs = TheirUNet(3, 2, bilinear=bilinear, width=64)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count
    names = set(theirs.state_dict())
    assert {"inc.double_conv.0.weight", "up4.conv.double_conv.3.weight", "outc.conv.bias"} < names
    assert "down1.maxpool_conv.1.double_conv.4.bias" in names
    assert ("up1.up.weight" in names) is not bilinear
    recipe = SOURCES["milesial:unet"].recipe(theirs.state_dict())
    assert recipe.options["widths"] == (64, 128, 256, 512, 512 if bilinear else 1024)


def test_a_sigmoid_and_its_softmax_say_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = settled(TheirUNet(3, 1, bilinear=False, width=4))
    _, run = imported({**theirs.state_dict(), "mask_values": [0, 255]}, "milesial:unet", tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    predictor = keepmap.load(run.path, precision="float32")
    with torch.inference_mode():
        share = torch.sigmoid(theirs(torch.from_numpy(image).permute(2, 0, 1)[None] / 255))[0, 0].numpy()
    assert np.allclose(predictor.probabilities(image)[1], share, atol=1e-5)
    sure = abs(share - 0.5) > 1e-4
    assert np.array_equal(predictor(image)[sure], (255 * (share > 0.5))[sure])


@pytest.mark.parametrize("name", SOURCES)
def test_every_tensor_has_one_name_there(name: str) -> None:
    """An empty state dict gives the original's own numbers."""
    from keepmap.networks.describe import sketch

    source = SOURCES[name]
    recipe = source.recipe({})
    network = sketch(recipe.network, channels=3, classes=21, options=recipe.options)
    names = [source.theirs(own) for own in network.state_dict() if own not in ("mean", "std")]
    assert len(set(names)) == len(names)
    assert any(name.startswith(source.scores) for name in names)


def test_a_bias_that_no_norm_follows_stays() -> None:
    state = {"outc.conv.bias": torch.ones(2), "x.double_conv.0.bias": torch.ones(2)}
    assert without_biases(state).keys() == state.keys()


def test_old_models_with_biases_need_no_other_network() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = TheirUNet(3, 2, bilinear=True, width=4, bias=True)
    assert set(without_biases(theirs.state_dict())) == set(TheirUNet(3, 2, bilinear=True, width=4).state_dict())
