"""A network of the user's own: refused before anything is made, trained, saved, continued bit for bit, loaded."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from keepmap.errors import ContractError, OptionError, RunError
from keepmap.networks.catalogue import build_network
from keepmap.options import TrainOptions
from keepmap.planning.fingerprint import Fingerprint
from keepmap.planning.plan import Cost
from keepmap.protocols import Silent
from keepmap.runs import RunFolder, read_tensors
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training import loop
from keepmap.training.engine import Engine
from keepmap.training.given import adopt, choose_given
from keepmap.training.session import begin, go_on

OPTIONS = TrainOptions(steps=3, crop=32, batch=2, precision="float32", device="cpu")
GREY = Fingerprint(
    images=9, channels=1, dtype="uint8", heights=(70, 70, 70), widths=(90, 90, 90), mean=(40.0,), deviation=(30.0,),
    value_range=(0.0, 255.0), class_shares=(0.8, 0.2), image_shares=(1.0, 1.0), median_frequency=(0.6, 2.5),
    row_offsets=(0.0, 0.01), brighter=0.8,
)  # fmt: skip


class Tiny(nn.Module):
    """Three convolutions, two of which are one and the same; it remembers the dtypes of what it computed last."""

    stride, reach, local = 1, (2, 2), True

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 4) -> None:
        super().__init__()
        self.channels, self.classes = channels, classes
        self.first = nn.Conv2d(channels, width, 1)
        self.second = self.third = nn.Conv2d(width, width, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Conv2d(width, classes, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(self.first(x / 100)))
        y = self.head(self.drop(torch.relu(self.third(y))))
        self.seen = [x.dtype, y.dtype]
        return y


class Coarse(Tiny):
    """Logits of half the extent."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., ::2, ::2]


class Silenced(Tiny):
    """Heads for training, without their weights."""

    def forward_deep(self, x: Tensor) -> list[Tensor]:
        return [self(x), self(x)]


class Miscounted(Silenced):
    """Fewer weights than heads."""

    deep_heads = ((1, 1.0),)


class Deep(Silenced):
    """Two heads and what they weigh."""

    deep_heads = ((1, 0.5), (1, 0.5))


def tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Four grey images with masks of 0 and 255."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    random = np.random.default_rng(0)
    for name in "abcd":
        pixels = random.integers(0, 256, (40, 50), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.png")
        Image.fromarray(((pixels > 120) * 255).astype(np.uint8)).save(masks / f"{name}.png")
    return images, masks


def test_a_copy_is_taken_and_the_object_left_alone() -> None:
    network = tiny().double().eval()
    copied = adopt(network, OPTIONS)
    assert copied is not network
    assert copied.second is copied.third
    assert (copied.head.weight.dtype, network.head.weight.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(copied.head.weight, network.head.weight.float())
    assert adopt(Deep(), OPTIONS).deep_heads == ((1, 0.5), (1, 0.5))


@pytest.mark.parametrize(
    ("option", "said"),
    [({"model": "unet"}, "--model unet"), ({"encoder": "resnet18"}, "--encoder"), ({"weights": "none"}, "--weights")],
    ids=str,
)
def test_what_chooses_a_network_is_refused_beside_one(option: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError, match="nothing left to choose") as caught:
        adopt(tiny(), replace(OPTIONS, **option))  # type: ignore[arg-type]
    assert said in caught.value.found


@pytest.mark.parametrize(
    ("network", "clause"),
    [
        (lambda x: x, "members"),
        (nn.Conv2d(1, 2, 1), "members"),
        (Tiny(classes=1), "members"),
        (Coarse(), "size"),
        (Silenced(), "forward_deep"),
        (Miscounted(), "forward_deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_segmenter_is_refused_by_the_clause_it_breaks(network: nn.Module, clause: str) -> None:
    with pytest.raises(ContractError) as caught:
        adopt(network, OPTIONS)  # type: ignore[arg-type]
    assert caught.value.clause == clause


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(OptionError, match="no parameter to train"):
        adopt(tiny().requires_grad_(False), OPTIONS)


@pytest.mark.parametrize(("network", "wrong"), [(Tiny(channels=3), "channels"), (Tiny(classes=5), "classes")])
def test_a_network_for_other_data_is_refused(
    network: Tiny, wrong: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(OptionError, match=f"{wrong}=") as caught:
        begin(*folders, run, OPTIONS, Silent(), network)
    assert caught.value.expected == {"channels": "channels=1", "classes": "classes=2"}[wrong]
    assert not run.path.exists()


def test_a_network_of_keepmap_is_known_by_its_recipe_and_normalised_once() -> None:
    network = build_network("unet", channels=1, classes=2, options={"widths": (4, 8), "up": "nearest"})
    choice = choose_given(network, GREY, 2, TrainOptions())
    assert (choice.network, choice.options["widths"], choice.options["up"]) == ("unet", [4, 8], "nearest")
    assert (network.mean.tolist(), network.std.tolist()) == ([40.0], [30.0])
    network.set_normalisation([7.0], [3.0])
    choice = choose_given(network, GREY, 2, TrainOptions())
    assert (choice.mean, choice.deviation, choice.because_mean) == ((7.0,), (3.0,), "the network that was handed over")
    assert network.mean.tolist() == [7.0]


def test_a_foreign_network_gets_raw_values() -> None:
    choice = choose_given(tiny(), GREY, 2, TrainOptions())
    assert (choice.network, choice.options, choice.mean) == ("Tiny", {}, (40.0,))
    assert "raw values" in choice.because_mean


def test_it_is_trained_saved_and_wanted_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run, network = RunFolder(tmp_path / "run"), tiny()
    before = network.head.weight.clone()
    _, position, _ = begin(*folders, run, OPTIONS, Silent(), network)
    assert position.step == 3
    assert torch.equal(network.head.weight, before), "a copy is trained"
    config = run.read_config()
    assert (config.network, config.options, config.foreign) == ("Tiny", {}, True)
    trained, _ = run.load_network(tiny(seed=1))
    assert not torch.equal(trained.head.weight, before)
    assert trained.second is trained.third
    for name, tensor in read_tensors(run.model_file)[0].items():
        assert torch.equal(tensor, trained.state_dict()[name]), name
    for use in (run.load_network, lambda: go_on(run, Silent())):
        with pytest.raises(RunError, match="holds the weights of a network of your own") as caught:
            use()
        assert "class Tiny" in caught.value.found
        assert "from Python" in caught.value.do


def test_another_object_is_refused_by_the_names_that_differ(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    begin(*folders, run, OPTIONS, Silent(), tiny())

    class Other(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(4)))

    with pytest.raises(RunError, match=r"8 missing: extra\.0\.weight, .*extra\.2\.weight and 3 more\n") as caught:
        run.load_network(Other())
    assert "extra.3" not in caught.value.found
    with pytest.raises(RunError, match="of another shape: first"):
        run.load_network(Tiny(width=6))
    with pytest.raises(RunError, match="of another shape: network/first"):
        go_on(run, Silent(), Tiny(width=6))
    with pytest.raises(RunError, match="channels=3"):
        run.load_network(Tiny(channels=3))
    with pytest.raises(ContractError, match="no network"):
        run.load_network("Tiny")  # type: ignore[arg-type]


def test_an_object_is_refused_where_the_run_knows_its_network(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    own = build_network("unet", channels=1, classes=2, options={"widths": (4,)})
    begin(*folders, run, OPTIONS, Silent(), own)
    assert not run.read_config().foreign
    assert run.load_network()[0].config.widths == (4,)
    for use in (run.load_network, lambda given: go_on(run, Silent(), given)):
        with pytest.raises(OptionError, match="knows its network, unet, itself"):
            use(own)


def test_a_run_of_before_there_were_foreign_networks_is_read(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    own = build_network("unet", channels=1, classes=2, options={"widths": (4,)})
    begin(*folders, run, OPTIONS, Silent(), own)
    for file, name in ((run.config_file, "foreign"), (run.split_file, "set")):
        rows = json.loads(file.read_text())
        del (rows if file == run.config_file else rows["options"])[name]
        file.write_text(json.dumps(rows))
    assert run.load_network()[0].config.widths == (4,)
    assert go_on(run, Silent())[1].step == 3


def test_interrupted_and_continued_with_a_new_object_equals_uninterrupted(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "parts")
    begin(*folders, whole, OPTIONS, Silent(), tiny())
    real = Engine.step

    def step(self: Engine, *arguments: object) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("keepmap.training.preparing.measure_step", lambda *_, **__: Cost(1.0, 1))
        patch.setattr(loop.Engine, "step", step)
        _, position, _ = begin(*folders, parts, OPTIONS, Silent(), tiny())
    assert position.step == 1
    _, position, _ = go_on(parts, Silent(), tiny(seed=5))
    assert position.step == 3
    for one, other in ((whole.last_file, parts.last_file), (whole.model_file, parts.model_file)):
        expected, found = read_tensors(one)[0], read_tensors(other)[0]
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensor, found[name]), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_computes_as_it_was_trained(precision: str) -> None:
    """Floats come in whatever the image holds; weights stay float32, so that 16-bit values are whole in bfloat16."""
    network = tiny().eval()
    runtime = TorchRuntime(network, device="cpu", precision=precision)
    x = np.random.default_rng(0).integers(0, 60000, (1, 1, 21, 30)).astype(np.uint16)
    engine = Engine(tiny(), device="cpu", precision=precision)
    engine.step(torch.from_numpy(x.astype(np.float32)), torch.zeros(1, 21, 30, dtype=torch.int64), 0.0)
    found = runtime.run(x, "logits")
    inside: Tiny = runtime._network.network  # type: ignore[assignment]
    assert inside.seen == [torch.float32, getattr(torch, precision)]
    assert inside.seen[1] == engine.network.seen[1]  # type: ignore[index]
    with torch.inference_mode():
        want = network(torch.from_numpy(x.astype(np.float32))).numpy()
    tolerance = {"float32": 1e-5, "bfloat16": 0.03}[precision]
    assert np.abs(found - want).max() <= tolerance * np.abs(want).max()
    assert 0 < runtime.peak_bytes(64, 64) == pytest.approx(runtime.peak_bytes(128, 128) / 4, rel=1e-3)
