"""What the files of a RUN say; the command that they tell trains the same again."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import keepmap
from keepmap.cli.main import main
from keepmap.data.labels import LabelSet, default_colours
from keepmap.inference.predictor import Predictor
from keepmap.options import EvaluateOptions, TrainOptions
from keepmap.planning.plan import ENTRIES
from keepmap.reporting.run_facts import (
    command_line,
    course,
    curve,
    data_rows,
    file_rows,
    model_rows,
    plan_groups,
    read_facts,
    remarks,
    train_command,
)
from keepmap.runs import RunFolder
from keepmap.runtime.exported import ExportedRuntime


def test_the_command_gives_the_same_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(keepmap, "train", lambda *a, **o: calls.append((a, o)) or (_ for _ in ()).throw(SystemExit))
    options = TrainOptions(
        model="unet", set={"widths": (16,), "deep": 2, "residual": True}, steps=7, deterministic=True, classes="a b.txt"
    )
    line = command_line("train", ["my images", "masks", "-o", "run"], options, TrainOptions())
    assert line.startswith("keepmap train 'my images' masks -o run --classes 'a b.txt'")
    with pytest.raises(SystemExit):
        main(shlex.split(line)[1:])
    folders, given = calls[0]
    assert folders == (Path("my images"), Path("masks"), Path("run"))
    for name, value in vars(options).items():
        assert given[name] == value, name
    several = command_line("evaluate", ["a"], EvaluateOptions(tta="flips", ensemble=("b", "c d")), EvaluateOptions())
    assert several == "keepmap evaluate a --tta flips --ensemble b --ensemble 'c d'"
    assert command_line("evaluate", ["a", "b"], EvaluateOptions(), EvaluateOptions()) == "keepmap evaluate a b"


def test_facts_are_those_of_the_files(reported: Any) -> None:
    facts = read_facts(reported.run)
    assert facts.plan is not None and facts.split is not None
    assert {name for _, rows in plan_groups(facts.plan) for name, *_ in rows} == set(ENTRIES)
    rows = dict(data_rows(facts))
    assert rows["trained on"] == "5 images"
    assert rows["held out"].startswith("4 images, those of")
    assert rows["images"] == str((reported.data / "images").resolve())
    model = dict(model_rows(facts, 2.5, "mps"))
    assert model["network"] == "unet"
    assert model["large images"].startswith("in bands of rows, exact")
    other = replace(facts, config=replace(facts.config, options={"norm": "instance"}))
    assert "blended with Gaussian weights" in dict(model_rows(other, None, "cpu"))["large images"]
    assert model["speed"] == "about 2.5 megapixels a second on the machine that wrote this page, mps"
    assert "temperature" in model
    assert course(facts).startswith("2 of 2 steps")
    assert curve(facts, "validation_mean_iou")[0]
    assert train_command(facts).startswith("keepmap train ")
    assert train_command(facts).endswith("# from Python, with network=...")
    assert len(remarks(facts)) == reported.run.metrics_file.read_text().count('"remark"')


@pytest.mark.parametrize("local", [True, False])
def test_an_exported_file_has_its_network_and_no_bands(tmp_path: Path, local: bool) -> None:
    (tmp_path / "model.onnx").write_bytes(bytes(2048))
    labels = LabelSet((0, 1), ("a", "b"), None, default_colours(2))
    manifest: Any = SimpleNamespace(
        network="unet", labels=labels, channels=3, mean=(0, 0, 0), stride=4, reach=(8, 8), local=local
    )
    runtime = ExportedRuntime(manifest, lambda x: x, name="R 1", precision="int8", share=1.0)
    predictor = Predictor(runtime, labels, dtype="uint8")
    rows = dict(file_rows(tmp_path, predictor, 2.5))
    assert rows == dict(file_rows(tmp_path / "model.onnx", predictor, 2.5))
    assert (rows["network"], rows["takes"]) == ("unet", "3 channels of uint8, any size")
    assert rows["file"] == "model.onnx, 2 KiB"
    assert rows["speed"].endswith("R 1, int8 on cpu")
    assert ("exact" in rows["large images"]) == local and "bands" not in rows["large images"]


def test_an_imported_run_has_no_training_and_a_network_of_ones_own_no_arithmetic(reported: Any, tmp_path: Path) -> None:
    config = json.loads(reported.run.config_file.read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "foreign": True, "network": "Own"}))
    (tmp_path / "model.safetensors").write_bytes(reported.run.model_file.read_bytes())
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "los')  # a process that was killed while it wrote
    facts = read_facts(RunFolder(tmp_path))
    assert (facts.plan, facts.split, train_command(facts), course(facts), data_rows(facts)) == (None, None, "", "", [])
    rows = dict(model_rows(facts, None, "cpu"))
    assert rows["network"] == "Own" and "values" in rows and "arithmetic" not in rows and "speed" not in rows
