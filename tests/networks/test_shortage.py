"""Errors of allocators, told with the level table of the network; and a real one, under a limit of the system."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import nn

import keepmap
from keepmap.cli.main import main
from keepmap.errors import OutOfMemory
from keepmap.networks.catalogue import build_network
from keepmap.networks.shortage import is_shortage, told_by_level
from keepmap.units import in_bytes

CPU = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)
SHORTAGES = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(CPU),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
OTHERS = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError("memory")]


@pytest.mark.parametrize("error", [*SHORTAGES, *OTHERS], ids=repr)
def test_shortages_are_known_and_others_are_none(error: Exception) -> None:
    assert is_shortage(error) == (error in SHORTAGES)


def raised(network: nn.Module, error: Exception, shape: Sequence[int] = (8, 3, 37, 50), training: bool = True) -> str:
    guard = told_by_level(network, shape, device="cpu", bytes_per_value=4, training=training, do="buy more")
    with pytest.raises(OutOfMemory) as caught, guard:
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_pass(error: Exception) -> None:
    guard = told_by_level(nn.ReLU(), (1, 3, 4, 4), device="cpu", bytes_per_value=4, training=True, do="")
    with pytest.raises(type(error)) as caught, guard:
        raise error
    assert caught.value is error


@pytest.mark.parametrize("training", [True, False])
def test_the_levels_are_those_that_the_named_command_shows(training: bool, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"widths": (4, 8), "up": "bilinear", "checkpointing": True}
    network = build_network("unet", channels=3, classes=5, options=options)
    text = raised(network, RuntimeError(CPU), training=training)
    assert "a training step" * training in text
    assert "of 8 images of 37x50 px" in text
    assert "can't allocate memory" in text
    assert text.endswith("buy more")
    command = text.split("(keepmap ")[1].split(")")[0]
    assert main(command.split()) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    column = slice(-2, None) if training else slice(-4, -2)
    levels = {row[0]: [row[0], row[1], row[3], *row[column]] for row in shown if row and row[0] in "01"}
    quoted = [line.split() for line in text.splitlines() if line.split()[0] in "01"]
    assert quoted == list(levels.values())
    assert len(quoted) == 2


def test_what_is_needed_is_what_the_description_says() -> None:
    network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
    rows = keepmap.describe_network("unet", size=(37, 50), widths=(4, 8))
    text = raised(network, MemoryError())
    assert all(in_bytes(row.training_bytes) in text for row in rows)
    assert "found     MemoryError" in text


def test_a_network_of_ones_own_has_no_table() -> None:
    assert "level" not in raised(nn.Conv2d(3, 2, 1), MemoryError())


def test_tensors_of_the_failed_step_are_let_go() -> None:
    freed = []

    class Held:
        def __del__(self) -> None:
            freed.append(True)

    def step() -> None:
        held = Held()
        raise MemoryError(id(held))

    guard = told_by_level(nn.ReLU(), (1, 3, 4, 4), device="cpu", bytes_per_value=4, training=True, do="")
    with pytest.raises(OutOfMemory), guard:
        step()
    assert freed


REAL = """
import resource, torch
from keepmap.errors import OutOfMemory
from keepmap.networks.catalogue import build_network
from keepmap.runtime.torch_runtime import TorchRuntime
from keepmap.training.engine import Engine
torch.set_num_threads(1)
network = build_network("unet", channels=1, classes=2, options={"widths": (8, 16), "checkpointing": True})
engine = Engine(network, device="cpu", precision="float32")
small, large = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 4096, 4096)
engine.step(small, small[:, 0].long(), 1e-3)
runtime = TorchRuntime(network, device="cpu", precision="float32")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), -1))
for act in (lambda: engine.step(large, large[:, 0].long(), 1e-3), lambda: runtime.run(large.numpy())):
    try:
        act()
    except OutOfMemory as error:
        print(error)
engine.step(small, small[:, 0].long(), 1e-3)
print("goes on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit and the file are Linux's")
def test_a_real_shortage_is_told_and_survived() -> None:
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("DefaultCPUAllocator") == 2, done.stdout
    assert done.stdout.count("4096x4096") == 6
    assert "--checkpointing" in done.stdout
    assert "--memory" in done.stdout
    assert done.stdout.endswith("goes on\n")
