"""How often a training survives: resumed, killed in a save and at any moment, its files damaged, its disk full.

usage: python benchmarks/survival.py [resume saves training damage disk workers] [--tries 100]
Each part writes a result of its own, so that a run that was stopped goes on with the next; Linux or macOS.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401  (here once, not in each child)
import numpy as np
import torch

from common import write_result
from keepmap.data.drawn import draw_dataset
from keepmap.errors import DiskFull, RunError
from keepmap.options import TrainOptions
from keepmap.protocols import Silent
from keepmap.runs import RunFolder, read_tensors, write_tensors
from keepmap.training import loop, session

OPTIONS = TrainOptions(
    model="unet", set={"widths": (4, 8)}, steps=12, crop=64, batch=2, precision="float32", device="cpu", workers=0
)
LONGEST = 0.5
"""Seconds from its first step until a training is killed, at most."""


def in_child(work: Callable[[], object]) -> int:
    """Begin `work` in a forked process; its id."""
    if child := os.fork():
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        work()
        code = 0
    except BaseException as error:  # noqa: BLE001  (whatever it is, the child ends here)
        print(f"  {type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """The exit code of a child, minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(
    data: Path, run: RunFolder, options: TrainOptions = OPTIONS, first: Callable[[], object] | None = None
) -> None:
    """Begin a training into `run`, or go on with it, after `first`."""
    if first is not None:
        first()
    if run.plan_file.exists():
        session.go_on(run, Silent(), workers=options.workers)
    else:
        session.begin(data / "images", data / "masks", run, options, Silent())


def uninterrupted(data: Path, folder: Path) -> RunFolder:
    """The RUN that all others have to equal."""
    run = RunFolder(folder / "whole")
    if ended(in_child(partial(train, data, run))):
        raise RuntimeError("a training that nothing interrupts has failed")
    return run


def equal(one: RunFolder, other: RunFolder) -> bool:
    """Whether two RUNs have the same last state and the same model, bit for bit."""
    for first, second in ((one.last_file, other.last_file), (one.model_file, other.model_file)):
        expected, found = read_tensors(first)[0], read_tensors(second)[0]
        if expected.keys() != found.keys() or not all(torch.equal(t, found[name]) for name, t in expected.items()):
            return False
    return True


def at_step(step: int, what: Callable[[], object]) -> None:
    """Do `what` before step number `step` of this process, from 1; those that the plan measures do not count."""
    real, count = loop._step, 0

    def counted(*arguments: Any) -> float:
        nonlocal count
        count += 1
        if count == step:
            what()
        return real(*arguments)

    loop._step = counted


def interrupt_at(step: int) -> None:
    """Send Ctrl-C to this process before its step number `step`."""
    at_step(step, lambda: signal.raise_signal(signal.SIGINT))


def kill_a_worker_at(step: int) -> None:
    """Kill one of the processes that draw for this one, before its step number `step`."""

    def kill() -> None:
        os.kill(int(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()[0]), signal.SIGKILL)

    at_step(step, kill)


def resume(data: Path, folder: Path, tries: int, random: np.random.Generator) -> dict[str, int]:
    """Trainings with one or two interruptions and other worker counts, against one without: weights bit for bit."""
    whole, survived = uninterrupted(data, folder), 0
    for number in range(tries):
        run = RunFolder(folder / f"resumed{number}")
        for stop in random.integers(1, 6, random.integers(1, 3)):
            options = replace(OPTIONS, workers=int(random.integers(3)))
            ended(in_child(partial(train, data, run, options, partial(interrupt_at, int(stop)))))
        survived += ended(in_child(partial(train, data, run))) == 0 and equal(run, whole)
        shutil.rmtree(run.path)
    return {"tried": tries, "survived": survived}


def no_sync(handle: int) -> None:
    """In place of fsync, which a kill does not need: more of the time goes into writing and renaming."""


def state() -> dict[str, torch.Tensor]:
    """Tensors of 3 MB, as a small training has them."""
    return {f"network/{n}": torch.full((64, 64, 3, 3), float(n)) for n in range(20)}


