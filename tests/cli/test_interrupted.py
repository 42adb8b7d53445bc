"""Ctrl-C in a real training, as a process of its own: exit 130, the way on, and --resume to the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COMMAND = [sys.executable, "-m", "keepmap", "train"]


def drawn(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    for name in "abcd":
        image = random.integers(0, 256, (70, 80), dtype=np.uint8)
        for kind, array in (("images", image), ("masks", (image > 99) * np.uint8(255))):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")
    return [str(folder / "images"), str(folder / "masks")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_then_resume(number: signal.Signals, code: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["-o", str(run), "--steps", "25", "--crop", "64", "--batch", "2", "--model", "encoder_unet"]
    begun = subprocess.Popen(
        [*COMMAND, *drawn(tmp_path), *words, "--encoder", "resnet18"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (run / "checkpoints" / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    begun.send_signal(number)
    _, said = begun.communicate(timeout=120)
    assert begun.returncode == code, said
    assert "--resume" in said
    assert "Traceback" not in said
    done = subprocess.run([*COMMAND, "-o", str(run), "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "of 25" in done.stdout
