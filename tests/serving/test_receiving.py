"""Bodies become a file: bare, or the one file of a form, whatever pieces they come in; forms that are broken do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.serving.receiving import PARTS, Received, receive
from keepmap.serving.refusals import Refusal

FORM = "multipart/form-data; boundary=b0"


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def received(body: bytes, kind: str, target: Path, size: int = 7) -> Received:
    target.unlink(missing_ok=True)
    return asyncio.run(receive(pieces(body, size), kind, target))


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.integers(1, 40), st.booleans())
def test_content_arrives_whole(tmp_path_factory: Any, form: Any, content: bytes, size: int, bare: bool) -> None:
    target = tmp_path_factory.getbasetemp() / "whole"
    body, headers = (content, {"Content-Type": "image/png"}) if bare else form(content, shapes="runs")
    if not bare and b"\r\n--b0" in content:
        return
    told = received(body, headers["Content-Type"], target, size)
    assert target.read_bytes() == content and told.size == len(content)
    assert told.fields == ({} if bare else {"shapes": "runs"})


@pytest.mark.parametrize(("name", "ome"), [("a.ome.tif", True), ("A.OME.TIFF", True), ("../a.tif", False)])
def test_only_an_ome_tiff_is_told_by_its_name(tmp_path: Path, form: Any, name: str, ome: bool) -> None:
    assert received(form(b"x", name)[0], FORM, tmp_path / "a").ome == ome


def part(name: str, content: bytes = b"x", file: bool = False) -> bytes:
    of_file = '; filename="a"' if file else ""
    return f'--b0\r\nContent-Disposition: form-data; name="{name}"{of_file}\r\n\r\n'.encode() + content + b"\r\n"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", "image/png", "holds no image"),
        (part("a") + b"--b0--\r\n", FORM, "holds no image"),
        (part("a", file=True) * 2 + b"--b0--\r\n", FORM, "several files"),
        (part("a") * (PARTS + 1) + b"--b0--\r\n", FORM, "too many parts"),
        (part("a", bytes(2000)) + b"--b0--\r\n", FORM, "field of the form is too long"),
        (part("a", file=True), FORM, "cannot be read"),
        (b"nonsense", FORM, "cannot be read"),
        (part("a", file=True) + b"--b0--\r\n", "multipart/form-data", "cannot be read"),
        (b"--b0\r\n" + b"X: y\r\n" * 50, FORM, "cannot be read"),
        (b"--b0\r\nX: " + b"y" * 5000, FORM, "cannot be read"),
        (part("a"), "multipart/form-data; boundary=" + "b" * 400, "cannot be read"),
    ],
)
def test_broken_bodies_are_refused(
    tmp_path: Path, body: bytes, kind: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        received(body, kind, tmp_path / "a")
    assert caught.value.status == 400 and not caplog.records