def killed_after(child: int, seconds: float) -> int:
    """The exit code of a child that is killed after so many seconds, if it lives that long."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return ended(child)


def saves(data: Path, folder: Path, tries: int, random: np.random.Generator) -> dict[str, int]:
    """Kills of a process that does nothing but save: a whole state, and no older one, is there after each."""
    last, previous, tensors = folder / "last", folder / "previous", state()
    write_tensors(last, tensors, step=0)
    newest, survived = 0, 0

    def save() -> None:
        for step in range(newest + 1, 10**9):
            write_tensors(last, tensors, keep=previous, step=step)

    for _ in range(tries):
        killed_after(in_child(save), random.uniform(0.0, 0.1))
        found = read_tensors(last if last.exists() else previous)[1]["step"]
        survived, newest = survived + (found >= newest), found
    return {"tried": tries, "survived": survived, "saves": newest}


def training(data: Path, folder: Path, tries: int, random: np.random.Generator) -> dict[str, int]:
    """Kills of a training that saves after each step, until it is done: it goes on, and ends bit for bit the same."""
    whole, kills, wrong, done = uninterrupted(data, folder), 0, 0, 0
    run = RunFolder(folder / "killed")
    loop._SAVE_SECONDS = 0.0
    os.fsync = no_sync
    while kills < tries or run.path.exists():
        told, tell = os.pipe()
        child = in_child(partial(train, data, run, OPTIONS, partial(at_step, 1, partial(os.write, tell, b"."))))
        os.close(tell)
        os.read(told, 1)  # nothing where the child ends before its first step
        code = killed_after(child, random.uniform(0.0, LONGEST)) if kills < tries else ended(child)
        os.close(told)
        if code == -signal.SIGKILL:
            kills += 1
        else:
            done, wrong = done + 1, wrong + (code != 0 or not equal(run, whole))
            shutil.rmtree(run.path)
    return {"tried": kills, "survived": kills - wrong, "trainings": done}


def damage(data: Path, folder: Path, tries: int, random: np.random.Generator) -> dict[str, int]:
    """States with a flipped bit, cut short or overwritten with zeros: found, or read as what they were."""
    file, tensors, survived = folder / "state", state(), 0
    write_tensors(file, tensors, step=1)
    content = file.read_bytes()
    for number in range(tries):
        place = int(random.integers(len(content)) if number % 2 else random.integers(2000))
        flipped = content[:place] + bytes([content[place] ^ 1 << int(random.integers(8))]) + content[place + 1 :]
        file.write_bytes((flipped, content[:place], content[:place] + bytes(len(content) - place))[number % 3])
        try:
            found, header = read_tensors(file)
            survived += header == {"step": 1} and all(torch.equal(t, found[name]) for name, t in tensors.items())
        except RunError:
            survived += 1
    return {"tried": tries, "survived": survived}


def disk(data: Path, folder: Path, tries: int, random: np.random.Generator) -> dict[str, int]:
    """Saves that the system stops after so many bytes: told as a full disk, exit code 1, the old state whole."""
    file, tensors, survived = folder / "state", state(), 0
    write_tensors(file, tensors, step=1)
    size = file.stat().st_size

    def save() -> None:
        limit = int(random.integers(1, size))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write_tensors(file, tensors, step=2)
        except DiskFull as error:
            os._exit(10 + error.exit_code)

    for _ in range(tries):
        random.integers(2)  # the child draws from a copy
        survived += ended(in_child(save)) == 11 and read_tensors(file)[1] == {"step": 1}
    return {"tried": tries, "survived": survived}


def workers(data: Path, folder: Path, tries: int, random: np.random.Generator) -> dict[str, int]:
    """Trainings one of whose processes that draw batches is killed: they end, with the weights of the others."""
    whole, survived = uninterrupted(data, folder), 0
    options = replace(OPTIONS, workers=2)
    for number in range(tries):
        run, at = RunFolder(folder / f"worker{number}"), int(random.integers(1, 9))
        code = ended(in_child(partial(train, data, run, options, partial(kill_a_worker_at, at))))
        survived += code == 0 and equal(run, whole)
        shutil.rmtree(run.path)
    return {"tried": tries, "survived": survived}


PARTS = {
    "resume": resume, "saves": saves, "training": training, "damage": damage, "disk": disk, "workers": workers,
}  # fmt: skip
DRAWS = {"saves": 5, "damage": 20, "disk": 5}
"""Tries of a part as a multiple of --tries: those without a training cost little."""


def main() -> None:
    """Measure, and write results/survival-PART.json for each part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--tries", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            draw_dataset(data, count=6, seed=0)
            counts = PARTS[name](data, Path(folder), arguments.tries * DRAWS.get(name, 1), np.random.default_rng(0))
        what = (PARTS[name].__doc__ or "").partition(":")[0]
        print(f"{name}: {counts}", flush=True)
        write_result(f"survival-{name}", {"what": what, **counts})


if __name__ == "__main__":
    main()
