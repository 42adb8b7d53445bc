"""Images per second of `keepmap.check` against a plain Pillow decode of the same files on one core, and peak memory.

usage: python benchmarks/check.py [--count 2000] [--few 200] [--side 512] [--rounds 3]
The images are drawn, RGB PNG of SIDE x SIDE, and so are the masks. `check` uses every core, the decode one; both read
all images and masks, in turn, and the best round of each counts. Memory is the largest resident size of a process that
checks FEW images and of one that checks all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import keepmap
from common import write_result
from keepmap.data.drawn import draw_pair
from keepmap.resources import map_ahead

_CHECK = "import sys, keepmap; print(len(keepmap.check(sys.argv[1], sys.argv[2]).facts))"


def write_pairs(folder: Path, count: int, side: int) -> None:
    """`count` different pairs of side x side px: drawn fields, repeated to fill the square."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)

    def write(index: int) -> None:
        for name, field in zip(("images", "masks"), draw_pair(seed=2, index=index), strict=True):
            times = [-(-side // length) for length in field.shape[:2]]
            whole = np.tile(field, (*times, *[1] * (field.ndim - 2)))[:side, :side]
            Image.fromarray(whole).save(folder / name / f"{index:05d}.png")

    for _ in map_ahead(write, range(count)):
        continue


def decode(folder: Path) -> None:
    """Every file by Pillow, one after the other."""
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as image:
            image.load()


def seconds_and_cpu(work: object) -> tuple[float, float]:
    """Seconds by the wall clock and of all cores that a call takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()  # type: ignore[operator]
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_bytes(folder: Path) -> int:
    """Largest resident size of a process that checks `folder`. Raises RuntimeError where it fails."""
    command = [sys.executable, "-c", _CHECK, str(folder / "images"), str(folder / "masks")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"check failed with {process.returncode}")
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Print what was measured and write results/check.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("count", 2000), ("few", 200), ("side", 512), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        many, few = Path(temporary) / "many", Path(temporary) / "few"
        write_pairs(many, words.count, words.side)
        write_pairs(few, words.few, words.side)
        peaks = {words.few: peak_bytes(few), words.count: peak_bytes(many)}
        ours, plain = [], []
        for _ in range(words.rounds):
            plain.append(seconds_and_cpu(lambda: decode(many)))
            ours.append(seconds_and_cpu(lambda: keepmap.check(many / "images", many / "masks")))
    best_ours, best_plain = min(ours), min(plain)
    figures = {
        "images": words.count, "side": words.side,
        "check": words.count / best_ours[0], "decode": words.count / best_plain[0],
        "ratio": best_plain[0] / best_ours[0],
        "check_cpu_ms": 1e3 * min(cpu for _, cpu in ours) / words.count,
        "decode_cpu_ms": 1e3 * min(cpu for _, cpu in plain) / words.count,
        "peak_mib": {str(count): round(peak / 2**20, 1) for count, peak in peaks.items()},
    }  # fmt: skip
    print(figures)
    write_result("check", figures)


if __name__ == "__main__":
    main()
