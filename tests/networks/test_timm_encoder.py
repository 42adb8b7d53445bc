"""Encoders of timm against timm itself, against keepmap's own ResNet, and what is refused by name."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import keepmap
from keepmap import external
from keepmap.cli.main import main
from keepmap.errors import MissingPackage, OptionError
from keepmap.networks.catalogue import build_network, network_recipe
from keepmap.networks.contract import CLAUSES, check_clause
from keepmap.networks.describe import describe, multiply_adds, peak_bytes, sketch
from keepmap.networks.encoders import build_encoder
from keepmap.networks.network import Network
from keepmap.networks.timm_encoder import TimmEncoder, check_name, load_timm
from keepmap.runtime.folding import fold_batch_norms

pytestmark = pytest.mark.usefixtures("peers")

FROM_2, FROM_4 = (2, 4, 8, 16, 32), (4, 8, 16, 32)
NAMES = {
    "resnet18": FROM_2,
    "test_byobnet": FROM_2,
    "dla34": FROM_2,
    "test_efficientnet": FROM_2,
    "mobilenetv3_small_050": FROM_2,
    "regnety_002": FROM_2,
    "hrnet_w18_small": FROM_2,
    "convnext_atto": FROM_4,
    "starnet_s050": FROM_4,
    "test_convnext3": FROM_4,
}
"""Of each way of building: squeeze-excitation, concatenation, a map at stride 1, upsampling, layer norms, matrices."""
NARROW = (12, 10, 8, 6, 4)
SEES_ALL = {"mobilenetv3_small_050"}
CASES = ("resnet18", "convnext_atto", "mobilenetv3_small_050")
SLOW = {"probe", "compile", "export"}


def timm_network(name: str, channels: int = 2) -> Any:
    """timm's own, with norm statistics that are not the identity."""
    torch.manual_seed(0)
    network = load_timm().create_model(name, features_only=True, in_chans=channels).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def built(name: str, encoder: str, **options: Any) -> Network:
    torch.manual_seed(0)
    return build_network(name, channels=2, classes=3, options={"encoder": encoder, **options})


@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_timm(name: str) -> None:
    theirs = timm_network(name)
    encoder = TimmEncoder(name, 2)
    assert encoder.training
    encoder.load_state_dict(encoder.from_timm(theirs.state_dict()))
    x = torch.randn(2, 2, 64, 96)
    with torch.inference_mode():
        expected = [each for each in theirs(x) if each.shape[2] < 64]
        found = encoder.eval()(x)
    assert encoder.strides == NAMES[name]
    assert [each.shape[1:] for each in found] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(encoder.widths, encoder.strides, strict=True)
    ]
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "test_convnext3"])
def test_trains_as_timm_does(name: str) -> None:
    """The same gradients and the same running statistics: nothing of the training mode was lost."""
    theirs = timm_network(name).train()
    encoder = TimmEncoder(name, 2)
    encoder.load_state_dict(encoder.from_timm(theirs.state_dict()))
    x = torch.randn(3, 2, 64, 64)
    for network in (theirs, encoder):
        sum(each.square().mean() for each in network(x)).backward()
    gradients = {own: value.grad for own, value in encoder.named_parameters()}
    of_theirs = encoder.from_timm({**theirs.state_dict(), **{n: p.grad for n, p in theirs.named_parameters()}})
    assert all(torch.allclose(gradients[own], of_theirs[own], atol=1e-5) for own in gradients)
    state = encoder.from_timm(theirs.state_dict())
    assert all(torch.allclose(value, state[own], atol=1e-6) for own, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_the_weights_of_a_classifier_fit(name: str) -> None:
    torch.manual_seed(1)
    classifier = load_timm().create_model(name, in_chans=2)
    encoder = TimmEncoder(name, 2)
    converted = encoder.from_timm(classifier.state_dict())
    encoder.load_state_dict(converted, strict=True)
    with pytest.raises(ValueError, match=r"not the weights of this network: .* is missing"):
        encoder.from_timm({"fc.weight": torch.zeros(2)})
    x = torch.randn(1, 2, 64, 64)
    with torch.inference_mode():
        expected = classifier.eval().forward_intermediates(x, intermediates_only=True)[-1]
        assert torch.allclose(encoder.eval()(x)[-1], expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["encoder_unet", "fcn"])
def test_over_resnet18_it_is_the_network_over_keepmaps_own(name: str) -> None:
    theirs, own = built(name, "timm:resnet18"), built(name, "resnet18")
    state = {key.replace("encoder.net.", "encoder."): value for key, value in theirs.state_dict().items()}
    own.load_state_dict(state, strict=True)
    x = torch.randn(1, 2, 61, 75)
    with torch.inference_mode():
        expected = own.eval()(x)
        assert torch.allclose(theirs.eval()(x), expected, atol=1e-5 * float(expected.abs().max()))
    assert (theirs.reach, theirs.local, theirs.stride) == (own.reach, True, own.stride)
    size = (256, 384)
    for one, other in zip(describe(theirs, size), describe(own, size), strict=True):
        assert (one.size, one.channels, one.reach) == (other.size, other.channels, other.reach)
        assert one.training_bytes == other.training_bytes
    assert multiply_adds(theirs, size) == multiply_adds(own, size)
    assert peak_bytes(theirs, size) <= peak_bytes(own, size)


@pytest.mark.parametrize("clause", [clause for clause in CLAUSES if clause not in SLOW])
@pytest.mark.parametrize("encoder", CASES)
def test_the_contract_holds(encoder: str, clause: str) -> None:
    check_clause(built("encoder_unet", f"timm:{encoder}", widths=NARROW), clause)


def test_one_graph_is_exported_for_every_size() -> None:
    check_clause(built("fcn", "timm:convnext_atto", head_width=8), "export")


@pytest.mark.parametrize("encoder", CASES)
def test_says_whether_it_is_local(encoder: str) -> None:
    assert built("fcn", f"timm:{encoder}").local == (encoder not in SEES_ALL)


def test_what_a_local_one_says_of_its_reach_is_proven() -> None:
    check_clause(built("fcn", "timm:convnext_atto", head_width=4, skips=0), "probe")


def test_with_squeeze_excitation_one_pixel_changes_every_other() -> None:
    network = built("encoder_unet", "timm:mobilenetv3_small_050", widths=NARROW).eval()
    x = torch.zeros(1, 2, 3 * sum(network.reach), 1)
    x[:, :, 0] = float("nan")
    with torch.inference_mode():
        assert network(x).isnan().all()


@pytest.mark.parametrize("stem_skip", [True, False])
def test_a_decoder_has_no_skip_where_the_encoder_has_no_map(stem_skip: bool) -> None:
    network = built("encoder_unet", "timm:convnext_atto", widths=NARROW, stem_skip=stem_skip)
    inputs = [merge[0].conv.in_channels for merge in network.merge]
    assert inputs == [12 + 160, 10 + 80, 8 + 40, 6, 4 + 2 * stem_skip]
    rows = describe(network, (64, 96))
    assert [row.stride for row in rows] == [1, 2, 4, 8, 16, 32]
    assert rows[1].skip_bytes == 0
    assert rows[2].skip_bytes == 4 * 40 * 16 * 24


def test_a_network_without_memory_can_be_described_and_a_copy_computes() -> None:
    network = sketch("encoder_unet", options={"encoder": "timm:convnext_atto"})
    assert network.local
    assert multiply_adds(network, (64, 64)) > 0
    kept = built("fcn", "timm:resnet18", head_width=8).eval()
    x = torch.randn(1, 2, 40, 40)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(kept)(x), kept(x))


