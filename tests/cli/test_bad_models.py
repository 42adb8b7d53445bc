"""What makes a prediction or an export fail, but for images, through the command line: named, nothing half-written.

The numbers are those of the table of faults, as in test_bad_files.py.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import keepmap
from keepmap.cli.main import main
from keepmap.data.labels import LabelSet, default_colours
from keepmap.networks.catalogue import build_network
from keepmap.runs import RunConfig, RunFolder, write_tensors
from keepmap.runtime import torch_runtime

Words = list[str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RUN that was never trained, and two images of 90 x 50 px."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "images").mkdir()
    for seed, name in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(0, 256, (90, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    torch.manual_seed(0)
    network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
    labels = LabelSet((0, 255), ("background", "cell"), None, default_colours(2))
    run = RunFolder(folder / "run")
    run.create()
    run.write_config(RunConfig("unet", {"widths": [4, 8]}, 3, "uint8", labels, keepmap.__version__))
    write_tensors(run.model_file, network.state_dict())
    return folder


def said(words: Words, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """What a command that ends with `code` says, in one line."""
    capsys.readouterr()
    assert main(words) == code
    both = capsys.readouterr()
    text = " ".join((both.out + both.err).split())
    assert "Traceback" not in text
    return text


def predict(made: Path, out: Path, model: Path | None = None, *more: str) -> Words:
    return ["predict", str(model or made / "run"), str(made / "images"), "-o", str(out), "--device", "cpu", *more]


def copy_of(made: Path, folder: Path) -> Path:
    return Path(shutil.copytree(made / "run", folder / "run"))


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_37_a_lack_of_memory_is_met_with_smaller_parts_or_named(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said(predict(made, tmp_path / "whole"), capsys, 0)
    real = torch_runtime.delivered

    def short(logits: Any, *others: Any) -> Any:
        if logits.shape[2] * logits.shape[3] >= 90 * 50:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return real(logits, *others)

    monkeypatch.setattr(torch_runtime, "delivered", short)
    told = said(predict(made, tmp_path / "out"), capsys, 0)
    assert "the memory did not suffice for one pass; 6 tiles of 44 x" in told
    masks = [np.stack([Image.open(tmp_path / out / f"{n}.png") for n in "ab"]) for out in ("whole", "out")]
    assert np.mean(masks[0] != masks[1]) < 1e-2
    text = said(predict(made, tmp_path / "no", None, "--way", "pass"), capsys, 1)
    assert "The memory of cpu does not suffice for one pass of 1 image of 90x50 px. found [enforce fail" in text
    assert "do pass a smaller --memory to predict or evaluate" in text
    assert tree(tmp_path / "no") == set()


@pytest.mark.parametrize("verb", ["predict", "export"])
def test_40_a_full_disk_is_said_and_old_files_stay(
    verb: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = predict(made, out) if verb == "predict" else ["export", str(made / "run"), "--to", "onnx", "-o", str(out)]
    if verb == "predict":
        shutil.copytree(made / "images", out)
    before = {name: (tmp_path / name).read_bytes() for name in tree(tmp_path)}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr("keepmap.artefacts.making.to_graph", lambda *_: None)
    monkeypatch.setattr("keepmap.artefacts.making.in_target", lambda graph, to, scratch: scratch.write_text("half"))
    monkeypatch.setattr("keepmap.artefacts.making.write_graph", full)
    text = said(words, capsys, 1)
    assert f"DiskFull: The disk is full: {out}" in text
    assert "found No space left on device" in text
    assert {name: (tmp_path / name).read_bytes() for name in tree(tmp_path)} == before


@pytest.mark.parametrize(
    ("number", "code", "whole_ones"), [(signal.SIGINT, 130, set()), (signal.SIGTERM, 143, {"a.png"})]
)
def test_42_a_prediction_that_is_interrupted_goes_on_to_the_same_bytes(
    number: signal.Signals, code: int, whole_ones: set[str], made: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """In the middle of the first image, and of the second; the signals are real ones."""
    monkeypatch.setattr("keepmap.inference.files._SAVED_EVERY", 0.0)
    more = ("--way", "bands", "--memory", "1K", "--probabilities", "--review")
    out, real, done, last = tmp_path / "out", torch_runtime.delivered, [], 0

    def stopped(*given: Any) -> Any:
        done.append(given)
        if len(done) == last:
            signal.raise_signal(number)
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(torch_runtime, "delivered", stopped)
        said(predict(made, tmp_path / "whole", None, *more), capsys, 0)
        last = len(done) - 2 if whole_ones else 4
        done.clear()
        text = said(predict(made, out, None, *more), capsys, code)
    assert f"Interrupted; the masks in {out} are whole. do the same command with --resume goes on" in text
    assert {name for name in tree(out) if name.endswith(".png")} == whole_ones
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("keepmap-")]
    assert "goes on at" in said(predict(made, out, None, *more, "--resume"), capsys, 0)
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in tree(tmp_path / "whole")}
    found = {name: (out / name).read_bytes() for name in tree(out)}
    assert found.pop("prediction.jsonl") and whole.pop("prediction.jsonl")
    assert found == whole


def blocked(tmp_path: Path, name: str) -> Path:
    (tmp_path / "file").write_text("mine")
    return {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "sub", "long": tmp_path / ("x" * 300),
            "no folder": Path(os.devnull) / "out"}[name]  # fmt: skip


@pytest.mark.parametrize("verb", ["predict", "export"])
@pytest.mark.parametrize("name", ["a file", "below a file", "long", "no folder"])
def test_44_an_output_that_cannot_be_written_is_found_first(
    name: str, verb: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch_runtime.TorchRuntime, "run", None)
    monkeypatch.setattr("keepmap.artefacts.making.to_graph", None)
    out = blocked(tmp_path, name)
    words = predict(made, out) if verb == "predict" else ["export", str(made / "run"), "--to", "onnx", "-o", str(out)]
    text = said(words, capsys)
    assert f"OutputError: The folder {out} cannot be written. found" in text or f"OutputError: {out} " in text
    assert tree(tmp_path) == {"file"} and (tmp_path / "file").read_text() == "mine"


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return open, (str(self.place), "w")


@pytest.mark.parametrize("verb", ["predict", "export", "serve", "evaluate"])
def test_46_weights_that_would_run_code_do_not(
    verb: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, place = copy_of(made, tmp_path), tmp_path / "payload"
    images = str(made / "images")
    more = {"predict": [images, "-o", str(tmp_path / "out")], "export": ["--to", "onnx"], "serve": ["--port", "0"],
            "evaluate": [images, images]}[verb]  # fmt: skip
    for write in (lambda path: path.write_bytes(pickle.dumps(Payload(place))), lambda path: torch.save(
                  {"weights": Payload(place)}, path)):  # fmt: skip
        write(run / "model.safetensors")
        text = said([verb, str(run), *more], capsys)
        assert "model.safetensors cannot be read." in text and "expected a safetensors file written by keepmap" in text
    assert not place.exists()


def other_widths(run: Path) -> None:
    values = json.loads((run / "config.json").read_text())
    values["options"]["widths"] = [4, 8, 16]
    (run / "config.json").write_text(json.dumps(values))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "half": (lambda run: (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes()[:4000]),
             "model.safetensors cannot be read. found"),
    "empty": (lambda run: (run / "model.safetensors").write_bytes(b""), "model.safetensors cannot be read. found"),
    "giant header": (lambda run: (run / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}"),
                     "model.safetensors cannot be read. found Error while deserializing header: header too large"),
    "missing": (lambda run: (run / "model.safetensors").unlink(), "has no model yet. found no model.safetensors"),
    "another network": (other_widths, "holds the weights of another network. found 26 missing: down.1.0.conv.weight"),
}  # fmt: skip


@pytest.mark.parametrize("verb", ["predict", "export"])
@pytest.mark.parametrize("case", BROKEN)
def test_47_weights_that_are_broken_or_of_another_network_are_named(
    case: str, verb: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(made, tmp_path)
    BROKEN[case][0](run)
    out = tmp_path / "out"
    words = predict(made, out, run) if verb == "predict" else ["export", str(run), "--to", "onnx", "-o", str(out)]
    text = said(words, capsys)
    assert BROKEN[case][1] in text and len(text) < 700
    assert not out.exists()
