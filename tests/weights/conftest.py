"""Published files on a server of this machine, a cache of its own, and files of weights in every broken form."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from keepmap.weights.published import Published

BODY = bytes(range(256)) * 4096
"""1 MiB: several chunks."""
NAME = f"net-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


class Handler(BaseHTTPRequestHandler):
    """What the first part of the path says: /full/..., /truncated/..., /wrong/..., /silent/..., or 404."""

    stop = threading.Event()

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if kind not in ("full", "truncated", "wrong", "silent"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        sent = {"truncated": BODY[:300_000], "wrong": BODY[::-1], "silent": BODY[:300_000]}.get(kind, BODY)
        self.wfile.write(sent)
        if kind == "silent":
            self.wfile.flush()
            self.stop.wait(20)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server:
    """A server, and what it was asked for."""

    name, body = NAME, BODY

    def __init__(self, address: str, asked: list[str]) -> None:
        self.address = address
        self.asked = asked

    def published(self, kind: str, name: str = NAME) -> Published:
        return Published(f"{self.address}/{kind}/{name}", "free")


@pytest.fixture
def server() -> Iterator[Server]:
    Handler.stop.clear()
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(f"http://127.0.0.1:{made.server_port}", made.asked)  # type: ignore[attr-defined]
    Handler.stop.set()
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On a busy machine two threads wait for each other longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; nothing else of this machine is looked at."""
    folder = tmp_path / "deep" / "cache"
    monkeypatch.setenv("KEEPMAP_CACHE", str(folder))
    monkeypatch.delenv("KEEPMAP_OFFLINE", raising=False)
    return folder
