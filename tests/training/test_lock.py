"""Two processes never train into one RUN; a process that is gone, however it went, leaves it free."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keepmap.errors import OutputError, RunError
from keepmap.protocols import Silent
from keepmap.runs import RunFolder
from keepmap.training import lock
from keepmap.training.lock import locked

HOLD = """
import sys
from pathlib import Path
from keepmap.protocols import Silent
from keepmap.runs import RunFolder
from keepmap.training.lock import locked
with locked(RunFolder(Path(sys.argv[1])), Silent()):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "my run")
    folder.create()
    return folder


@contextmanager
def held_elsewhere(run: RunFolder) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains into `run`, until its input ends."""
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other


def test_a_second_process_is_refused_with_the_id_of_the_first(run: RunFolder) -> None:
    with held_elsewhere(run) as other:
        with pytest.raises(RunError, match=f"my run.\n  found     process {other.pid}\n"), locked(run, Silent()):
            pytest.fail("two at once")
        other.communicate()
    with locked(run, Silent()):
        assert run.lock_file.read_text() == str(os.getpid())
    assert list(run.path.iterdir()) == []


def test_a_process_that_was_killed_leaves_it_free(run: RunFolder) -> None:
    with held_elsewhere(run) as other:
        os.kill(other.pid, signal.SIGKILL)
    assert run.lock_file.read_text() == str(other.pid)
    run.check_free()
    with locked(run, Silent()):
        pass
    assert list(run.path.iterdir()) == []


def test_two_threads_are_two_trainings_and_an_error_ends_the_lock(run: RunFolder) -> None:
    def fail() -> None:
        with locked(run, Silent()):
            with pytest.raises(RunError, match=f"process {os.getpid()}"), locked(run, Silent()):
                pytest.fail("two at once")
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    with locked(run, Silent()):
        pass


def test_the_file_of_one_that_just_ended_is_no_lock(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our opening it and our locking it the other process ends and removes it."""
    real, removed = lock._lock, []

    def late(file: int) -> None:
        if not removed:
            removed.append(run.lock_file.unlink())
        real(file)

    monkeypatch.setattr(lock, "_lock", late)
    with locked(run, Silent()):
        assert removed and run.lock_file.exists()
        monkeypatch.undo()
        with pytest.raises(RunError), locked(run, Silent()):
            pytest.fail("two at once")


def test_a_file_system_without_locks_is_said(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lines(Silent):
        said: str = ""

        def say(self, text: str) -> None:
            self.said += text

    def none(file: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", none)
    lines = Lines()
    with locked(run, lines):
        assert "cannot be locked (No locks available)" in lines.said


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent cannot be written"), locked(RunFolder(tmp_path / "absent"), Silent()):
        pytest.fail("no folder")
