"""From an upload to its answer: decoded where it can be killed, predicted in turn, written by a thread.

Knows neither HTTP nor jobs. Only so many uploads are between the first step and the last, which bounds memory and disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from keepmap.inference.predictor import MEGAPIXEL, Predictor
from keepmap.resources import Stopwatch
from keepmap.runtime.stopping import CURRENT
from keepmap.serving.answers import Answer, write_answer
from keepmap.serving.decoder import Task
from keepmap.serving.decoding import Decoded, Decoders
from keepmap.serving.metrics import Metrics
from keepmap.serving.refusals import refusal
from keepmap.serving.tickets import Ticket
from keepmap.serving.turns import InTurn
from keepmap.serving.wishes import Wish

Result = TypeVar("Result")
_STAGES = 4
"""Uploads that are decoded, predicted or written at a time, beside a job."""
_DECODERS = 2


@dataclass(frozen=True)
class Limits:
    """Pixels of an image, and of one that is a job; seconds and bytes of its decoder; requests that may wait."""

    pixels: int
    job_pixels: int
    decode_seconds: float
    decode_bytes: int
    queue: int


class Engine:
    """Answers uploads with `predictor`, whose runtime is an InTurn. `start` before and `close` after use."""

    def __init__(self, predictor: Predictor, turns: InTurn, limits: Limits, metrics: Metrics) -> None:
        self.predictor, self.turns, self.limits, self.metrics = predictor, turns, limits, metrics
        self._decoders = Decoders(_DECODERS)
        self._stages = asyncio.Semaphore(_STAGES)
        self._threads = ThreadPoolExecutor(_STAGES, "keepmap-predict")
        self._job_thread = ThreadPoolExecutor(1, "keepmap-job")
        self._admitted, self._mean = 0, 1.0
        metrics.level("keepmap_queue", lambda: self._admitted)
        metrics.level("keepmap_decoders_killed_total", lambda: self._decoders.killed)

    async def start(self) -> None:
        """Start the decoders."""
        await self._decoders.start()

    async def close(self) -> None:
        """End the decoders and the threads, after what runs on them."""
        await self._decoders.close()
        for threads in (self._threads, self._job_thread):
            await asyncio.to_thread(threads.shutdown)
        await asyncio.to_thread(self.turns.close)

    def require_place(self) -> None:
        """Raise Refusal 429 where all places in the queue are taken."""
        if self._admitted >= self.limits.queue:
            wait = math.ceil(max(1.0, self._mean * self._admitted))
            raise refusal(
                429, "The server is busy.", found=f"{self._admitted} predictions that wait",
                do=f"try again in {wait} s", Retry_After=str(wait),
            )  # fmt: skip

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """One of the places in the queue. Raises Refusal 429 where all are taken."""
        self.require_place()
        self._admitted += 1
        watch = Stopwatch()
        try:
            yield
        finally:
            self._mean += 0.1 * (watch.seconds / self._admitted - self._mean)
            self._admitted -= 1

    async def answer(self, upload: Path, folder: Path, wish: Wish, ticket: Ticket) -> Answer:
        """What is answered at once, as a file in `folder`. Raises DataError; where cancelled, the computing ends."""
        async with self._stages:
            return await self._answer(upload, folder, wish, ticket, self._threads, self.limits.pixels)

    async def answer_job(self, upload: Path, folder: Path, wish: Wish, ticket: Ticket) -> Answer:
        """As `answer`, for a job: larger, and beside those that wait for theirs."""
        return await self._answer(upload, folder, wish, ticket, self._job_thread, self.limits.job_pixels)

    async def _answer(
        self, upload: Path, folder: Path, wish: Wish, ticket: Ticket, threads: ThreadPoolExecutor, pixels: int
    ) -> Answer:
        limits, watch = self.limits, Stopwatch()
        scale = max(1.0, pixels / limits.pixels) if threads is self._job_thread else 1.0
        task = Task(
            str(upload), str(folder / "pixels"), wish.frame, pixels, min(pixels, limits.pixels),
            self.turns.channels, self.predictor.dtype, limits.decode_seconds * scale, limits.decode_bytes,
        )  # fmt: skip
        source = await self._decoders.decode(task, ticket)
        self.metrics.observe("keepmap_step_seconds", watch.seconds, step="decode")
        ticket.total = source.shape[1] * source.shape[2] / MEGAPIXEL
        watch = Stopwatch()
        answer = await in_thread(threads, ticket, lambda: self._write(source, folder, wish, ticket))
        self.metrics.observe("keepmap_step_seconds", watch.seconds, step="predict")
        self.metrics.count("keepmap_pixels_total", source.shape[1] * source.shape[2])
        return answer

    def _write(self, source: Decoded, folder: Path, wish: Wish, ticket: Ticket) -> Answer:
        CURRENT.set(ticket)
        return write_answer(self.predictor, source, folder, wish, ticket, self.limits.pixels)


async def in_thread(threads: ThreadPoolExecutor, ticket: Ticket, work: Callable[[], Result]) -> Result:
    """What `work` returns on a thread; where the caller is cancelled, the ticket is, and the thread waited for."""
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        ticket.cancel()
        with contextlib.suppress(Exception):
            await future
        raise
