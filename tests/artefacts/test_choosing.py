"""Which of several runtimes is taken, what is kept of the choice, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import keepmap
from keepmap.artefacts import choosing
from keepmap.artefacts.choosing import path_for
from keepmap.artefacts.graphs import FILES
from keepmap.errors import ArtefactError, OptionError
from keepmap.options import PredictOptions
from keepmap.protocols import Silent
from keepmap.runs import write_tensors

AUTO = PredictOptions(runtime="auto")


@pytest.fixture(scope="module")
def exported(exportables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RUN with exports for both runtimes."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    run = tmp_path_factory.mktemp("choosing") / "run"
    shutil.copytree(exportables["unet"].run.path, run)
    for target in ("onnx", "openvino"):
        keepmap.export(run, target)
    return run


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[int]]:
    """Seconds that the candidates take, in their order; returns how often they were measured."""
    monkeypatch.setenv("KEEPMAP_CACHE", str(tmp_path / "cache"))

    def take(*seconds: float) -> list[int]:
        times = [0]

        def measured(candidates: list[Any]) -> dict[str, float]:
            times[0] += 1
            return {each.target: taken for each, taken in zip(candidates, seconds, strict=True)}

        monkeypatch.setattr(choosing, "_measured", measured)
        return times

    return take


def test_the_fastest_is_taken_and_the_measurement_is_kept(exported: Path, timed: Any, lines: Any) -> None:
    times = timed(0.3, 0.2, 0.1)
    assert path_for(exported, AUTO, lines) == exported / "openvino"
    assert "OpenVINO" in lines.said[0].split("(")[0]
    assert "PyTorch" in lines.said[0] and "measured now" in lines.said[0]
    timed(0.1, 0.2, 0.3)
    assert path_for(exported, AUTO, lines) == exported / "openvino"
    assert "kept in" in lines.said[1]
    assert times == [1]


def test_what_tiles_compute_again_counts_for_a_large_image(exported: Path, timed: Any, lines: Any) -> None:
    timed(0.11, 0.3, 0.1)
    narrow = replace(AUTO, memory="4M", precision="float32")
    assert path_for(exported, narrow, lines, None, lambda: (40, 40)) == exported / "openvino"
    assert path_for(exported, narrow, lines, None, lambda: (3000, 3000)) == exported
    assert "0.110 s x 1." in lines.said[1] and "for bands; OpenVINO" in lines.said[1]
    assert lines.said[1].endswith("pixels computed of 3000 x 3000 px)")


def test_other_files_processors_and_a_broken_cache_are_measured_anew(
    exported: Path, timed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(0.3, 0.2, 0.1)
    path_for(exported, AUTO, Silent())
    (kept,) = (tmp_path / "cache" / "runtimes").iterdir()
    kept.write_text("{")
    timed(0.1, 0.2, 0.3)
    assert path_for(exported, AUTO, Silent()) == exported
    assert json.loads(kept.read_text())["seconds"] == {"torch": 0.1, "onnx": 0.2, "openvino": 0.3}
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    timed(0.3, 0.1, 0.2)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(choosing, "cpu_model", lambda: "another processor")
        assert path_for(exported, AUTO, Silent()) == exported / "onnx"
        elsewhere.setattr("platform.node", lambda: "another name of one machine")
        timed(0.1, 0.2, 0.3)
        assert path_for(exported, AUTO, Silent()) == exported / "onnx"
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config))
    timed(0.3, 0.1, 0.2)
    assert path_for(other, AUTO, Silent()) == other / "onnx"


def test_a_cache_that_cannot_be_written_stops_nothing(exported: Path, timed: Any, tmp_path: Path, lines: Any) -> None:
    (tmp_path / "cache").touch()
    timed(0.3, 0.2, 0.1)
    assert path_for(exported, AUTO, lines) == exported / "openvino"
    assert "measured again" in lines.said[1]


def test_each_is_really_measured(exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEEPMAP_CACHE", str(tmp_path))
    monkeypatch.setattr(choosing, "_SIDE", 16)
    path_for(exported, AUTO, Silent())
    (kept,) = (tmp_path / "runtimes").iterdir()
    seconds = json.loads(kept.read_text())["seconds"]
    assert set(seconds) == {"torch", "onnx", "openvino"}
    assert all(0 < taken < 60 for taken in seconds.values())


def test_exports_of_other_weights_take_no_part(
    exported: Path, exportables: dict[str, Any], tmp_path: Path, lines: Any
) -> None:
    stale = tmp_path / "stale"
    shutil.copytree(exported, stale)
    write_tensors(stale / "model.safetensors", {k: 2 * v for k, v in exportables["unet"].network.state_dict().items()})
    assert path_for(stale, AUTO, lines) == stale
    assert [line.split(":")[0] for line in lines.said[:2]] == [f"runtime {name} takes no part" for name in FILES]
    assert "keepmap export" in lines.said[2]
    with pytest.raises(ArtefactError, match="other weights than"):
        path_for(stale, PredictOptions(runtime="onnx"), Silent())


@pytest.mark.parametrize("options", [{"coarse": True}, {"way": "bands"}])
def test_what_only_torch_can_do_is_left_to_it(exported: Path, lines: Any, options: dict[str, Any]) -> None:
    assert path_for(exported, PredictOptions(runtime="auto", **options), lines) == exported
    assert "for PyTorch alone" in lines.said[0] and "export" not in lines.said[0]


def test_what_was_quantised_takes_no_part(
    exported: Path, timed: Any, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(0.3, 0.2)
    real = choosing.load_predictor

    def load(path: Path, *others: Any) -> Any:
        predictor = real(path, *others)
        if path.name == "openvino":
            runtime: Any = predictor.runtime
            runtime.manifest = replace(runtime.manifest, precision="int8")
        return predictor

    monkeypatch.setattr(choosing, "load_predictor", load)
    assert path_for(exported, AUTO, lines) == exported / "onnx"
    assert lines.said[0] == "runtime openvino takes no part: it is int8, which computes other labels"


def test_a_runtime_can_be_named(exported: Path, exportables: dict[str, Any]) -> None:
    assert path_for(exported, PredictOptions(), Silent()) == exported
    assert path_for(exported, PredictOptions(runtime="torch"), Silent()) == exported
    assert path_for(exported, PredictOptions(runtime="onnx"), Silent()) == exported / "onnx"
    assert path_for(exported / "onnx", AUTO, Silent()) == exported / "onnx"
    with pytest.raises(OptionError, match="by the runtime that it was exported for"):
        path_for(exported / "onnx", PredictOptions(runtime="torch"), Silent())
    bare = exportables["fcn"].run.path
    with pytest.raises(ArtefactError, match=r"(?s)was not exported for onnx.*keepmap export .* --to onnx"):
        path_for(bare, PredictOptions(runtime="onnx"), Silent())


def test_predict_computes_with_it_and_remembers_which(exported: Path, tmp_path: Path, timed: Any) -> None:
    timed(0.3, 0.1, 0.2)
    image = np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    (mask,) = keepmap.predict(exported, tmp_path / "a.png", tmp_path / "out", runtime="auto")
    np.testing.assert_array_equal(np.asarray(Image.open(mask)), keepmap.load(exported / "onnx")(image))
    assert "model.onnx" in (tmp_path / "out" / "prediction.jsonl").read_text()
