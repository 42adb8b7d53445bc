"""The body of a request into a file: bare, or as the one file of a form.

Knows no image. No name that a client gives becomes a path; it only tells an OME-TIFF from another TIFF.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from keepmap import external
from keepmap.serving.connections import PURPOSE
from keepmap.serving.refusals import Refusal, refusal

PARTS = 16
"""Parts that a form may have."""
FIELD_BYTES = 1024
"""Bytes of a field that is no file."""
HEADER_BYTES = 2048
"""Bytes of a header of a part, and of its name."""
_SILENT = logging.Logger("keepmap.serve.form", logging.CRITICAL)
"""Instead of the parser's, which writes a line for each form that is broken."""
_GATHERED = 1 << 20
"""Bytes that are written at once."""


@dataclass
class Received:
    """fields: of the form, by name. ome: whether the name of the file is that of an OME-TIFF. size: bytes."""

    fields: dict[str, str] = field(default_factory=dict)
    ome: bool = False
    size: int = 0


async def receive(chunks: AsyncIterator[bytes], content_type: str, target: Path) -> Received:
    """Write the body to `target`, which is made. Raises Refusal for a form that is broken or has no file."""
    received = Received()
    with target.open("xb") as file:
        writer = _Writer(file, received)
        if is_form(content_type):
            await _receive_form(chunks, content_type, writer)
        else:
            async for chunk in chunks:
                writer.add(chunk)
                await writer.flush(_GATHERED)
        await writer.flush(1)
    if not received.size:
        raise refusal(
            400, "The request holds no image.", found="0 bytes",
            expected="an image as the body, or as a file in a form", do="choose an image that is not empty",
        )
    return received


def is_form(content_type: str) -> bool:
    """Whether a body of this kind holds the image as a part among others."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


class _Writer:
    """Bytes on their way to the file, written outside of the event loop."""

    def __init__(self, file: IO[bytes], received: Received) -> None:
        self._file, self.received, self._gathered = file, received, bytearray()

    def add(self, data: bytes) -> None:
        """Take some more bytes."""
        self._gathered += data
        self.received.size += len(data)

    async def flush(self, least: int) -> None:
        """Write what there is, if it is so many bytes."""
        if len(self._gathered) >= least:
            gathered, self._gathered = self._gathered, bytearray()
            await asyncio.to_thread(self._file.write, gathered)


async def _receive_form(chunks: AsyncIterator[bytes], content_type: str, writer: _Writer) -> None:
    multipart = external.load("python_multipart", PURPOSE)
    parsing = external.load("python_multipart.multipart", PURPOSE)
    _, options = parsing.parse_options_header(content_type)
    form = _Form(parsing, writer)
    try:
        parser = multipart.MultipartParser(
            options[b"boundary"], form.callbacks(), max_header_count=8, max_header_size=HEADER_BYTES
        )
        parser.logger = _SILENT
        async for chunk in chunks:
            parser.write(chunk)
            await writer.flush(_GATHERED)
        parser.finalize()
    except Refusal:
        raise
    except (multipart.exceptions.FormParserError, KeyError, ValueError) as error:
        raise _broken(str(error) or type(error).__name__) from error
    if not form.ended:
        raise _broken("it ends before its last boundary")


class _Form:
    """What a multipart parser calls back: the first file goes to the writer, short fields into a dictionary."""

    def __init__(self, parsing: Any, writer: _Writer) -> None:
        self._parsing, self._writer = parsing, writer
        self._parts, self._files, self.ended = 0, 0, False
        self._begin()

    def callbacks(self) -> dict[str, Any]:
        """By the parser's names."""
        return {
            "on_part_begin": self._begin_part, "on_header_field": self._name, "on_header_value": self._header,
            "on_header_end": self._header_ends, "on_headers_finished": self._headers_end, "on_part_data": self._data,
            "on_part_end": self._end, "on_end": self._finish,
        }  # fmt: skip

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value, self._is_file, self._text = b"", b"", False, bytearray()

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > PARTS:
            raise refusal(400, "The form has too many parts.", expected=f"at most {PARTS}, one of them a file")
        self._begin()

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _headers_end(self) -> None:
        _, self._told = self._parsing.parse_options_header(self._headers.get(b"content-disposition", b""))
        self._is_file = b"filename" in self._told
        self._files += self._is_file
        if self._files > 1:
            raise refusal(400, "The form has several files.", expected="one image a request")
        if self._is_file:
            self._writer.received.ome = self._told[b"filename"].lower().endswith((b".ome.tif", b".ome.tiff"))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._writer.add(data[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > FIELD_BYTES:
            raise refusal(
                400, "A field of the form is too long.", expected=f"at most {FIELD_BYTES} bytes, or a file with a name"
            )

    def _end(self) -> None:
        if not self._is_file:
            name = self._told.get(b"name", b"").decode("utf-8", "replace")
            self._writer.received.fields[name] = self._text.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.ended = True


def _broken(found: str) -> Refusal:
    return refusal(400, "The form cannot be read.", found=found, expected="multipart/form-data with its boundary")
