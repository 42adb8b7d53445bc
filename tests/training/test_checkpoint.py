"""States: whole whenever the process dies, the one before when the last is damaged, refused where they do not fit."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from keepmap.errors import DiskFull, OutputError, RunError
from keepmap.networks.catalogue import build_network
from keepmap.planning.plan import Plan
from keepmap.planning.planner import replan
from keepmap.protocols import Silent
from keepmap.runs import RunFolder, read_tensors, write_tensors
from keepmap.training import checkpoint
from keepmap.training.checkpoint import Position, changes, check_disk, restore, save
from keepmap.training.engine import Engine

PLAN = Plan(
    network="unet", options={"widths": (4, 8)}, pretrained=False, mean=(0.0,), deviation=(1.0,), device="cpu",
    precision="float32", crop=16, batch=2, step_seconds=0.01, steps=6, seconds=90.0, validate_every=2,
    validation_seconds=0.1, replanned_at=0,
    learning_rate=1e-2, warm_up=1, weight_decay=0.0, scale=(0.5, 2.0), upright=False, invert=0.0, gain=0.1, shift=1.0,
    value_range=(0.0, 1.0), seed=0, because={"steps": "a reason"},
)  # fmt: skip


def engine(widths: tuple[int, ...] = (4, 8)) -> Engine:
    torch.manual_seed(0)
    network = build_network("unet", channels=1, classes=2, options={"widths": widths})
    return Engine(network, device="cpu", precision="float32")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A RUN with two saves, of steps 1 and 2."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    trained = engine()
    for step in (1, 2):
        trained.step(torch.rand(2, 1, 16, 16), torch.ones(2, 16, 16, dtype=torch.int64), 1e-2)
        save(trained, folder, Position(step=step, best=0.5), PLAN)
    return folder


def test_the_last_state_is_gone_on_from(run: RunFolder, lines: Any) -> None:
    again = engine()
    assert restore(again, run, PLAN, lines) == Position(step=2, best=0.5)
    assert lines.said == []
    expected = read_tensors(run.last_file)[0]
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state().items())
    assert not torch.equal(expected["network/head.weight"], read_tensors(run.previous_file)[0]["network/head.weight"])
    assert restore(engine(), RunFolder(run.path / "none"), PLAN, lines) == Position()


def damage(content: bytes, way: str) -> bytes:
    middle = len(content) // 2
    return {
        "truncated": content[:middle],
        "empty": b"",
        "a flipped bit": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "zeros at the end": content[:middle] + bytes(len(content) - middle),
        "another header": b"\xff" * 8 + content[8:],
    }[way]


@pytest.mark.parametrize("way", ["truncated", "empty", "a flipped bit", "zeros at the end", "another header"])
def test_a_damaged_state_is_said_and_the_one_before_taken(way: str, run: RunFolder, lines: Any) -> None:
    run.last_file.write_bytes(damage(run.last_file.read_bytes(), way))
    again = engine()
    at = restore(again, run, PLAN, lines)
    assert at.step == 1
    (said,) = lines.said
    assert "last.safetensors" in said and "back to step 1" in said
    assert not run.last_file.exists()
    save(again, run, at, PLAN)
    assert restore(engine(), run, PLAN, lines).step == 1
    assert run.previous_file.exists()


def test_any_flipped_byte_is_found(run: RunFolder) -> None:
    """Of 200 single changes none is read as if nothing were."""
    content, random = run.last_file.read_bytes(), np.random.default_rng(0)
    places = [*range(64), *random.integers(0, len(content), 136)]
    whole, header = read_tensors(run.last_file)
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(random.integers(8))
        run.last_file.write_bytes(bytes(changed))
        try:
            found, words = read_tensors(run.last_file)
        except RunError:
            continue
        assert words == header and all(torch.equal(found[name], tensor) for name, tensor in whole.items()), place


def test_where_no_state_is_whole_that_is_an_error(run: RunFolder) -> None:
    for file in (run.last_file, run.previous_file):
        file.write_bytes(b"no tensors")
    with pytest.raises(RunError, match=r"No state of .* is whole") as caught:
        restore(engine(), run, PLAN, Silent())
    assert "last.safetensors" in caught.value.found and "previous.safetensors" in caught.value.found


def test_another_plan_is_refused_and_the_difference_named(run: RunFolder) -> None:
    other = replace(PLAN, crop=32, gain=0.5)
    with pytest.raises(RunError, match=r"crop: 32, before 16, gain: 0\.5, before 0\.1"):
        restore(engine(), run, other, Silent())
    assert restore(engine(), run, replace(PLAN, because={}), Silent()).step == 2


def test_what_is_counted_anew_may_be_ahead_of_the_state(run: RunFolder) -> None:
    ahead = replan(PLAN, step=3, seconds=2.0, pace=0.5)
    changed = {field.name for field in fields(Plan) if getattr(ahead, field.name) != getattr(PLAN, field.name)}
    assert changed <= set(checkpoint._COUNTED)
    assert restore(engine(), run, ahead, Silent()).step == 2


def test_another_network_is_refused(run: RunFolder) -> None:
    with pytest.raises(RunError, match=r"missing: network/.*of another shape: network/") as caught:
        restore(engine((4, 8, 16)), run, PLAN, Silent())
    assert len(str(caught.value)) < 900


def test_what_is_no_state_is_refused(run: RunFolder) -> None:
    write_tensors(run.last_file, engine().state())
    with pytest.raises(RunError, match="is no state of a training"):
        restore(engine(), run, PLAN, Silent())


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (str(self.file), os.O_CREAT)


def test_code_in_a_file_of_a_run_is_refused_and_not_run(run: RunFolder, tmp_path: Path) -> None:
    for file in (run.last_file, run.previous_file, run.model_file):
        torch.save({"network/head.weight": Payload(tmp_path / "made")}, file)
        with pytest.raises(RunError, match="cannot be read"):
            read_tensors(file)
    with pytest.raises(RunError, match="is whole"):
        restore(engine(), run, PLAN, Silent())
    assert not (tmp_path / "made").exists()


def test_changes_are_named() -> None:
    found = changes({"a": 1, "b": [2], "c": 3}, {"a": 1, "b": [4], "d": 5})
    assert found == ["b: [4], before [2]", "c: None, before 3"]


def test_a_disk_that_is_too_small_is_known_beforehand(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    content = run.last_file.read_bytes()
    check_disk(engine(), run)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(100))
    for refused in (lambda: check_disk(engine(), run), lambda: save(engine(), run, Position(step=3), PLAN)):
        with pytest.raises(DiskFull, match="too full") as caught:
            refused()
        assert "100 B free" in caught.value.found
        assert caught.value.exit_code == 1
    assert run.last_file.read_bytes() == content


class Usage:
    """What shutil.disk_usage tells."""

    def __init__(self, free: int) -> None:
        self.free = free


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(errno.ENOSPC, DiskFull, 1), (errno.EDQUOT, DiskFull, 1), (errno.EACCES, OutputError, 2)],
)
@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace", "keepmap.runs.save_file"])
def test_a_save_that_fails_says_why_and_leaves_the_old_state(
    where: str, number: int, kind: type[OutputError], code: int, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk full, quota and permission at every stage of a save; safetensors tells of them in words."""

    def refuse(*_: object, **__: object) -> None:
        if where == "keepmap.runs.save_file":
            raise in_words(number)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(where, refuse)
        with pytest.raises(OutputError, match=os.strerror(number)) as caught:
            save(engine(), run, Position(step=3), PLAN)
    assert (type(caught.value), caught.value.exit_code) == (kind, code)
    assert ("disk is full" in str(caught.value)) is (kind is DiskFull)
    assert restore(engine(), run, PLAN, Silent()).step == 2
    assert {file.name for file in run.last_file.parent.iterdir()} == {"last.safetensors", "previous.safetensors"}


def in_words(number: int) -> Exception:
    return SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_of_a_save_leaves_a_run_that_goes_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 processes that do nothing but save are killed within the saves after their first; after each the RUN loads.

    Without fsync, which a kill does not need: what was written stays, and more of the time is spent renaming.
    """
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    random, trained, last = np.random.default_rng(0), engine(), 2
    for _ in range(50):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            for step in range(last + 1, 10**6):
                save(trained, run, Position(step=step), PLAN)
                os.write(tell, b".")
        os.close(tell)
        os.read(told, 1)
        time.sleep(random.uniform(0.0, 0.005))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        step = restore(engine(), run, PLAN, Silent()).step
        assert step > last
        last = step


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of the file size that raises")
def test_a_real_limit_of_the_file_size_is_told_as_a_full_disk(run: RunFolder) -> None:
    """Not simulated: the process may write 2000 bytes to a file."""
    import resource

    child = os.fork()
    if child == 0:
        code = 9
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            save(engine(), run, Position(step=3), PLAN)
        except DiskFull as error:
            code = error.exit_code
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert restore(engine(), run, PLAN, Silent()).step == 2
