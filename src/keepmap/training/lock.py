"""One training at a time in a RUN: a lock of the operating system on a file in it.

Knows neither what is trained nor for how long. The system releases the lock when its process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from keepmap.errors import OutputError, RunError
from keepmap.protocols import Progress
from keepmap.runs import RunFolder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HELD: set[int] = set()
"""Descriptors of the locks of this process."""
_FAR = 1 << 20
"""The byte that Windows locks: what is locked cannot be read there, so not one of those that hold the process id."""


@contextlib.contextmanager
def locked(run: RunFolder, progress: Progress) -> Iterator[None]:
    """Keep others from training into `run`, a folder that exists, for as long as the block lasts.

    Raises RunError with the process that does so already, OutputError where the folder cannot be written. A file
    system that has no locks is said, and not locked.
    """
    refused = f"Another process is training into {run.path}.", "wait for its end, or stop it and go on with --resume"
    with held(run.lock_file, progress, refused):
        yield


@contextlib.contextmanager
def held(path: Path, progress: Progress, refused: tuple[str, str]) -> Iterator[None]:
    """Hold the lock of the file at `path`, which is made and removed, for as long as the block lasts.

    refused: summary and remedy of the RunError where another process holds it. Raises OutputError too.
    """
    file = _take(path, progress, refused)
    _HELD.add(file)
    try:
        yield
    finally:
        _HELD.discard(file)
        if sys.platform == "win32":
            os.close(file)
        with contextlib.suppress(OSError):
            path.unlink()
        if sys.platform != "win32":
            os.close(file)


def let_go_in_child() -> None:
    """In a process that was forked: close the locks, which would else outlive the death of its parent."""
    while _HELD:
        os.close(_HELD.pop())


def _take(path: Path, progress: Progress, refused: tuple[str, str]) -> int:
    """The descriptor of the file at `path`, made where there is none, with the lock on it and our id in it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"{path.parent} cannot be written.", found=error.strerror or str(error)) from error
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(file, 20).decode("ascii", "replace").strip()
            os.close(file)
            raise RunError(refused[0], found=f"process {holder or 'of unknown id'}", do=refused[1]) from error
        except OSError as error:
            progress.say(f"note    {path} cannot be locked ({error.strerror}): let nothing else use it")
        if _is_at(file, path):
            with contextlib.suppress(OSError):  # a full disk: the lock holds without our id
                os.ftruncate(file, 0)
                os.write(file, str(os.getpid()).encode("ascii"))
            return file
        os.close(file)


def _lock(file: int) -> None:
    """Lock an open file, or raise OSError at once."""
    if sys.platform == "win32":
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(file, 0, os.SEEK_SET)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(file: int, path: Path) -> bool:
    """Whether `path` still names the open file: whoever held the lock before removes it at the end."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