def test_a_run_names_its_encoder_and_loads_again(tmp_path: Path) -> None:
    folder, run, drawn = tmp_path / "data", tmp_path / "run", np.random.default_rng(0)
    for index in range(4):
        for name, shape in (("images", (64, 64, 3)), ("masks", (64, 64))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.integers(0, 2, shape, np.uint8)).save(folder / name / f"{index}.png")
    words = ["--model", "fcn", "--encoder", "timm:test_convnext3", "--steps", "2", "--precision", "float32"]
    words += ["--crop", "64", "--batch", "2", "--device", "cpu"]
    assert main(["train", str(folder / "images"), str(folder / "masks"), "-o", str(run), *words]) == 0
    assert '"encoder": "timm:test_convnext3"' in (run / "config.json").read_text(encoding="utf-8")
    assert keepmap.load(run)(np.zeros((40, 70, 3), np.uint8)).shape == (40, 70)


def test_imagenet_weights_are_not_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "fcn", "--encoder", "timm:resnet18", "--weights", "imagenet"]
    assert main(["train", "images", "masks", "-o", str(tmp_path / "run"), *words]) == 2
    assert "ImageNet weights of timm's networks are not fetched." in capsys.readouterr().err


def test_the_shell_describes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "encoder_unet", "--set", "encoder=timm:mobilenetv3_small_050", "--size", "64x64"]) == 0
    assert "tiles are not exact" in capsys.readouterr().out
    assert main(["models", "encoder_unet", "--set", "encoder=timm:resnet19"]) == 2
    assert "did you mean resnet1" in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ["resnet18", "mobilenetv3_small_050", "test_convnext3"])
def test_folding_its_norms_changes_no_logit(encoder: str) -> None:
    network = built("fcn", f"timm:{encoder}", head_width=8).eval()
    network.encoder.load_state_dict(network.encoder.from_timm(timm_network(encoder).state_dict()))
    x = torch.randn(1, 2, 40, 70)
    with torch.inference_mode():
        expected = network(x)
        folded = fold_batch_norms(copy.deepcopy(network))
        assert torch.allclose(folded(x), expected, atol=1e-5 * float(expected.abs().max()))
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.encoder.modules())
    assert sum(isinstance(module, nn.Identity) for module in folded.encoder.modules()) >= norms


