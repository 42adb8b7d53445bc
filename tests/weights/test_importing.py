"""A RUN from a file of another library: labels, normalisation, and everything that may be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import keepmap
from keepmap.data.drawn import draw_dataset
from keepmap.errors import DownloadError, OptionError, OutputError, RunError, WeightsError
from keepmap.networks.catalogue import build_network
from keepmap.protocols import Silent
from keepmap.runs import RunFolder, read_tensors
from keepmap.weights import importing
from keepmap.weights.sources import SOURCES


class Heard(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def small_unet(classes: int = 3, channels: int = 3) -> dict[str, Any]:
    """A narrow U-Net under the names of milesial's."""
    torch.manual_seed(0)
    options = {"widths": (4, 6, 8, 10, 12), "match": "pad"}
    network = build_network("unet", channels=channels, classes=max(classes, 2), options=options)
    theirs = SOURCES["milesial:unet"].theirs
    state = {theirs(name): tensor for name, tensor in network.state_dict().items() if name not in ("mean", "std")}
    return {name: tensor[:classes] if name.startswith("outc") else tensor for name, tensor in state.items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(small_unet(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_the_run_predicts_from_its_path_alone(file: Path, tmp_path: Path) -> None:
    out = keepmap.import_weights(file, "milesial:unet", tmp_path / "run")
    file.unlink()
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors"}
    config = RunFolder(out).read_config()
    assert (config.network, config.channels, config.dtype) == ("unet", 3, "uint8")
    assert config.labels.values == (0, 1, 2)
    assert config.labels.names == ("class 0", "class 1", "class 2")
    assert read_tensors(out / "model.safetensors")[1] == {"source": "milesial:unet", "file": "net.pth"}
    Image.fromarray(np.zeros((33, 47, 3), np.uint8)).save(tmp_path / "a.png")
    (mask,) = keepmap.predict(out, tmp_path / "a.png", tmp_path / "masks")
    with Image.open(mask) as written:
        assert written.size == (47, 33)


def test_training_begins_from_it_and_does_not_go_on_with_it(file: Path, tmp_path: Path) -> None:
    torch.save(small_unet(classes=7), file)
    out = keepmap.import_weights(file, "milesial:unet", tmp_path / "run")
    with pytest.raises(RunError, match="was not trained here") as caught:
        keepmap.train(out=out, resume=True)
    assert caught.value.do == f"keepmap train IMAGES MASKS -o NEW --init {out}"
    draw_dataset(tmp_path, count=4, seed=0)
    heard = Heard()
    run = keepmap.train(
        tmp_path / "images", tmp_path / "masks", tmp_path / "next", init=str(out), steps=1, crop=32, batch=2,
        device="cpu", precision="float32", progress=heard,
    )  # fmt: skip
    assert (run.plan.network, run.plan.options["widths"]) == ("unet", [4, 6, 8, 10, 12])
    assert any(line.startswith("network unet: the network of --init") for line in heard.lines)
    (line,) = (line for line in heard.lines if line.startswith("init "))
    assert line.endswith("not: head.bias, head.weight")


@pytest.mark.parametrize(
    ("stored", "values"),
    [([0, 128, 255], (0, 128, 255)), ([0, 1], (0, 1, 2)), ([[0, 0], [1, 1], [2, 2]], (0, 1, 2)), ("abc", (0, 1, 2))],
)
def test_label_values_are_those_that_the_training_wrote_down(
    stored: Any, values: tuple[int, ...], tmp_path: Path
) -> None:
    torch.save({**small_unet(), "mask_values": stored}, tmp_path / "net.pth")
    out = keepmap.import_weights(tmp_path / "net.pth", "milesial:unet", tmp_path / "run")
    assert RunFolder(out).read_config().labels.values == values


def test_options_take_the_place_of_the_table(file: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("sky\nsea\nland\n")
    out = keepmap.import_weights(
        file, "milesial:unet", tmp_path / "run", classes=str(names), mean=(1, 2, 3), std=(4.0,)
    )
    network, config = RunFolder(out).load_network()
    assert config.labels.names == ("sky", "sea", "land")
    assert (network.mean.tolist(), network.std.tolist()) == ([1, 2, 3], [4, 4, 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (1.0, 2.0)}, "--mean of milesial:unet must have one number for each channel"),
        ({"std": ()}, "--std of milesial:unet must have one number"),
        ({"mean": (0.485,) * 3, "std": (0.229,) * 3}, "in raw values"),
        ({"mean": (float("nan"),)}, "in raw values"),
        ({"std": (float("inf"),)}, "in raw values"),
        ({"mean": (300.0,)}, "in raw values"),
        ({"classes": "two.txt"}, "does not name the classes"),
    ],
)
def test_numbers_and_names_that_cannot_be_are_refused(
    options: dict[str, Any], message: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.txt").write_text("a\nb\n")
    with pytest.raises(OptionError, match=message):
        keepmap.import_weights(file, "milesial:unet", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_normalisation_of_colours_is_not_guessed_for_other_channels(tmp_path: Path) -> None:
    source = SOURCES["smp:unet-resnet18"]
    network = build_network("encoder_unet", channels=4, classes=2, options=source.recipe({}).options)
    theirs = source.theirs
    state = {theirs(name): tensor for name, tensor in network.state_dict().items() if name not in ("mean", "std")}
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(OptionError, match="--mean of smp:unet-resnet18") as caught:
        keepmap.import_weights(tmp_path / "net.pth", "smp:unet-resnet18", tmp_path / "run")
    assert caught.value.do == "pass --mean, in raw values from 0 to 255"


def test_what_is_wrong_is_named_and_leaves_no_run(file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(OptionError, match=r"did you mean milesial:unet\?"):
        keepmap.import_weights(file, "milesial:unett", run)
    with pytest.raises(WeightsError, match="another network") as caught:
        keepmap.import_weights(file, "torchvision:fcn_resnet50", run)
    assert "missing: backbone.conv1.weight" in caught.value.found
    assert "not of this network: inc.double_conv.0.weight" in caught.value.found
    with pytest.raises(WeightsError, match="is no file"):
        keepmap.import_weights(tmp_path / "absent.pth", "milesial:unet", run)
    assert not run.exists()
    run.mkdir()
    (run / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no empty folder"):
        keepmap.import_weights(file, "milesial:unet", run)


def test_published_stands_for_what_the_source_offers(
    server: Any, cache: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="no published weights"):
        keepmap.import_weights("published", "smp:unet-resnet34", tmp_path / "run")
    monkeypatch.setitem(importing.SEGMENTATION, "milesial:unet", server.published("full", "unet.pth"))
    with pytest.raises(DownloadError, match="offline"):
        keepmap.import_weights("published", "milesial:unet", tmp_path / "run", offline=True)
    cache.mkdir(parents=True)
    (cache / "unet.pth").write_bytes(file.read_bytes())
    out = keepmap.import_weights("published", "milesial:unet", tmp_path / "run", offline=True)
    assert read_tensors(out / "model.safetensors")[1]["file"] == "unet.pth"
    assert server.asked == []
