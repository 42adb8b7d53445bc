"""Several processes that train together, over gloo: the losses of one process, and one end for all of them."""

import json
import multiprocessing
import runpy
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from keepmap.errors import OptionError, RunError
from keepmap.networks.catalogue import build_network
from keepmap.networks.norms import has_batch_norm
from keepmap.planning.plan import Plan
from keepmap.protocols import Silent
from keepmap.runs import RunFolder, read_tensors
from keepmap.training.engine import with_common_statistics
from keepmap.training.ranks import Ranks, together
from keepmap.training.session import check_processes, go_on

PLAN = Plan(
    network="unet", options={}, pretrained=False, mean=(0.0,), deviation=(1.0,), device="cpu", precision="float32",
    crop=16, batch=2, step_seconds=0.01, steps=6, seconds=None, validate_every=2, validation_seconds=0.1,
    replanned_at=0, learning_rate=1e-2, warm_up=1, weight_decay=0.0, scale=(0.5, 2.0), upright=False, invert=0.0,
    gain=0.1, shift=1.0, value_range=(0.0, 1.0), seed=0,
)  # fmt: skip


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs processes that are forked from a clean one")

SCRIPT = """
import os, signal, sys
os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"})
sys.stdout = sys.stderr = open(f"{out}.{rank}.txt", "w", buffering=1)
from keepmap import resources
from keepmap.cli.main import main
from keepmap.planning import choice
from keepmap.planning.plan import Cost
from keepmap.training import engine, loop, preparing
choice._widths = lambda *_: ({"widths": [4, 8, 8]}, "")
preparing.measure_step = lambda *_, **__: Cost(1.0, 1)
loop._REPORT_SECONDS = 0.0
resources.thread_count = lambda: size
step, taken, inside = engine.Engine.step, 0, set()
def counted(self, *arguments):
    global taken
    taken += 1
    if taken == 1:
        for name, layer in self.network.named_modules():
            if "conv" in name or "deep" in name:
                layer.register_forward_hook(lambda module, given, found: inside.add(str(found.dtype)))
    if (rank, taken) == (1, stop_after):
        os.kill(os.getpid(), how)
    print("inside", *inside)
    return step(self, *arguments)
engine.Engine.step = counted
sys.exit(main(arguments))
"""
TRAINING = (
    "--model", "unet", "--set", "deep=1", "--steps", "6", "--crop", "64", "--batch", "4", "--device", "cpu",
    "--group-by", "none",
)  # fmt: skip

