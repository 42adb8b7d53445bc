"""Predictions that outlive their request, and the process: one folder each, found again after a restart.

Knows the engine and files; nothing of HTTP. A job is done anew where the process died in the middle of it.

    ID/job.json    what is wished, when it came, how it ended; written whole, and last
    ID/upload      the image, until it ended
    ID/mask.tif    the result, under the name that its form has
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from keepmap.config import from_dict, read_json, to_dict, write_json
from keepmap.errors import OutputError, RunError
from keepmap.runtime.stopping import Cancelled
from keepmap.serving.answers import Answer
from keepmap.serving.engine import Engine
from keepmap.serving.refusals import as_refusal, error_fields, refusal
from keepmap.serving.tickets import Ticket
from keepmap.serving.wishes import Wish

FORMAT = 1
KEPT = 100
"""Jobs that are held at a time, ended ones among them; what is still being received is none yet."""
TRIES = 3
"""Processes that may die in the middle of a job; one that ends them all would keep the server from staying up."""
_SWEEP = 60.0
"""Seconds between two looks for results that are too old."""

State = Literal["queued", "running", "done", "failed"]
_log = logging.getLogger("keepmap.serve")


@dataclass(frozen=True)
class Job:
    """job.json. received, ended: seconds since 1970. name, media_type: of the result. error: why it failed.

    begun: processes that began it and have not ended it.
    """

    id: str
    wish: Wish
    received: float
    state: State = "queued"
    ended: float | None = None
    name: str = ""
    media_type: str = ""
    error: dict[str, str] = field(default_factory=dict)
    begun: int = 0


class Jobs:
    """The jobs in `folder`, one after the other. `start` before and `stop` after use. keep: seconds of a result."""

    def __init__(self, folder: Path, engine: Engine, keep: float, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._engine, self._keep, self._clock = folder, engine, keep, clock
        self._jobs: dict[str, Job] = {}
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._running: tuple[str, Ticket] | None = None
        self._work: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        engine.metrics.level("keepmap_jobs", lambda: sum(not job.ended for job in self._jobs.values()))

    async def start(self) -> None:
        """Find the jobs of before, throw away what was not received whole, and go on; what cannot be read stays."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for path in self._folder.iterdir():
            if not (path / "job.json").exists():
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                found.append(from_dict(Job, read_json(path / "job.json", format=FORMAT), str(path), RunError))
            except RunError as error:
                _log.warning("%s", error)
        for job in sorted(found, key=lambda job: job.received):
            self._jobs[job.id] = job
            if not job.ended:
                self._waiting.put_nowait(job.id)
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._sweep())]

    async def stop(self, seconds: float) -> None:
        """Give the running job so many seconds to end; one that does not is begun anew by the next process."""
        runner, *others = self._tasks
        for task in others:
            task.cancel()
        if self._work is not None:
            await asyncio.wait([self._work], timeout=seconds)
        runner.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.contextmanager
    def receiving(self) -> Iterator[Path]:
        """A folder for the upload of a job, which goes unless it became one. Raises Refusal 429 for too many jobs."""
        self._require_place()
        folder = self._folder / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            if folder.name not in self._jobs:
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, folder: Path, wish: Wish) -> Job:
        """The job whose upload lies whole in `folder`; from now on it survives. Raises Refusal 429 as `receiving`."""
        self._require_place()
        job = Job(folder.name, wish, self._clock())
        self._save(job)
        self._waiting.put_nowait(job.id)
        return job

    def _require_place(self) -> None:
        if len(self._jobs) >= KEPT:
            raise refusal(
                429, "The server holds too many jobs.", found=f"{len(self._jobs)} jobs",
                do="delete some that have ended, or try again later", Retry_After="60",
            )  # fmt: skip

    def get(self, number: str) -> Job:
        """The job of that id. Raises Refusal 404."""
        job = self._jobs.get(number)
        if job is None:
            raise refusal(404, "There is no such job.", do="jobs are deleted some time after their end")
        running = self._running is not None and self._running[0] == number and not job.ended
        return replace(job, state="running") if running else job

    def share(self, job: Job) -> float:
        """How much of it is done, 0 to 1."""
        if job.state == "running" and self._running:
            return self._running[1].share
        return 1.0 if job.state == "done" else 0.0

    def result(self, job: Job) -> Answer:
        """The file of a job that is done. Raises Refusal 409 for any other."""
        if job.state != "done":
            raise refusal(409, "The job has no result.", found=job.state, expected="done", do="look at its state")
        return Answer(self._folder / job.id / job.name, job.media_type, job.name)

    def delete(self, job: Job) -> None:
        """Stop it if it runs, and forget it."""
        del self._jobs[job.id]
        if self._running and self._running[0] == job.id and self._work is not None:
            self._work.cancel()
        else:
            shutil.rmtree(self._folder / job.id, ignore_errors=True)

    def as_json(self, job: Job) -> dict[str, Any]:
        """What the API tells of a job."""
        told: dict[str, Any] = {
            "id": job.id, "state": job.state, "progress": round(self.share(job), 4), "received": job.received,
            "ended": job.ended, "status": f"/v1/jobs/{job.id}",
        }  # fmt: skip
        if job.state == "done":
            told["result"] = f"/v1/jobs/{job.id}/result"
        return told | ({"error": job.error} if job.error else {})

    async def _run(self) -> None:
        while True:
            number = await self._waiting.get()
            job = self._jobs.get(number)
            if job is None:
                continue
            if job.begun >= TRIES:
                error = {"summary": f"The server died {TRIES} times in the middle of this job.", "do": "send it anew"}
                self._end(replace(job, state="failed", error=error, ended=self._clock()))
                continue
            job = replace(job, begun=job.begun + 1)
            self._keep_if_room(job)
            ticket = Ticket()
            self._running = number, ticket
            self._work = asyncio.create_task(self._do(job, ticket))
            try:
                await asyncio.shield(self._work)
            except asyncio.CancelledError:
                if not self._work.cancelled():  # the server stops
                    self._work.cancel()
                    await asyncio.gather(self._work, return_exceptions=True)
                    if number in self._jobs and not self._jobs[number].ended:
                        self._keep_if_room(replace(job, begun=job.begun - 1))
                    raise
            finally:
                self._running = self._work = None

    async def _do(self, job: Job, ticket: Ticket) -> None:
        folder = self._folder / job.id
        work = folder / "work"
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            answer = await self._engine.answer_job(folder / "upload", work, job.wish, ticket)
            answer.path.replace(folder / answer.name)
            ended = replace(job, state="done", name=answer.name, media_type=answer.media_type)
        except Cancelled:
            raise asyncio.CancelledError from None
        except Exception as error:  # noqa: BLE001  (the next job has nothing to do with it)
            ended = replace(job, state="failed", error=error_fields(as_refusal(error).error))
        finally:
            shutil.rmtree(work, ignore_errors=True)
            if job.id not in self._jobs:
                shutil.rmtree(folder, ignore_errors=True)
        if job.id in self._jobs:
            self._end(replace(ended, ended=self._clock()))

    def _end(self, job: Job) -> None:
        """Keep how a job ended; its upload goes when the next process knows it too."""
        if self._keep_if_room(job):
            (self._folder / job.id / "upload").unlink(missing_ok=True)

    def _keep_if_room(self, job: Job) -> bool:
        """Save a job as it is now. Where the disk is full only this process knows, which is said by False."""
        self._jobs[job.id] = job
        try:
            self._save(job)
        except OutputError as error:
            _log.warning("%s", error)
            return False
        return True

    def _save(self, job: Job) -> None:
        write_json(self._folder / job.id / "job.json", to_dict(job), format=FORMAT)
        self._jobs[job.id] = job

    async def _sweep(self) -> None:
        while True:
            for job in list(self._jobs.values()):
                if job.ended and self._clock() - job.ended > self._keep:
                    with contextlib.suppress(KeyError):
                        self.delete(job)
            await asyncio.sleep(_SWEEP)
