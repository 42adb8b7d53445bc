"""Peak memory of `keepmap predict` on synthetic RGB TIFFs of 2,000 x 2,000 and 6,000 x 6,000, with a 16-channel U-Net.

usage: python benchmarks/memory.py [--sides 2000 6000] [--limits default 500M]
The weights are random, which changes neither memory nor time. Peak is the largest resident size of the process, Python
and torch included; the first row, an image of 64 x 64, shows what they take alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

import keepmap
from common import write_result
from keepmap.data.drawn import draw_pair
from keepmap.data.labels import LabelSet, default_colours
from keepmap.resources import Stopwatch
from untrained import save_run

WIDTHS = (16, 32, 64, 128, 256)


def make_run(folder: Path) -> Path:
    """A RUN of an untrained U-Net for the drawn images' three classes."""
    torch.manual_seed(0)
    network = keepmap.build_model("unet", channels=3, classes=3, widths=WIDTHS)
    network.set_normalisation([60.0] * 3, [50.0] * 3)
    labels = LabelSet((0, 1, 2), ("background", "smooth cell", "granular cell"), None, default_colours(3))
    return save_run(folder, network, labels).path


def write_image(path: Path, side: int) -> None:
    """An uncompressed RGB TIFF (side, side, 3) uint8: one drawn field of cells, repeated."""
    field, _ = draw_pair(seed=0, index=0)
    times = [-(-side // n) for n in field.shape[:2]]
    tifffile.imwrite(path, np.tile(field, (*times, 1))[:side, :side], photometric="rgb")


def peak_of(command: list[str]) -> tuple[float, int]:
    """Seconds and largest resident bytes of a command. Raises RuntimeError where it fails."""
    watch = Stopwatch()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {' '.join(command)}")
    return watch.seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(run: Path, folder: Path, side: int, limit: str) -> dict[str, Any]:
    """One row: an image of one side predicted under one limit."""
    image = folder / f"{side}.tif"
    if not image.exists():
        write_image(image, side)
    command = [sys.executable, "-m", "keepmap", "predict", str(run), str(image), "-o", str(folder / f"{side}-{limit}")]
    seconds, peak = peak_of([*command, "--quiet", *([] if limit == "default" else ["--memory", limit])])
    print(f"{side} px, --memory {limit}: {peak / 2**20:.0f} MiB, {seconds:.1f} s", flush=True)
    return {"side": side, "limit": limit, "peak_mib": peak / 2**20, "seconds": seconds}


def main() -> None:
    """Measure and write results/memory.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="+", default=[2000, 6000])
    parser.add_argument("--limits", nargs="+", default=["default", "500M"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = make_run(folder / "run")
        rows = [measure(run, folder, 64, "default")]
        rows += [measure(run, folder, side, limit) for limit in options.limits for side in options.sides]
    write_result("memory", {"widths": WIDTHS, "rows": rows})


if __name__ == "__main__":
    main()
