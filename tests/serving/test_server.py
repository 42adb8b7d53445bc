"""A server says where it is and who reaches it, ends after what runs, and shares its port and folder with nobody."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import keepmap
from keepmap.errors import OptionError, OutputError, RunError
from keepmap.inference.predictor import Predictor
from keepmap.options import ServeOptions
from keepmap.protocols import Silent
from keepmap.serving import engine, server
from keepmap.serving.answers import write_answer


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "check_together", lambda *_: {})


def loaded(run: Path) -> Callable[[], Predictor]:
    return partial(keepmap.load, run, precision="float32")


def opened(run: Path, state: Path, told: Silent, **options: Any) -> Any:
    return server.opened(run, loaded(run), ServeOptions(port=0, state=str(state), **options), told)


@pytest.mark.parametrize(
    ("options", "warned", "shown"),
    [
        ({}, False, "http://127.0.0.1:"),
        ({"host": "0.0.0.0"}, True, "http://0.0.0.0:"),
        ({"host": "0.0.0.0", "token": "abc"}, False, "#token=abc"),
    ],
)
def test_it_says_who_reaches_it_and_ends_with_a_signal(
    run: Path, tmp_path: Path, quick: None, options: dict[str, str], warned: bool, shown: str
) -> None:
    told = Told()

    def send() -> None:
        while not any("Ctrl-C" in line for line in told.lines):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    keepmap.serve(run, port=0, state=tmp_path, precision="float32", progress=told, **options)
    sender.join()
    assert told.lines[-1] == "stopped" and any(line.startswith("serving ") and shown in line for line in told.lines)
    assert any("no --token" in line for line in told.lines) == warned


def test_a_second_signal_ends_it_without_a_traceback(
    run: Path, tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    told, answers = Told(), []

    def send() -> None:
        while not any("Ctrl-C" in line for line in told.lines):
            time.sleep(0.01)
        port = int(next(line for line in told.lines if line.startswith("serving ")).rpartition(":")[2].rstrip("/"))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc")
            for _ in range(2):
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGTERM)
            answers.append(client.recv(65536))

    sender = threading.Thread(target=send)
    sender.start()
    keepmap.serve(run, port=0, state=tmp_path, precision="float32", progress=told)
    sender.join()
    assert answers[0].startswith(b"HTTP/1.1 503") and told.lines[-1] == "stopped"
    assert not caplog.records


def test_the_token_may_come_from_the_environment(
    run: Path, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPMAP_TOKEN", "secret")
    with serve(run, tmp_path) as client:
        assert client("GET", "/v1/model")[0] == 401
        assert client("GET", "/v1/model", headers={"Authorization": "Bearer secret"})[0] == 200
    with opened(run, tmp_path, Silent()) as served:
        assert "secret" not in served.address


def test_a_port_that_was_not_chosen_leaves_nothing(
    run: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "cache_folder", lambda: tmp_path)
    with server.opened(run, loaded(run), ServeOptions(port=0), Silent()) as served:
        (folder,) = (tmp_path / "serve").iterdir()
        port = urlsplit(served.address).port
        assert port and folder != server._default_folder(run, ServeOptions(port=port))
    assert list((tmp_path / "serve").iterdir()) == []


def test_what_runs_is_answered_before_it_ends(
    run: Path, serve: Any, images: Path, masks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        time.sleep(0.3)
        return write_answer(*arguments)

    monkeypatch.setattr(engine, "write_answer", slow)
    with ThreadPoolExecutor(1) as threads:
        with serve(run, tmp_path) as client:
            answer = threads.submit(client, "POST", "/v1/predict", (images / "a.png").read_bytes())
            assert begun.wait(10)
        assert answer.result()[2] == (masks / "a.png").read_bytes()
    with pytest.raises(OSError):  # noqa: PT011  (refused, reset or gone: the port is closed)
        client("GET", "/healthz")


def test_port_and_folder_are_its_own(run: Path, tmp_path: Path, quick: None) -> None:
    with opened(run, tmp_path, Silent()) as served:
        with pytest.raises(RunError, match="Another server keeps its jobs"):
            opened(run, tmp_path, Silent()).__enter__()
        port = int(served.address.rpartition(":")[2].rstrip("/"))
        taken = ServeOptions(port=port, state=str(tmp_path / "other"))
        with pytest.raises(OptionError, match="cannot be listened on"):
            server.opened(run, loaded(run), taken, Silent()).__enter__()


def test_options_that_cannot_be(run: Path, tmp_path: Path, quick: None) -> None:
    for wrong in ({"port": 70000}, {"queue": 0}, {"receive": "soon"}, {"max_bytes": "much"}, {"host": "no.such.host."}):
        settings = ServeOptions(**{"port": 0, "state": str(tmp_path), **wrong})
        with pytest.raises(OptionError):
            server.opened(run, loaded(run), settings, Silent()).__enter__()
    (tmp_path / "file").write_text("")
    (tmp_path / "requests").mkdir(exist_ok=True)
    (tmp_path / "requests" / "mine").write_text("")
    with pytest.raises(OptionError, match="holds other files"):
        opened(run, tmp_path, Silent()).__enter__()
    assert (tmp_path / "requests" / "mine").exists()
    with pytest.raises(OutputError, match="cannot be made"):
        opened(run, tmp_path / "file" / "state", Silent()).__enter__()


def test_a_second_signal_ends_it_at_once() -> None:
    class Base:
        should_exit = force_exit = False

    quiet = server._quiet(Base)()
    found = []
    for _ in range(2):
        quiet.handle_exit(signal.SIGTERM, None)
        found.append((quiet.should_exit, quiet.force_exit))
    assert found == [(True, False), (True, True)]
