"""`keepmap serve` hands everything over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import keepmap
from keepmap.cli.main import main


def test_everything_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, dict[str, Any]]] = []
    monkeypatch.setattr(keepmap, "serve", lambda run, **options: calls.append((run, options)), raising=False)
    assert main(["serve", "run", "--port", "9", "--token", "abc", "--max-bytes", "1M", "-q"]) == 0
    ((run, options),) = calls
    assert run == Path("run")
    assert (options["port"], options["token"], options["max_bytes"], options["host"]) == (9, "abc", "1M", "127.0.0.1")
