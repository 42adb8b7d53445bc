"""What is an artefact, and what is asked of one that it cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

import keepmap
from keepmap.artefacts import loading
from keepmap.artefacts.loading import is_artefact, load_averaged, model_digests, model_files, open_artefact
from keepmap.data.labels import LabelSet, default_colours
from keepmap.errors import ArtefactError, OptionError, RunError
from keepmap.inference.predictor import Predictor
from keepmap.networks.catalogue import build_network
from keepmap.options import AveragingOptions
from keepmap.runtime.averaged import AveragedRuntime
from keepmap.runtime.torch_runtime import TorchRuntime


def test_files_and_folders_are_told_from_runs(tmp_path: Path) -> None:
    assert is_artefact(tmp_path / "net.onnx")
    assert is_artefact(tmp_path / "net.XML")
    assert not is_artefact(tmp_path)
    (tmp_path / "model.xml").touch()
    assert is_artefact(tmp_path)


def test_a_truncated_file_and_none_are_named_errors(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="does not exist"):
        keepmap.load(tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a\x3a\xff\xff\x01")
    with pytest.raises(ArtefactError, match=r"net\.onnx is no whole ONNX file"):
        keepmap.load(tmp_path / "net.onnx")
    with pytest.raises(OptionError, match="on the CPU"):
        open_artefact(tmp_path / "net.onnx", device="cuda")
    with pytest.raises(OptionError, match="knows its network itself"):
        keepmap.load(tmp_path / "net.onnx", network=object())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="it needs images"):
        keepmap.evaluate(tmp_path / "net.onnx", tmp_path)


def test_what_is_averaged_was_made_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: Path, *_: object) -> Predictor:
        network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
        labels = LabelSet((0, 255), ("ground", path.name), None, default_colours(2))
        return Predictor(TorchRuntime(network, device="cpu"), labels, memory_bytes=12345, way="tiles")

    monkeypatch.setattr(loading, "load_predictor", load)
    with pytest.raises(RunError, match=r"(?s)one/cell and two/wall are made for other.*255 cell.*255 wall"):
        load_averaged(Path("one/cell"), AveragingOptions(ensemble=("two/wall",)))
    for others in (("one/cell",), ("one/../one/cell",), ("two/cell", "two/cell/")):
        with pytest.raises(OptionError, match=r"(?s)is in the mean already.*one/cell \+ .*leave out --ensemble"):
            load_averaged(Path("one/cell"), AveragingOptions(ensemble=others))
    with pytest.raises(OptionError, match="--tta turns does not exist"):
        load_averaged(Path("cell"), AveragingOptions(tta="turns"))
    assert isinstance(load_averaged(Path("cell"), AveragingOptions()).runtime, TorchRuntime)
    both = load_averaged(Path("one/cell"), AveragingOptions(way="tiles", ensemble=("two/cell",)))
    assert isinstance(both.runtime, AveragedRuntime)
    assert (both.memory_bytes, both.labels.names[1]) == (12345, "cell")
    assert both.plan_way(900, 900).kind == "tiles"
    with pytest.raises(OptionError, match="cannot be computed in bands"):
        load_averaged(Path("cell"), AveragingOptions(tta="flips", way="bands")).plan_way(900, 900)


def test_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "plan.json"):
        (tmp_path / name).write_text(name)
    assert set(model_digests(tmp_path)) == {"config.json", "model.safetensors"}
    (tmp_path / "net.xml").write_text("x")
    (tmp_path / "net.bin").write_text("b")
    one = model_digests(tmp_path / "net.xml")
    assert set(one) == {"net.xml"}
    assert [file.name for file in model_files(tmp_path / "net.xml")] == ["net.xml", "net.bin"]
    (tmp_path / "net.xml").write_text("y, which names other weights")
    assert model_digests(tmp_path / "net.xml") != one
