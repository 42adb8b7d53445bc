"""What this process may use: threads, memory, devices, bfloat16; and how it is measured.

Knows nothing of networks or images. torch is imported on use, so that the command line starts without it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from keepmap.errors import OptionError, nearest

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")
_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_AHEAD = 4
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
MOST_KEPT = 1 << 30
"""Bytes of one buffer, and of what the end of the heap holds free, from which the kernel gets memory back at once: what
takes more in all is handed out page by page, each time anew."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopwatch:
    """Wall-clock seconds since it was made, from a clock that never jumps."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start


def thread_count() -> int:
    """Threads this process may keep busy: the affinity mask, cut by a cgroup's CPU quota; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_words("cpu.max")
    if len(quota) == 2 and quota[0] != "max":
        count = min(count, max(1, int(int(quota[0]) / int(quota[1]))))
    return max(1, count)


def process_counts(devices: int | None = None) -> tuple[int, int]:
    """(processes on this machine, machines) that train together: those that torchrun or srun began, else `devices`, 1.

    Raises OptionError where the launcher began other numbers than `devices`, or not the same on every machine.
    """
    known = os.environ
    names = ("LOCAL_WORLD_SIZE", "WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in known else None
    if names is None and known.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        names = ("SLURM_NTASKS_PER_NODE", "SLURM_NTASKS") if int(known.get("SLURM_NTASKS", "1")) > 1 else None
    if names is None:
        return devices or 1, 1
    if names[0] not in known:
        raise OptionError(
            "How many processes each machine has is not said.", found=f"{names[1]} {known[names[1]]}, no {names[0]}",
            do="srun --ntasks-per-node N in place of --ntasks",
        )  # fmt: skip
    here, size = (int(known[name]) for name in names)
    if size % here or devices not in (None, here):
        asked = "" if devices is None else f" and --devices {devices}"
        raise OptionError(
            "The processes that were begun are not those that were asked for.",
            found=f"{size} processes, {here} here{asked}",
            expected="as many on each machine, and --devices left to torchrun or srun",
        )
    return here, size // here


def process_rank() -> int:
    """The number of this process among those that train together, 0 for the one that speaks and writes."""
    known = os.environ
    if int(known.get("SLURM_NTASKS", "1")) > 1:
        return int(known.get("RANK", known.get("SLURM_PROCID", "0")))
    return int(known.get("RANK", known.get("LOCAL_RANK", "0")))


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """function(item) for each of `items`, in their order, on all threads; the first exception is raised.

    At most 4 items per thread are begun before their turn, so that memory does not grow with their number and an
    interrupt waits for those alone.
    """
    threads = thread_count()
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= _AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def free_memory() -> int:
    """Bytes that can still be allocated: what the system reports as available, cut by a cgroup's limit.

    File pages that a cgroup could drop at once count as free. Where a system tells nothing (Windows), 4 GiB are taken.
    """
    if hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        free = 4 << 30
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(rows["MemAvailable"].split()[0]) * 1024
    limit, used = _cgroup_words("memory.max"), _cgroup_words("memory.current")
    if limit and used and limit[0] != "max":
        words = _cgroup_words("memory.stat")
        cache = dict(zip(words[::2], words[1::2], strict=False)).get("inactive_file", "0")
        free = min(free, int(limit[0]) - int(used[0]) + int(cache))
    return max(free, 0)


def peak_memory() -> int | None:
    """Bytes that this process has held resident at most; None where the system does not tell."""
    return _of_status("VmHWM")


def resident_memory() -> int | None:
    """Bytes that this process holds resident; None where the system does not tell."""
    return _of_status("VmRSS")


def _of_status(name: str) -> int | None:
    status = Path("/proc/self/status")
    rows = dict(line.split(":", 1) for line in status.read_text().splitlines()) if status.exists() else {}
    return int(rows[name].split()[0]) * 1024 if name in rows else None


def _cgroup_words(name: str) -> list[str]:
    try:
        return (_CGROUP / name).read_text().split()
    except OSError:
        return []


def cpu_model() -> str:
    """What the processor calls itself; "" where the system does not tell."""
    return _cpu_facts().get("model name", platform.processor())


def cpu_flags() -> frozenset[str]:
    """The instruction sets of the processor by their names in Linux; empty where the system does not tell."""
    facts = _cpu_facts()
    return frozenset(facts.get("flags", facts.get("Features", "")).split())


def _cpu_facts() -> dict[str, str]:
    """What Linux tells of the last processor, by name; empty elsewhere."""
    rows = (line.partition(":") for line in _CPUINFO.read_text().splitlines()) if _CPUINFO.exists() else ()
    return {name.strip(): value.strip() for name, _, value in rows}


def resolve_device(name: str) -> str:
    """The device that `auto` stands for, or `name` itself. Raises OptionError where it is unknown or absent."""
    import torch

    if name not in DEVICES:
        raise OptionError(f"--device {name} does not exist.", found=name, expected=nearest(name, DEVICES))
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[name]:
        raise OptionError(
            f"--device {name} is not available on this machine.",
            expected=", ".join(device for device, here in present.items() if here),
        )
    return name


def has_bfloat16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 in hardware (CPU: avx512_bf16 or amx_bf16, or bf16 on ARM)."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device != "cpu":
        return False
    return not cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def has_matrix_unit() -> bool:
    """Whether the processor multiplies matrices of bfloat16 in a unit of their own (AMX), not vector by vector."""
    return "amx_bf16" in cpu_flags()


def resolve_precision(name: str, device: str) -> str:
    """float32 or bfloat16: `name` itself, or for auto bfloat16 where the device has it. Raises OptionError."""
    if name not in PRECISIONS:
        raise OptionError(f"--precision {name} does not exist.", found=name, expected=nearest(name, PRECISIONS))
    if name != "auto":
        return name
    return "bfloat16" if has_bfloat16(device) else "float32"


def use_cpu(processes: int = 1) -> int:
    """Let torch use every thread this process may keep busy, and say how many; and make large buffers cheap.

    processes: that share these threads.

    A fresh buffer is handed out by the kernel page by page, which for a page of 4 KiB costs as much time as a layer
    takes to fill it; so pages are huge, and a buffer that was let go is used again. Linux only; torch looks at the
    variable when it first allocates, later calls change nothing.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    _keep_memory()
    import torch

    threads = max(1, thread_count() // processes)
    torch.set_num_threads(threads)
    return threads


def _keep_memory() -> None:
    """Let the C library give large buffers out of memory that it keeps, instead of a fresh mapping for each.

    The kernel takes back what is unmapped and fills every new mapping with zeros. Source: mallopt(3) of glibc; other
    C libraries have no such switch.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if platform.system() == "Linux" else None
    if set_option is not None:
        set_option(_TRIM_THRESHOLD, MOST_KEPT)
        set_option(_MMAP_THRESHOLD, MOST_KEPT)
