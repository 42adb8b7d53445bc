"""The queue has an end, who goes away is not computed for, and what was made in between is removed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from keepmap.serving import engine
from keepmap.serving.answers import write_answer
from keepmap.serving.tickets import Ticket


class Gate:
    """In place of `write_answer`: waits until it is opened, or the ticket cancelled."""

    def __init__(self) -> None:
        self.entered, self.open, self.tickets = threading.Event(), threading.Event(), []

    def __call__(self, *arguments: Any) -> Any:
        ticket = next(a for a in arguments if isinstance(a, Ticket))
        self.tickets.append(ticket)
        self.entered.set()
        while not self.open.wait(0.01):
            ticket.check()
        return write_answer(*arguments)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(engine, "write_answer", made)
    return made


def test_a_full_queue_says_when_to_come_again(strict: Any, gate: Gate, images: Path) -> None:
    body = (images / "a.png").read_bytes()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(strict, "POST", "/v1/predict", body)
        assert gate.entered.wait(10)
        status, headers, content = strict("POST", "/v1/predict", body)
        gate.open.set()
        assert first.result()[0] == 200
    assert status == 429 and int(headers["retry-after"]) >= 1
    assert "try again" in json.loads(content)["error"]["do"]
    assert strict("POST", "/v1/predict", body)[0] == 200


def test_slow_senders_keep_nobody_from_the_queue(strict: Any, images: Path) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\nContent-Length: 9\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(2):  # the queue has one place
            stack.enter_context(socket.create_connection(("127.0.0.1", strict.port))).sendall(head)
        time.sleep(0.1)
        assert strict("POST", "/v1/predict", (images / "a.png").read_bytes())[0] == 200


def test_a_client_that_goes_away_stops_its_computation(ask: Any, gate: Gate, images: Path, masks: Path) -> None:
    body = (images / "a.png").read_bytes()
    with socket.create_connection(("127.0.0.1", ask.port)) as client:
        client.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        client.sendall(body)
        assert gate.entered.wait(10)
    limit = time.monotonic() + 10
    while not gate.tickets[0].cancelled and time.monotonic() < limit:
        time.sleep(0.01)
    assert gate.tickets[0].cancelled
    gate.open.set()
    assert ask("POST", "/v1/predict", body)[2] == (masks / "a.png").read_bytes()


def test_nothing_is_left_behind(run: Path, serve: Any, images: Path, tmp_path: Path) -> None:
    with serve(run, tmp_path) as client:
        for body in (b"no image", (images / "a.png").read_bytes()):
            client("POST", "/v1/predict", body)
        assert list((tmp_path / "requests").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs"]