def test_the_encoder_is_in_the_recipe() -> None:
    name, options = network_recipe(built("encoder_unet", "timm:convnext_atto"))
    assert options["encoder"] == "timm:convnext_atto"
    again = build_network(name, channels=2, classes=3, options=options)
    again.load_state_dict(built("encoder_unet", "timm:convnext_atto").state_dict(), strict=True)


@pytest.mark.parametrize("channels", [1, 3, 7])
def test_takes_any_number_of_channels(channels: int) -> None:
    with torch.device("meta"):
        encoder = build_encoder("timm:resnet18", channels)
        assert len(encoder(torch.zeros(1, channels, 64, 64))) == 5


REFUSED = {
    "tf_efficientnet_b0": r"conv_stem \(Conv2dSame\)",
    "swin_tiny_patch4_window7_224": "patch_embed",
    "vit_tiny_patch16_224": "stride 16, 16, 16",
    "convmixer_768_32": "stride 7, 7, 7",
    "xception41": "features that hooks collect",
    "inception_v4": "maps of|Kernel size",
    "convnextv2_atto": "GlobalResponseNorm",
    "efficientvit_b0": "symbolically traced variables",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_its_name(name: str) -> None:
    with torch.device("meta"), pytest.raises(OptionError, match=f"timm:{name} cannot be an encoder here") as caught:
        build_encoder(f"timm:{name}", 3)
    assert re.search(REFUSED[name], caught.value.found)
    assert "timm:resnet50" in caught.value.do


class Strange(nn.Module):
    """Two maps, and between them what a network of timm might do next year."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.stages = nn.ModuleList(nn.Conv2d(width, 4, 3, 2, 1) for width in (3, 4, 4))
        self.place = nn.Parameter(torch.ones(1, 1, 1, 8))
        self.norm, self.matrix = nn.LayerNorm(4), nn.Linear(4, 4)
        self.feature_info = SimpleNamespace(reduction=lambda: [2, 4, 8])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = maps[-1]
        changed = {
            "position": lambda: x * self.place,
            "sum of rows": lambda: x.cumsum(2),
            "mean of rows": lambda: x * x.mean((2,), keepdim=True),
            "matrix over columns": lambda: self.matrix(x),
            "norm over columns": lambda: self.norm(x),
            "rows and columns": lambda: x.permute(0, 1, 3, 2),
            "channels last": lambda: x.permute(0, 2, 3, 1),
            "rows side by side": lambda: torch.cat([x, x], 2),
            "a number": lambda: x + 1,
            "nothing": lambda: x,
            "a sum": lambda: torch.cat([x, x + x.mean((2, 3), keepdim=True)], 1),
        }[self.what]()
        return [*maps[:-1], changed]


STRANGE = {
    "position": "mul",
    "sum of rows": "cumsum",
    "mean of rows": "mean",
    "matrix over columns": r"matrix \(Linear\)",
    "norm over columns": r"norm \(LayerNorm\)",
    "rows and columns": "permute",
    "channels last": "features with channels last",
    "rows side by side": "cat",
    "a number": "add",
}


@pytest.mark.parametrize("what", STRANGE)
def test_what_sees_more_than_it_seems_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_timm(), "create_model", lambda *args, **kwargs: Strange(what))
    with pytest.raises(OptionError, match="cannot be an encoder here") as caught:
        TimmEncoder("resnet18", 3)
    assert re.fullmatch(STRANGE[what], caught.value.found)


@pytest.mark.parametrize("what", ["nothing", "a sum"])
def test_what_is_known_is_not(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_timm(), "create_model", lambda *args, **kwargs: Strange(what))
    encoder = TimmEncoder("resnet18", 3).eval()
    network = Strange(what).eval()
    network.load_state_dict(encoder.net.state_dict(), strict=False)
    x = torch.randn(1, 3, 16, 24)
    assert torch.equal(encoder(x)[-1], network(x)[-1])


def test_a_misspelt_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"There is no encoder timm:resnet-18.") as caught:
        build_encoder("timm:resnet-18", 3)
    assert "resnet18" in caught.value.expected
    with pytest.raises(OptionError, match=r"timm\.list_models") as caught:
        check_name("qqqqqqqq")
    with pytest.raises(OptionError, match="did you mean"):
        keepmap.build_model("encoder_unet", channels=3, classes=2, encoder="timm:convnext_ato")


def test_without_timm_the_install_line_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "available", lambda name: False)
    with pytest.raises(MissingPackage, match="timm, which is not installed") as caught:
        build_encoder("timm:resnet18", 3)
    assert caught.value.do == "pip install timm"


@pytest.mark.parametrize(
    "error", [RuntimeError("operator torchvision::nms does not exist"), ImportError("no torchvision")]
)
def test_a_torchvision_of_another_build_is_named(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, purpose: str) -> None:
        raise error

    monkeypatch.setattr(external, "load", load)
    with pytest.raises(MissingPackage, match="needs torchvision, of the same build as torch") as caught:
        build_encoder("timm:resnet18", 3)
    assert caught.value.found == str(error)
    assert "install torch and torchvision together" in caught.value.do
