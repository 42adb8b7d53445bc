"""What the process may use: cut by affinity and cgroup, and measured in bytes and seconds."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keepmap import resources
from keepmap.errors import OptionError


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    return tmp_path


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        (None, 8),
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_threads_are_cut_by_the_quota(cgroup: Path, quota: str | None, threads: int) -> None:
    if quota is not None:
        (cgroup / "cpu.max").write_text(quota)
    assert resources.thread_count() == threads


@pytest.mark.usefixtures("cgroup")
def test_threads_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert resources.thread_count() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_threads_follow_the_affinity_mask() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {next(iter(os.sched_getaffinity(0)))});"
        "from keepmap.resources import thread_count; print(thread_count())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


def test_memory_is_cut_by_the_limit(cgroup: Path) -> None:
    free = resources.free_memory()
    assert free > 0
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("1000\n")
    assert resources.free_memory() == pytest.approx(free, rel=0.5)
    (cgroup / "memory.max").write_text("5000\n")
    assert resources.free_memory() == 4000
    (cgroup / "memory.current").write_text("6000\n")
    assert resources.free_memory() == 0


def test_stopwatch_counts_seconds() -> None:
    watch = resources.Stopwatch()
    time.sleep(0.02)
    first = watch.seconds
    assert 0.02 <= first < 5
    assert watch.seconds >= first


def test_auto_device_exists() -> None:
    device = resources.resolve_device("auto")
    assert device in resources.DEVICES
    assert resources.resolve_device(device) == device
    assert resources.resolve_device("cpu") == "cpu"


def test_misspelt_device_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean cuda"):
        resources.resolve_device("cuda1")


def test_absent_device_is_refused_and_the_present_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match="not available") as caught:
        resources.resolve_device("cuda")
    assert "cpu" in caught.value.expected.split(", ")
    assert "cuda" not in caught.value.expected


def test_accelerator_comes_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resources.resolve_device("auto") == "cuda"


@pytest.mark.parametrize("fast", [True, False])
def test_precision(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "has_bfloat16", lambda device: fast)
    assert resources.resolve_precision("auto", "cpu") == ("bfloat16" if fast else "float32")
    assert resources.resolve_precision("float32", "cpu") == "float32"
    assert resources.resolve_precision("bfloat16", "cpu") == "bfloat16"


def test_bfloat16_is_known_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert isinstance(resources.has_bfloat16("cpu"), bool)
    assert resources.has_bfloat16("mps") is False
    assert resources.cpu_model() == resources.cpu_model().strip()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert resources.has_bfloat16("cuda") is True


def test_what_linux_tells_of_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intel = "processor : 0\nmodel name\t: Xeon\nflags\t\t: sse2 avx512_bf16 amx_bf16\n\n"
    for text, model, bfloat16, unit in (
        (intel, "Xeon", True, True),
        (intel.replace(" amx_bf16", ""), "Xeon", True, False),
        ("processor: 0\nFeatures: fp asimd bf16\n", None, True, False),
        ("flags: avx2 not_amx_bf16\n", None, False, False),
    ):
        told = tmp_path / "cpuinfo"
        told.write_text(text)
        monkeypatch.setattr(resources, "_CPUINFO", told)
        assert model is None or resources.cpu_model() == model
        assert (resources.has_bfloat16("cpu"), resources.has_matrix_unit()) == (bfloat16, unit)
    monkeypatch.setattr(resources, "_CPUINFO", tmp_path / "none")
    assert (resources.has_bfloat16("cpu"), resources.cpu_flags()) == (False, frozenset())


def test_torch_uses_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(resources, "thread_count", lambda: 1)
        assert resources.use_cpu() == 1
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(resources, "thread_count", lambda: 5)
        assert [resources.use_cpu(processes) for processes in (2, 8)] == [2, 1]
    finally:
        torch.set_num_threads(before)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "a", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6", "RANK": "3", "LOCAL_RANK": "1"}
SRUN = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("known", "devices", "counts", "rank"),
    [
        ({}, None, (1, 1), 0),
        ({}, 3, (3, 1), 0),
        ({"LOCAL_RANK": "2"}, 3, (3, 1), 2),
        (TORCHRUN, None, (2, 3), 3),
        (TORCHRUN, 2, (2, 3), 3),
        (TORCHRUN | SRUN, None, (2, 3), 3),
        (SRUN, None, (4, 2), 5),
        (SRUN | {"SLURM_JOB_NAME": "bash"}, 2, (2, 1), 5),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None, (1, 1), 0),
    ],
)
def test_processes_are_those_of_the_launcher(
    known: dict[str, str], devices: int | None, counts: tuple[int, int], rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {*TORCHRUN, *SRUN, "SLURM_JOB_NAME"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    assert (resources.process_counts(devices), resources.process_rank()) == (counts, rank)


@pytest.mark.parametrize(
    ("known", "devices", "words"),
    [
        (TORCHRUN, 3, "--devices 3"),
        (TORCHRUN | {"WORLD_SIZE": "5"}, None, "5 processes, 2 here"),
        ({"SLURM_NTASKS": "4"}, None, "--ntasks-per-node"),
    ],
)
def test_processes_that_do_not_fit_are_refused(
    known: dict[str, str], devices: int | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError) as caught:
        resources.process_counts(devices)
    assert words in str(caught.value)


def page_faults(code: str, way: str) -> int:
    """What `code` prints in a process of its own, in which torch's memory is set by nothing but keepmap."""
    plain = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", code, way], capture_output=True, check=True, env=plain)
    return int(done.stdout)


def test_large_buffers_come_in_huge_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this system has no huge pages")
    code = """
import resource, sys
from keepmap import resources
if sys.argv[1] == "huge":
    resources.use_cpu()
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
buffer = torch.zeros(64 << 18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [page_faults(code, way) for way in ("small", "huge")]
    assert faults[1] < faults[0] / 4 or "[always]" in setting.read_text()


def test_buffers_that_were_let_go_are_used_again() -> None:
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library")
    code = """
import ctypes, resource, sys
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: small pages, whatever this system does
from keepmap import resources
if sys.argv[1] == "kept":
    resources.use_cpu()
import torch
def work():
    for _ in range(4):
        a = torch.ones(40 << 18)
        b = a + 1
        del a
        c = b * 2
        del b, c
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    fresh, kept = (page_faults(code, way) for way in ("fresh", "kept"))
    assert fresh > 11 * (40 << 20) // resource.getpagesize()
    assert kept < fresh / 2


def test_results_come_in_order_and_few_are_begun_ahead() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return number * number

    results = resources.map_ahead(work, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(begun) <= 4 * resources.thread_count() + 3
    assert list(results)[-1] == 999 * 999
    assert list(resources.map_ahead(work, [])) == []


def test_the_first_exception_is_raised_and_ends_the_work() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise ValueError("five")
        return number

    with pytest.raises(ValueError, match="five"):
        list(resources.map_ahead(work, range(10_000)))
    assert len(begun) < 1000
