"""Failures are shown whole on a terminal and in a pipe; numbers keep three digits and a unit."""

from __future__ import annotations

import io
import sys

import pytest

from keepmap.cli.terminal import make_console, show, show_failure
from keepmap.errors import DataError

LONG = "images/" + "long_name_" * 12 + "[bold]x[/y].png"
FAILURE = DataError(f"{LONG} is empty.", found="0 bytes :smile:", expected="an image\nor none", do="delete [it]")


class FakeTerminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _pretend_a_terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    stream = FakeTerminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return stream


def test_failure_in_a_pipe_is_plain_and_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    show_failure(FAILURE, "DataError")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"DataError: {FAILURE}\n"


def test_failure_on_a_terminal_is_styled_wrapped_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _pretend_a_terminal(monkeypatch)
    show_failure(FAILURE, "DataError")
    text = terminal.getvalue()
    assert "\x1b[1;31mDataError: \x1b[0m" in text
    plain = text.replace("\x1b[1;31m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert LONG in plain.replace("\n", "")
    lines = [line.rstrip() for line in plain.splitlines()]
    assert lines[-4:] == [
        "  found     0 bytes :smile:",
        "  expected  an image",
        "            or none",
        "  do        delete [it]",
    ]


def test_text_is_wrapped_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "word " * 40
    show(words)
    assert capsys.readouterr().out == words + "\n"
    terminal = _pretend_a_terminal(monkeypatch)
    show(words)
    assert len(terminal.getvalue().splitlines()) == 3
    assert max(map(len, terminal.getvalue().splitlines())) <= 80


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show("[red]a[/red] [/] [x] :smile: http://x.y")
    assert capsys.readouterr().out == "[red]a[/red] [/] [x] :smile: http://x.y\n"


def test_width_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console().width == 100
    monkeypatch.setenv("COLUMNS", "60")
    assert make_console().width == 60