Launch = Callable[..., list[int | None]]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    random = np.random.default_rng(0)
    held = []
    for name in "abcdefgh":
        rows, columns = np.mgrid[:70, : 90 + 7 * len(held)]
        disc = (rows - random.integers(20, 50)) ** 2 + (columns - random.integers(20, 70)) ** 2 < 200
        noise = random.integers(0, 40, disc.shape)
        Image.fromarray((disc * 150 + noise).astype(np.uint8)).save(images / f"{name}.png")
        Image.fromarray((disc * 255).astype(np.uint8)).save(masks / f"{name}.png")
        held = [*held, name][:3]
    (tmp_path / "held.txt").write_text("\n".join(held))
    return images, masks


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Run `keepmap *arguments` in `size` processes as torchrun does; their exit codes. What they print is in `said`."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["keepmap.training.session", "keepmap.api.training", "lightning_fabric"])
    script = tmp_path / "process.py"
    script.write_text(SCRIPT)

    def run(*arguments: object, size: int = 2, stop_after: int = 0, how: int = 0) -> list[int | None]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        told = {"size": size, "port": port, "out": str(tmp_path / "said"), "stop_after": stop_after, "how": how}
        told["arguments"] = [str(word) for word in arguments]
        processes = [forks.Process(target=runpy.run_path, args=(str(script), told | {"rank": r})) for r in range(size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode is not None, "it hangs"
        return [process.exitcode for process in processes]

    return run


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def scores(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["validation_mean_iou"] for line in lines if "validation_mean_iou" in line]


def test_two_processes_compute_what_one_does(
    folders: tuple[Path, Path], tmp_path: Path, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, three held-out images and weights, of heads, Dice and group norm; in parts, and after a SIGTERM to one.

    The second half of the interrupted training runs in one process.
    """
    one, two, parts = (tmp_path / name for name in ("one", "two", "parts"))
    common = [*folders, *TRAINING, "--validation", tmp_path / "held.txt", "--precision", "float32"]
    common += ["--set", "optimiser=sgd", "--set", "learning_rate=0.2"]
    assert launch("train", *common, "-o", one, "--set", "norm=group", size=1) == [0]
    assert launch("train", *common, "-o", two) == [0, 0]
    said = [(tmp_path / f"said.{rank}.txt").read_text() for rank in range(2)]
    assert "2 processes" in said[0] and said[1].replace("inside torch.float32\n", "") == "inside\n"
    assert launch("train", *common, "-o", parts, stop_after=3, how=signal.SIGTERM) == [143, 143]
    assert "step 3 of 6; the state is saved" in (tmp_path / "said.0.txt").read_text()
    monkeypatch.setattr("keepmap.resources.thread_count", lambda: 1)
    go_on(RunFolder(parts), Silent())
    assert len(losses(one)) == 6
    assert len(scores(one)) == 1
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert losses(parts)[:3] + losses(parts)[-1:] == pytest.approx(losses(one)[:3] + losses(one)[-1:], abs=1e-4)
    assert scores(two) == scores(one)
    expected = read_tensors(one / "model.safetensors")[0]
    for run in (two, parts):
        torch.testing.assert_close(read_tensors(run / "model.safetensors")[0], expected, rtol=1e-3, atol=1e-4)


def test_one_that_dies_ends_the_others(folders: tuple[Path, Path], tmp_path: Path, launch: Launch) -> None:
    """It is killed in its third step, in which the other waits for it. Under autocast the heads compute in bfloat16."""
    common = [*folders, *TRAINING, "--precision", "bfloat16", "-o", tmp_path / "run"]
    assert launch("train", *common, stop_after=3, how=signal.SIGKILL) == [1, -signal.SIGKILL]
    said = (tmp_path / "said.0.txt").read_text()
    assert "TrainingError: Another process of this training has ended, or does not answer." in said
    assert "go on with --resume" in said and "Traceback" not in said
    assert "inside torch.bfloat16\n" in said and "float32" not in said.split("inside", 1)[1]
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()


def test_what_the_first_one_refuses_ends_all_and_is_said_once(
    folders: tuple[Path, Path], tmp_path: Path, launch: Launch
) -> None:
    assert launch("train", *folders, *TRAINING, "--set", "norm=batch", "-o", tmp_path / "run") == [2, 2]
    assert "synchronised on GPUs only" in (tmp_path / "said.0.txt").read_text()
    assert (tmp_path / "said.1.txt").read_text() == ""
    assert not (tmp_path / "run").exists()


def test_processes_without_a_device_each_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("cuda", "mps"):
        with pytest.raises(OptionError, match="2 processes need a device each"), together(2, device):
            pass
    with together(None, "cpu") as alone:
        assert alone == Ranks() and alone.first


@pytest.mark.parametrize(
    ("processes", "device", "frozen", "words"),
    [(3, "cpu", True, "divides 8"), (4, "cpu", False, "batch norm"), (4, "cpu", True, ""), (4, "cuda", False, "")],
)
def test_a_run_goes_on_in_as_many_processes_as_divide_its_batch(
    processes: int, device: str, frozen: bool, words: str, lines: Any
) -> None:
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    plan = replace(PLAN, batch=8, device=device, frozen_statistics=frozen)
    if words:
        with pytest.raises(RunError, match="cannot go on") as caught:
            check_processes(RunFolder(Path("run")), plan, network, Ranks(size=processes), lines)
        assert words in str(caught.value)
    else:
        check_processes(RunFolder(Path("run")), plan, network, Ranks(size=processes), lines)
        assert "4 processes, 1 when it began" in lines.said[0]


def test_a_twin_with_common_statistics_has_the_weights_and_buffers_of_the_network() -> None:
    network = build_network("unet", channels=1, classes=2, options={"widths": [4, 8]})
    twin = with_common_statistics(network)
    assert has_batch_norm(twin) and any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in twin.modules())
    assert not any(isinstance(layer, torch.nn.SyncBatchNorm) for layer in network.modules())
    mine, its = network.state_dict(), twin.state_dict()
    assert mine.keys() == its.keys()
    assert all(tensor.data_ptr() == its[name].data_ptr() for name, tensor in mine.items())
