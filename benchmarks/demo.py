"""Wall-clock time of `git clone` and `make demo`, from nothing to a picture, and of the demo alone.

usage: python benchmarks/demo.py
Clones the last commit of this repository; what is not committed is not measured. pip may find packages in its cache.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from common import ROOT, write_result
from keepmap.resources import Stopwatch


def seconds_of(command: list[str], folder: Path) -> tuple[float, str]:
    """Wall-clock seconds and output of a command that must succeed."""
    watch = Stopwatch()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return watch.seconds, done.stdout


def main() -> None:
    """Measure and write results/demo.json."""
    with tempfile.TemporaryDirectory() as name:
        cloning, _ = seconds_of(["git", "clone", "--quiet", str(ROOT), "clone"], Path(name))
        clone = Path(name) / "clone"
        making, _ = seconds_of(["make", "demo"], clone)
        alone, output = seconds_of([str(clone / ".venv" / "bin" / "keepmap"), "demo", "again"], clone)
        pictures = [path.name for path in (clone / "again").glob("*.png")]
    tail = [line.rstrip().replace(name, "") for line in output.splitlines()[-16:]]
    write_result(
        "demo",
        {"seconds_from_nothing": cloning + making, "seconds_alone": alone, "pictures": pictures, "output": tail},
    )


if __name__ == "__main__":
    main()
