"""The card tells what the files of a RUN tell, and gets by with fewer of them."""

from __future__ import annotations

import json
from pathlib import Path

import keepmap
from keepmap.serving.card import model_card


def test_card_of_a_run(run: Path, tmp_path: Path) -> None:
    predictor = keepmap.load(run, precision="float32")
    card = model_card(run, predictor, predictor.runtime)
    assert card["trained"] == {} and card["runtime"] == "PyTorch" and str(run.parent) not in json.dumps(card)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes((run / "config.json").read_bytes())
    (copy / "split.json").write_text(json.dumps({"format": 1, "train": ["a", "b"], "validation": ["c"]}))
    (copy / "plan.json").write_text(json.dumps({"format": 1, "steps": {"value": 9}, "batch": {"value": 4}}))
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "validation_mean_iou": 0.51239}, {"validation_mean_iou": None}]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    assert model_card(copy, predictor, predictor.runtime)["trained"] == {
        "images": 2, "held_out": 1, "batch": 4, "steps": 2, "mean_iou_held_out": 0.5124,
    }  # fmt: skip
