"""What every benchmark writes beside its numbers: command, date, machine, versions, revision.

Does not know what is measured.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keepmap.resources import cpu_flags, cpu_model, thread_count

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("keepmap", "torch", "lightning-fabric", "numpy")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def machine() -> dict[str, Any]:
    """CPU model, threads that may be used, memory in GiB, instruction sets that matter, operating system."""
    flags = cpu_flags()
    return {
        "cpu": cpu_model() or platform.machine(),
        "threads": thread_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "system": f"{platform.system()} {platform.machine()}",
    }


def revision() -> str:
    """The commit that is checked out, with + where tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src")
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+" if changed else "")


def command_line(arguments: Sequence[str]) -> str:
    """The command that was typed, with folders outside of the repository shortened to their names."""
    script, *rest = arguments
    words = [f".../{Path(word).name}" if Path(word).is_absolute() else word for word in rest]
    return " ".join(["python", f"benchmarks/{Path(script).name}", *words])


def write_result(name: str, figures: Mapping[str, Any]) -> Path:
    """Write results/NAME.json, one line per entry."""
    record = {
        "name": name,
        "command": command_line(sys.argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        "revision": revision(),
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}", flush=True)
    return path


def read_results(prefix: str) -> list[dict[str, Any]]:
    """The results whose name begins with `prefix`, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(f"{prefix}*.json"))]
