"""Refusals keep the words of errors."""

from __future__ import annotations

import errno
import json

import pytest

from keepmap.errors import DataError, DiskFull, OptionError, OutOfMemory, OutputError
from keepmap.serving.refusals import as_refusal, body_of, encode, refusal


def test_a_refusal_has_status_headers_and_words() -> None:
    made = refusal(429, "Busy.", found="3", Retry_After="7")
    assert (made.status, made.headers) == (429, {"Retry-After": "7"})
    assert json.loads(body_of(made)) == {"error": {"summary": "Busy.", "found": "3"}}


def test_what_is_wrong_with_an_image_is_the_clients_and_a_lack_of_memory_is_not() -> None:
    assert as_refusal(DataError("a")).status == 422
    assert as_refusal(OutOfMemory("a")).status == 503
    assert as_refusal(OptionError("a")).status == 400
    assert as_refusal(RuntimeError("a")).status == 500


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "full", "/secret/x"), 507), (OSError(errno.EMFILE, "many", "/secret/x"), 503),
        (DiskFull("/secret/x cannot be written"), 507), (OutputError("/secret/x cannot be written"), 503),
    ],
)  # fmt: skip
def test_a_disk_is_not_the_clients_and_its_folders_are_not_told(error: Exception, status: int) -> None:
    made = as_refusal(error)
    assert made.status == status and b"secret" not in body_of(made)


def test_json_holds_odd_names_and_no_odd_numbers() -> None:
    assert encode({"a": [1.5, float("inf")], "b": {"c": float("nan")}}) == b'{"a":[1.5,null],"b":{"c":null}}'
    assert json.loads(encode({"a": "gr\u00e4s\udc80"}))["a"].startswith("gr\u00e4s")
