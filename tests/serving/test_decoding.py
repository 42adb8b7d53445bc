"""Decoders answer in order; one that is stuck or dead is replaced, and the next image is decoded."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from keepmap.data.images import open_image
from keepmap.errors import DiskFull
from keepmap.options import TOKEN
from keepmap.runtime.stopping import Cancelled
from keepmap.serving.decoder import Task
from keepmap.serving.decoding import Decoded, Decoders
from keepmap.serving.refusals import Refusal
from keepmap.serving.tickets import Ticket


def test_a_stuck_and_a_dead_decoder_are_replaced(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def task(name: str) -> Task:
        return Task(str(images / name), str(tmp_path / name), None, 10_000, 10_000, 3, "uint8", 5.0, 1 << 30)

    async def none_left(*_: object, **__: object) -> None:
        raise OSError("no more processes")

    async def all_of_it() -> tuple[Decoded, Decoded, int]:
        decoders = Decoders(1)
        monkeypatch.setenv(TOKEN, "secret")
        await decoders.start()
        first = await decoders.decode(task("a.png"), Ticket())
        process = await decoders._idle.get()
        seen = Path(f"/proc/{process.pid}/environ")
        assert not seen.exists() or b"secret" not in seen.read_bytes()
        os.kill(process.pid, signal.SIGSTOP)
        decoders._idle.put_nowait(process)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(decoders.decode(task("a.png"), Ticket()), 0.05)
        process = await decoders._idle.get()
        process.kill()
        await process.wait()
        decoders._idle.put_nowait(process)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "create_subprocess_exec", none_left)
            with pytest.raises(Refusal, match="No decoder can be started") as caught:
                await decoders.decode(task("a.png"), Ticket())
            assert caught.value.status == 503
        if Path("/dev/full").exists():
            with pytest.raises(DiskFull):
                await decoders.decode(replace(task("a.png"), target="/dev/full"), Ticket())
        last = await decoders.decode(task("e.tif"), Ticket())
        await decoders.close()
        return first, last, decoders.killed

    first, last, killed = asyncio.run(all_of_it())
    for found, name in ((first, "a.png"), (last, "e.tif")):
        source = open_image(images / name)
        np.testing.assert_array_equal(found.read(), source.read())
        assert (found.geometry, found.shape, found.dtype) == (source.geometry, source.shape, source.dtype)
    assert killed == 1


def test_reading_ends_where_the_request_was_cancelled(tmp_path: Path) -> None:
    (tmp_path / "pixels").write_bytes(bytes(12))
    facts = {
        "kind": "PNG", "shape": [3, 2, 2], "dtype": "uint8", "orientation": 1, "nodata": None, "spacing": None,
        "unit": "", "origin": [0, 0], "tags": [[33550, 12, 3, [1.0, 1.0, 0.0]]],
    }  # fmt: skip
    ticket = Ticket()
    decoded = Decoded(tmp_path / "pixels", facts, ticket)
    assert decoded.read((slice(0, 1), slice(0, 2))).shape == (3, 1, 2)
    assert decoded.geometry.tags == ((33550, 12, 3, (1.0, 1.0, 0.0)),)
    ticket.cancel()
    with pytest.raises(Cancelled):
        decoded.read()
