"""Connections that say nothing, too much, or are too many."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

import pytest

from keepmap.serving import connections


def read(client: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(OSError):
        while part := client.recv(65536):
            answer += part
    return answer


def status_of(answer: bytes) -> int:
    """Of an answer whose content is an error as JSON and as long as it says."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head and f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["error"]["summary"]
    return int(head.split()[1])


def test_silent_and_slow_heads_are_ended(strict: Any) -> None:
    for sent in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
        with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as client:
            client.sendall(sent)
            assert status_of(read(client)) == 408


def test_nonsense_and_long_heads_are_refused(strict: Any) -> None:
    post = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n"
    broken = post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"
    for sent in (b"\0\1\2\3\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 40000, broken):
        with socket.create_connection(("127.0.0.1", strict.port), timeout=10) as client:
            with contextlib.suppress(OSError):
                client.sendall(sent)
            assert status_of(read(client)) == 400
    assert strict("GET", "/healthz")[0] == 200


def test_one_too_many_is_told_so(strict: Any) -> None:
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", strict.port)
        held = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(4)]
        answer = read(held[-1])
    assert status_of(answer) == 429 and b"Retry-After: 5\r\n" in answer
    assert strict("GET", "/healthz")[0] == 200


def test_who_takes_no_answer_is_dropped(strict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKING", 0.3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(("127.0.0.1", strict.port))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300)
        tries = iter(range(60))
        while strict("GET", "/healthz")[0] != 200 and next(tries, None) is not None:
            time.sleep(0.05)
        assert strict("GET", "/healthz")[0] == 200
