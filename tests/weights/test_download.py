"""Fetching against a server of this machine: whole and verified, or a named error and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from keepmap.errors import DownloadError, OutputError, WeightsError
from keepmap.protocols import Silent
from keepmap.weights import download
from keepmap.weights.download import cache_folder, cached, fetch
from keepmap.weights.published import Published


class Heard(Silent):
    """Remembers what was said and how far it came."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = self.total = 0.0

    def say(self, text: str) -> None:
        self.lines.append(text)

    def track(self, name: str, total: float, unit: str) -> Any:
        assert unit == "MB"
        self.total = total
        return self

    def advance(self, done: float = 1, **figures: float | str) -> None:
        self.done += done


def test_a_file_is_fetched_once_and_then_taken_from_the_cache(server: Any, cache: Path) -> None:
    heard, published = Heard(), server.published("full")
    assert fetch(published, heard) == cache / server.name == cached(published)
    assert (cache / server.name).read_bytes() == server.body
    assert heard.done == pytest.approx(heard.total) == len(server.body) / 1e6
    assert "no test of keepmap has ever fetched this address" in heard.lines[0]
    assert "licence free" in heard.lines[1]
    assert fetch(published, heard, offline=True) == cache / server.name
    assert server.asked == [f"/full/{server.name}"]
    assert list(cache.iterdir()) == [cache / server.name]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("absent", "HTTP 404"),
        ("truncated", "ended after 300000 of 1048576 bytes"),
        ("wrong", r"SHA-256 \w{8}\.\.\. in 1048576 bytes"),
        ("silent", "timed out"),
    ],
)
def test_what_cannot_be_had_is_named_and_leaves_nothing(
    kind: str, found: str, server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_PATIENCE", 0.3)
    published = server.published(kind)
    with pytest.raises(DownloadError, match=found) as caught:
        fetch(published, Heard())
    assert caught.value.summary == f"{server.name} could not be fetched."
    assert f"download {published.address} by hand to {cache / server.name}" in caught.value.do
    assert list(cache.iterdir()) == []


def test_a_dead_address_is_named(cache: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="refused"):
        fetch(Published(f"http://127.0.0.1:{port}/net.pth", "free"), Heard())
    with pytest.raises(DownloadError, match=r"net\.pth could not be fetched"):
        fetch(Published("http://nowhere.invalid/net.pth", "free"), Heard())
    assert list(cache.iterdir()) == []


def test_ctrl_c_in_the_middle_leaves_nothing(server: Any, cache: Path) -> None:
    class Interrupting(Heard):
        def advance(self, done: float = 1, **figures: float | str) -> None:
            assert [path.name for path in cache.iterdir()] == [f".{server.name}.partial"]
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fetch(server.published("full"), Interrupting())
    assert list(cache.iterdir()) == []
    assert fetch(server.published("full"), Heard()).read_bytes() == server.body


@pytest.mark.parametrize("way", ["option", "environment"])
def test_offline_asks_nobody(way: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "environment":
        monkeypatch.setenv("KEEPMAP_OFFLINE", "1")
    with pytest.raises(DownloadError, match="--offline or KEEPMAP_OFFLINE"):
        fetch(server.published("full"), Heard(), offline=way == "option")
    monkeypatch.setenv("KEEPMAP_OFFLINE", "0")
    assert server.asked == []
    fetch(server.published("full"), Heard())
    assert len(server.asked) == 1


def test_another_file_under_the_name_is_not_used(server: Any, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / server.name).write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="is not the published file") as caught:
        fetch(server.published("full"), Heard())
    assert "delete it" in caught.value.do
    assert server.asked == []


def test_a_cache_that_cannot_be_made_is_named(server: Any, cache: Path) -> None:
    cache.parent.write_text("a file")
    with pytest.raises(OutputError, match="KEEPMAP_CACHE"):
        fetch(server.published("full"), Heard())


def test_a_full_disk_is_named(server: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        fetch(server.published("full"), Heard())
    assert list(cache.iterdir()) == []


def test_a_name_without_a_hash_is_not_verified(server: Any) -> None:
    assert fetch(server.published("wrong", "net.pth"), Heard()).read_bytes() == server.body[::-1]


@pytest.mark.parametrize(
    ("system", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "x/keepmap"),
        ("linux", "", ".cache/keepmap"),
        ("darwin", "", "Library/Caches/keepmap"),
        ("win32", "LOCALAPPDATA", "x/keepmap"),
    ],
)
def test_the_cache_lies_where_the_platform_keeps_such_things(
    system: str, variable: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEEPMAP_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "x"))
    assert cache_folder() == tmp_path / expected
