"""What a request is refused with: a status and the found, expected, do of every message.

Does not decide what is refused.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keepmap.config import not_written
from keepmap.errors import DiskFull, InputError, KeepmapError, OptionError, OutputError

JSON = "application/json"
_log = logging.getLogger("keepmap.serve")


class Refusal(Exception):
    """A request that is not served. status: of HTTP, 400 or above; error: why; headers: more for the answer."""

    def __init__(self, status: int, error: KeepmapError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error.summary)
        self.status = status
        self.error = error
        self.headers = dict(headers or {})


def refusal(
    status: int, summary: str, *, found: str = "", expected: str = "", do: str = "", **headers: str
) -> Refusal:
    """A Refusal in one line; headers: Retry_After="1" becomes Retry-After: 1."""
    error = InputError(summary, found=found, expected=expected, do=do)
    return Refusal(status, error, {name.replace("_", "-"): value for name, value in headers.items()})


def as_refusal(error: Exception) -> Refusal:
    """What a request that failed with `error` is answered with: 4xx where the request is wrong, else 5xx.

    What is not about the request is logged, and told without the names of files here.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, OSError):
        error = not_written(Path(error.filename or "A file"), error)
    if isinstance(error, OutputError):
        _log.warning("%s", error)
        if isinstance(error, DiskFull):
            return refusal(507, "The server has no room for this request.", do="try again later")
        return refusal(503, "The server cannot keep what this request needs.", do="look into its log")
    if isinstance(error, KeepmapError):
        wrong = isinstance(error, InputError) and error.exit_code == 2
        return Refusal(400 if isinstance(error, OptionError) else 422 if wrong else 503, error)
    _log.error("a request failed", exc_info=error)
    return refusal(500, "The server failed at this request.", do="look into its log")


def error_fields(error: KeepmapError) -> dict[str, str]:
    """The message of an error as the API gives it; details that are empty are left out."""
    fields = {name: str(getattr(error, name)) for name in ("summary", "found", "expected", "do")}
    return {name: text for name, text in fields.items() if text}


def body_of(refused: Refusal) -> bytes:
    """The JSON that a refusal is answered with."""
    return encode({"error": error_fields(refused.error)})


def encode(values: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8; what is no number is null."""
    try:
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return encode(_finite(values))
    return text.encode("utf-8", "backslashreplace")


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
