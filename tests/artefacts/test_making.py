"""From a RUN to a file that predicts what the RUN predicts; and nothing at all where it does not."""

from __future__ import annotations

import copy
import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keepmap
from keepmap.artefacts import making, parity
from keepmap.cli.main import main
from keepmap.config import writing
from keepmap.errors import ContractError, DiskFull, OptionError, OutputError, RunError

TARGETS = (("onnx", "onnxruntime", False), ("openvino", "openvino", False), ("openvino", "nncf", True))


@pytest.fixture
def item(exportables: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The small U-Net, whose graph is made already."""
    found = exportables["unet"]
    monkeypatch.setattr(making, "to_graph", lambda network, channels, temperature: copy.deepcopy(found.graph))
    monkeypatch.setattr(making, "use_cpu", lambda: 1)
    return found


@pytest.mark.parametrize(("to", "package", "int8"), TARGETS)
def test_artefact_predicts_and_scores_as_the_run_does(
    to: Any, package: str, int8: bool, item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    pytest.importorskip(package)
    monkeypatch.setattr(parity, "IOU_LOST", 0.1)
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.add(os.fstat(file).st_ino) or fsync(file))
    made = keepmap.export(item.run.path, to, tmp_path / "deployed", int8=int8)
    assert {path.stat().st_ino for path in made.folder.iterdir()} <= synced
    record = json.loads((tmp_path / "deployed" / "parity.json").read_text())
    assert record["file"] == made.path.name
    assert len(record["exact"]) >= 3
    assert record["difference"] == max(row["difference"] for row in record["exact"])
    assert 0 < record["agreement"] == made.parity.agreement <= 1
    assert record["images"] == 1
    assert {"keepmap", "torch", "onnx"} <= set(record["versions"])
    assert not [path for path in tmp_path.iterdir() if path.name != "deployed"]
    assert made.manifest.precision == ("int8" if int8 else "float32")
    assert len(made.manifest.weights) == 64
    images = item.run.path.parent / "images"
    for source, out in ((item.run.path, "a"), (made.path, "b"), (made.folder, "c")):
        words = ["predict", str(source), str(images), "-o", str(tmp_path / out), "--precision", "float32", "-q"]
        assert main(words if out != "c" else words[:-1]) == 0
    runtime = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[to]
    stated = "int8" if int8 else "float32 on cpu"
    assert re.search(f"computed by {runtime} .*CPU.*, {stated}", "".join(capsys.readouterr()))
    for name in "abcde":
        ours, theirs, folder = ((tmp_path / out / f"{name}.png").read_bytes() for out in "abc")
        assert theirs == folder
        assert int8 or ours == theirs
    masks = item.run.path.parent / "masks"
    scores = [keepmap.evaluate(p, images, masks, precision="float32").mean_iou for p in (item.run.path, made.path)]
    assert abs(scores[0] - scores[1]) <= (0.1 if int8 else 0)
    predictor = keepmap.load(made.path, memory="1M", precision="float32")
    assert "whole images or tiles" in predictor.plan_way(2000, 2000).because
    image = np.random.default_rng(0).integers(0, 256, (500, 70, 3), np.uint8)
    tiled = keepmap.load(made.path, memory="100K", precision="float32", way="tiles")
    assert tiled.plan_way(500, 70).tiles > 1
    assert np.array_equal(tiled(image), keepmap.load(made.path, precision="float32")(image)) or int8


def test_beyond_the_tolerance_nothing_is_written(item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(parity, "TOLERANCE", -1.0)
    (tmp_path / ".deployed.partial" / "of one that was killed").mkdir(parents=True)
    with pytest.raises(ContractError, match="nothing was written") as caught:
        keepmap.export(item.run.path, "onnx", tmp_path / "deployed")
    assert caught.value.clause == "parity"
    assert not list(tmp_path.iterdir())


def test_a_library_that_does_not_load_is_told_as_it_is(
    item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("libonnx.so: cannot open shared object file")

    monkeypatch.setattr(making, "to_graph", broken)
    with pytest.raises(OSError, match=r"^libonnx"):
        keepmap.export(item.run.path, "onnx", tmp_path / "deployed")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("reason", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, OutputError)])
def test_what_the_disk_refuses_is_told_of_the_folder_that_was_asked_for(
    reason: int, kind: type[OutputError], item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(graph: Any, to: str, manifest: Any, folder: Path) -> Path:
        with writing(folder / "model.onnx"):
            raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(making, "to_graph", lambda *_: None)
    monkeypatch.setattr(making, "write_graph", refused)
    with pytest.raises(OutputError, match=rf"{tmp_path / 'deployed'} cannot be written") as caught:
        keepmap.export(item.run.path, "onnx", tmp_path / "deployed")
    assert type(caught.value) is kind
    assert "partial" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_int8_keeps_more_layers_until_it_is_good_enough(
    item: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    tried: list[int] = []

    def quantised(model: Any, to: str, crops: Any, kept: tuple[str, ...]) -> Any:
        tried.append(len(kept))
        return model

    monkeypatch.setattr(making, "quantised", quantised)
    monkeypatch.setattr(making, "require_packages", lambda to, int8: None)
    monkeypatch.setattr(making, "crops_of", lambda pictures, mean: [])
    monkeypatch.setattr(making, "samples", lambda *arguments: [np.zeros((1, 3, 9, 9), np.float32)])
    monkeypatch.setattr(parity, "IOU_LOST", -1.0)
    with pytest.raises(ContractError):
        keepmap.export(item.run.path, "onnx", tmp_path / "deployed", int8=True)
    assert tried == [1, 2, 5]  # 0, 1 and 4 layers, and the division by the temperature


def test_what_can_be_refused_is_refused_first(item: Any, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    run = item.run.path
    for arguments, options, error, said in (
        ((run, "onix"), {}, OptionError, "did you mean onnx"),
        ((run, "onnx", tmp_path / "full"), {}, OutputError, "no empty folder"),
        ((run, "onnx", tmp_path / "model.onnx"), {}, OutputError, "is to be a folder"),
        ((run, "onnx", tmp_path / "new"), {"calibration": "x"}, OptionError, "--calibration is for --int8"),
        ((tmp_path / "no", "onnx", tmp_path / "new"), {}, RunError, "is no RUN"),
    ):
        with pytest.raises(error, match=said):
            keepmap.export(*arguments, **options)
    assert not (tmp_path / "new").exists()
