"""The processes that decode uploads: handed tasks in order, killed when they take too long, replaced when they die.

Decodes nothing itself: no byte of an upload is looked at in the process that serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from keepmap.errors import DataError, DiskFull, OutputError
from keepmap.options import TOKEN
from keepmap.protocols import Array, Geometry, Window
from keepmap.serving.decoder import Foreign, Task
from keepmap.serving.refusals import Refusal, refusal
from keepmap.serving.tickets import Ticket

_MARGIN = 5.0
"""Seconds beyond its own limit after which a decoder is killed from here."""
_LINE = 1 << 22
_OURS = {cls.__name__: cls for cls in (DiskFull, OutputError)}
"""Errors of a decoder that are not about its image."""


class Decoded:
    """An ArraySource over the pixels that a decoder left; reading them ends where the request was cancelled.

    kind: of the uploaded file, as in `data.headers`.
    """

    path = Path("The image")

    def __init__(self, target: Path, facts: dict[str, Any], ticket: Ticket) -> None:
        channels, height, width = (int(n) for n in facts["shape"])
        self.kind = str(facts["kind"])
        self.shape = (channels, height, width)
        self.dtype = np.dtype(facts["dtype"])
        self.nodata: float | None = facts["nodata"]
        self.orientation = int(facts["orientation"])
        spacing = facts["spacing"] and (float(facts["spacing"][0]), float(facts["spacing"][1]))
        origin = float(facts["origin"][0]), float(facts["origin"][1])
        tags = tuple((int(c), int(t), int(n), _frozen(value)) for c, t, n, value in facts["tags"])
        self.geometry = Geometry(spacing, str(facts["unit"]), origin, tags)
        self._ticket = ticket
        stored = np.memmap(target, self.dtype, mode="r", shape=(height, width, channels))
        self._pixels: Array = np.moveaxis(stored, -1, 0)

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w), a view of the file; None reads all. Raises Cancelled."""
        self._ticket.check()
        return self._pixels if window is None else self._pixels[:, window[0], window[1]]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


class Decoders:
    """So many processes that decode one image after the other. `start` before and `close` after use, in one loop."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: asyncio.Queue[asyncio.subprocess.Process] = asyncio.Queue()
        self._ended: set[asyncio.subprocess.Process] = set()
        self.killed = 0
        """Processes that had to be ended."""

    async def start(self) -> None:
        """Start the processes, and wait until they answer."""
        nothing = Task("", "", None, 1, 1, 1, None, 1.0, 1)
        for process in [await _spawn() for _ in range(self._count)]:
            await _ask(process, nothing)
            self._idle.put_nowait(process)

    async def decode(self, task: Task, ticket: Ticket) -> Decoded:
        """Decode one image, after those that came before. Raises DataError for what cannot be decoded, Refusal
        415 for what is no image and 503 where no process can be started, OutputError where there is no room.

        Where the caller is cancelled, its process is killed; it is replaced before the next image.
        """
        process = await self._idle.get()
        whole = False
        try:
            if process in self._ended or process.returncode is not None:
                await process.wait()
                self._ended.discard(process)
                process = await _spawn()
            reply = await asyncio.wait_for(_ask(process, task), task.seconds + _MARGIN)
            whole = True
        except (OSError, ValueError) as error:
            raise DataError("The image cannot be decoded.", found="its decoder did not answer") from error
        finally:  # nothing is waited for here: whatever comes, a process goes back
            if not whole and process.returncode is None:
                self.killed += 1
                self._ended.add(process)
                _kill(process)
            self._idle.put_nowait(process)
        if "error" in reply:
            texts, kind = {name: str(text) for name, text in reply["error"].items()}, reply.get("kind")
            if kind in _OURS:
                raise _OURS[kind](**texts)
            raise Refusal(415, DataError(**texts)) if kind == Foreign.__name__ else DataError(**texts)
        return Decoded(Path(task.target), reply, ticket)

    async def close(self) -> None:
        """End the processes."""
        while not self._idle.empty():
            process = self._idle.get_nowait()
            _kill(process)
            await process.wait()


async def _ask(process: asyncio.subprocess.Process, task: Task) -> dict[str, Any]:
    """The answer of a decoder. Raises ValueError where it has died."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the decoder has no pipes")
    process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
    await process.stdin.drain()
    reply: dict[str, Any] = json.loads(await process.stdout.readline())
    return reply


async def _spawn() -> asyncio.subprocess.Process:
    """A decoder in a session of its own, which Ctrl-C does not reach; it ends with its stdin. Raises Refusal 503."""
    environment = {**os.environ, **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}}
    environment.pop(TOKEN, None)
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "keepmap.serving.decoder", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, env=environment, limit=_LINE, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise refusal(503, "No decoder can be started.", found=error.strerror or "", do="try again later") from error


def _kill(process: asyncio.subprocess.Process) -> None:
    """End a decoder and the child that it decodes in."""
    with contextlib.suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
