"""What an ONNX file says of itself, read without a package: IR version, opset and metadata.

Knows the outermost fields of the format (onnx.proto3, ModelProto), not what is in the graph; nothing is decoded or run.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepmap.errors import ArtefactError

_IR, _GRAPH, _OPSET, _METADATA = 1, 7, 8, 14
_STANDARD = (b"", b"ai.onnx")
"""Names of the domain of the standard operators."""
_FIXED = {1: 8, 5: 4}
"""Wire types of fixed length, in bytes."""


@dataclass(frozen=True)
class OnnxHeader:
    """ir: version of the file format. opset: of the standard operators. metadata: names and texts.

    graph: sha256 of its bytes.
    """

    ir: int
    opset: int
    metadata: dict[str, str]
    graph: str


def read_header(path: Path) -> OnnxHeader:
    """The header of `path`. Raises ArtefactError where it is cut short or no ONNX file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            ir, opset, texts, graph = 0, 0, {}, hashlib.sha256()
            for number, start, end in _fields(data, 0, len(data)):
                if number == _IR:
                    ir = _varint(data, start)[0]
                elif number == _GRAPH:
                    with memoryview(data) as whole, whole[start:end] as part:
                        graph.update(part)
                elif number == _OPSET:
                    inner = dict(_inner(data[start:end]))
                    opset = inner[2] if inner.get(1, b"") in _STANDARD else opset
                elif number == _METADATA:
                    inner = dict(_inner(data[start:end]))
                    texts[inner[1].decode()] = inner.get(2, b"").decode()
            if not ir or not opset:
                raise ValueError("neither a version nor an opset in it")
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read.", found=error.strerror or str(error)) from error
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise ArtefactError(
            f"{path} is no whole ONNX file.", found=str(error), expected="what keepmap export wrote",
            do="copy the file again, or export the run again",
        ) from error  # fmt: skip
    return OnnxHeader(ir, opset, texts, graph.hexdigest())


def _inner(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of the fields of a small message: bytes, or an integer."""
    for number, start, end in _fields(data, 0, len(data)):
        yield number, data[start:end] if end else _varint(data, start)[0]


def _fields(data: Any, at: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of each field; the end of a plain number is 0. Raises ValueError where one is cut short."""
    while at < size:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            yield number, at, 0
            _, at = _varint(data, at)
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"a field of the unknown kind {kind}")
        if number == 0 or at + length > size:
            raise ValueError(f"it ends {at + length - size} bytes too early" if number else "bytes that are no field")
        yield number, at, at + length
        at += length


def _varint(data: Any, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises IndexError, ValueError."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
