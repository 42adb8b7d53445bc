"""The RUN folder: refused when it is none, written whole or not at all, weights checked by name and shape."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.labels import LabelSet
from keepmap.errors import OutputError, RunError
from keepmap.networks.catalogue import build_network
from keepmap.runs import RunConfig, RunFolder, read_tensors, write_tensors

LABELS = LabelSet(values=(0, 255), names=("background", "nucleus"), ignore=None, colours=((0, 0, 0), (255, 0, 0)))
CONFIG = RunConfig("unet", {"widths": [4, 8]}, 3, "uint8", LABELS, "0.1.0")


def saved_run(path: Path) -> RunFolder:
    run = RunFolder(path)
    run.check_free()
    run.create()
    run.write_config(CONFIG)
    torch.manual_seed(0)
    network = build_network("unet", channels=3, classes=2, options=CONFIG.options)
    network.set_normalisation((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    write_tensors(run.model_file, network.state_dict())
    return run


def test_a_run_loads_from_its_path_alone(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    network, config = RunFolder(run.path).load_network()
    assert config == CONFIG
    assert network.mean.tolist() == [1, 2, 3]
    assert not network.training
    again, _ = run.load_network()
    x = torch.rand(1, 3, 9, 7) * 255
    assert torch.equal(network(x), again(x))


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        RunFolder(tmp_path / "absent").read_config()
    with pytest.raises(RunError, match=r"no config\.json in it"):
        RunFolder(tmp_path).read_config()
    run = saved_run(tmp_path / "run")
    run.model_file.unlink()
    with pytest.raises(RunError, match="no model yet"):
        run.load_network()


def test_broken_and_foreign_weights_are_named(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    whole = run.model_file.read_bytes()
    run.model_file.write_bytes(whole[:-10])
    with pytest.raises(RunError, match=r"model\.safetensors cannot be read"):
        run.load_network()
    write_tensors(run.model_file, {"encoder.weight": torch.zeros(1)})
    with pytest.raises(RunError, match=r"1 not of this network: encoder\.weight") as caught:
        run.load_network()
    assert len(str(caught.value)) < 600


def test_an_existing_run_or_a_full_folder_is_never_overwritten(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run")
    with pytest.raises(OutputError, match="--resume"):
        run.check_free()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="no empty folder"):
        RunFolder(tmp_path / "other").check_free()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="no empty folder"):
        RunFolder(tmp_path / "file").check_free()
    with pytest.raises(OutputError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run").check_free()


def test_looking_whether_a_run_can_be_made_makes_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "deep" / "run").check_free()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(OutputError, match="Permission denied"):
        RunFolder(tmp_path / "run").check_free()


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12), st.integers(0, 9), st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_metrics_are_those_that_were_known_then(lines: list[tuple[int, bool]], step: int, validated: int) -> None:
    with TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.trim_metrics(step, validated)
        assert not run.metrics_file.exists()
        for at, validation in lines:
            run.append_metrics(step=at, **{"validation_mean_iou" if validation else "loss": 0.5})
        run.append_metrics(step=0, loss=float("nan"))
        with run.metrics_file.open("a") as file:
            file.write('{"step": 0, "lo')
        run.trim_metrics(step, validated)
        kept = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
        known = [at for at, validation in lines if at <= (validated if validation else step)]
        assert [figures["step"] for figures in kept] == [*known, 0]


def test_metrics_are_trimmed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.append_metrics(step=step, loss=0.5)
    before = run.metrics_file.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    run.trim_metrics(3, 0)
    with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written"):
        run.trim_metrics(1, 0)
    assert run.metrics_file.read_text() == before


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.safetensors"
    write_tensors(file, {"a": torch.ones(3)}, step=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="a file that was there is as it was"):
        write_tensors(file, {"a": torch.zeros(3)}, step=2)
    tensors, header = read_tensors(file)
    assert (tensors["a"].tolist(), header) == ([1, 1, 1], {"step": 1})
    assert list(tmp_path.iterdir()) == [file]
