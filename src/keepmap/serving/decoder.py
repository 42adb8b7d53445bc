"""A process that decodes images of strangers and nothing else: python -m keepmap.serving.decoder.

Reads a task in JSON a line from stdin and answers with a line of JSON. Loads no network. Where the system can fork,
a child decodes them, with limits on memory and time for each; after one that it could not read there is a new child.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from keepmap.config import not_written
from keepmap.data import headers
from keepmap.data.images import open_image
from keepmap.data.samples import require_alike
from keepmap.errors import DataError, KeepmapError
from keepmap.options import ImageOptions
from keepmap.protocols import ArraySource

if sys.platform != "win32":
    import resource

ALLOWED = (headers.PNG, headers.JPEG, headers.WEBP, headers.BMP, headers.TIFF)
"""Kinds of file that are decoded, told by their first bytes."""

FORMATS = "PNG, JPEG, WebP, BMP or TIFF"
COMPRESSIONS = (1, 5, 7, 8, 32773, 32946, 50000)
"""Of a TIFF: none, LZW, JPEG, Deflate, PackBits, Deflate as it was first numbered, Zstandard."""

_BAND = 1024
"""Rows that are decoded at a time."""
_LONGEST = 1 << 20
"""Characters that an answer may have: GeoTIFF tags are in it."""
_IMAGES = 100
"""Images that a child decodes, one after the other: to fork costs more than to decode a small one."""


@dataclass(frozen=True)
class Task:
    """One image to decode.

    path: the upload. target: file for the pixels (H, W, C), bare. frame: as `ImageOptions`. max_pixels: of any image;
    whole_pixels: of one that has to be decoded whole. channels, dtype: of the images of the training; None: any type.
    seconds, memory_bytes: that its process may take.
    """

    path: str
    target: str
    frame: int | None
    max_pixels: int
    whole_pixels: int
    channels: int
    dtype: str | None
    seconds: float
    memory_bytes: int


class Foreign(DataError):
    """A file of another kind than those that are decoded."""


def decode(task: Task) -> dict[str, Any]:
    """Write the pixels of an image and return what else its file says, as JSON can hold it.

    What the header shows to be no image for the network is refused before any pixel is read. Raises DataError, and
    OutputError where the pixels cannot be written.
    """
    path = Path(task.path)
    head = headers.read_head(path)
    kind = headers.kind_of(head)
    if kind not in ALLOWED:
        raise Foreign(
            "The file is of a format that is not taken.", found=headers.describe_head(head), expected=FORMATS,
            do="save it as PNG or TIFF",
        )
    source = open_image(path, ImageOptions(task.frame, task.whole_pixels), kind)
    if kind == headers.TIFF:
        _require_known_compressions(path)
    require_alike(source.shape, source.dtype, str(path), task.channels, task.dtype)
    channels, height, width = source.shape
    headers.require_pixels(path, height, width, task.max_pixels, channels)
    try:
        with Path(task.target).open("wb") as file:
            for row in range(0, height, _BAND):
                part = source.read((slice(row, min(row + _BAND, height)), slice(0, width)))
                file.write(np.ascontiguousarray(np.moveaxis(part, 0, -1)).data)
    except OSError as error:
        raise not_written(Path(task.target), error) from error
    return _facts(source, kind)


def _facts(source: ArraySource, kind: str) -> dict[str, Any]:
    geometry = source.geometry
    return {
        "kind": kind, "shape": source.shape, "dtype": source.dtype.name, "orientation": source.orientation,
        "nodata": None if source.nodata is None else float(source.nodata), "spacing": geometry.spacing,
        "unit": geometry.unit, "origin": geometry.origin, "tags": geometry.tags,
    }  # fmt: skip


def _require_known_compressions(path: Path) -> None:
    with tifffile.TiffFile(path, _multifile=False) as file:
        unknown = {int(series.keyframe.compression) for series in file.series} - {*COMPRESSIONS}
    if unknown:
        raise DataError(
            f"{path} is compressed in a way that is not taken.", found=f"TIFF compression {min(unknown)}",
            expected="none, LZW, JPEG, Deflate, PackBits or Zstandard", do="save it with one of these",
        )


def answer(task: Task) -> str:
    """The line for a task: what `decode` returns, or the words of its error, without the name of any file."""
    try:
        facts = decode(task)
    except KeepmapError as error:
        texts = {name: _told(str(getattr(error, name)), task) for name in ("summary", "found", "expected", "do")}
        return json.dumps({"error": texts, "kind": type(error).__name__})
    line = json.dumps(facts)
    if len(line) > _LONGEST:
        return json.dumps({"error": {"summary": "The image has tags that are too long to be handed on."}})
    return line


def _told(text: str, task: Task) -> str:
    """A message in the words of the API: options of the command line are parameters there."""
    if "--max-pixels" in text:
        return "make it smaller, or cut it into parts"
    path = Path(task.path)
    named = text.replace(str(path), "The image", 1) if text.startswith(str(path)) else text
    named = named.replace(str(path), "the image").replace(path.name, "the image").replace("--frame N", "frame=N")
    return named.removesuffix(", or remove it together with its partner")


def _limit(task: Task) -> None:
    """Bound what this process may take for the task; the system ends it where it wants more."""
    signal.setitimer(signal.ITIMER_REAL, task.seconds)
    held = Path("/proc/self/statm")
    if held.exists():
        room = int(held.read_text().split()[0]) * resource.getpagesize() + task.memory_bytes
        room += Path(task.path).stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (room, resource.getrlimit(resource.RLIMIT_AS)[1]))


class _Child:
    """A copy of this process that decodes, under limits, until one of them or an image ends it."""

    def __init__(self) -> None:
        tasks, self._tasks = os.pipe()
        self._answers, answers = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.close(self._tasks)
                os.close(self._answers)
                _serve(tasks, answers)
            finally:
                os._exit(1)
        os.close(tasks)
        os.close(answers)
        self._pid, self._reader = child, os.fdopen(self._answers)
        self.images = 0

    def answer(self, line: str) -> str:
        """The line for a task, or "" where the child died."""
        self.images += 1
        try:
            os.write(self._tasks, line.encode())
        except BrokenPipeError:
            return ""
        reply = self._reader.readline(_LONGEST + 1)
        return reply if reply.endswith("\n") else ""

    def end(self) -> int:
        """End the child; its exit code, or minus the signal that ended it before."""
        os.close(self._tasks)
        self._reader.close()
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


def _serve(tasks: int, answers: int) -> None:
    """What a child does: a line for each line, until there are no more."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(tasks) as lines:
        for line in lines:
            task = Task(**json.loads(line))
            _limit(task)
            reply = answer(task).encode() + b"\n"
            signal.setitimer(signal.ITIMER_REAL, 0)
            while reply:
                reply = reply[os.write(answers, reply) :]
    os._exit(0)


def _apart(lines: Iterable[str]) -> Iterator[str]:
    """The lines for tasks, made in children: a new one after one that died, or failed, or decoded many images."""
    child = None
    gc.freeze()  # what a collection would touch in a child has to be copied for it
    try:
        for line in lines:
            child = child or _Child()
            reply = child.answer(line)
            if not reply or '"error"' in reply or child.images == _IMAGES:
                code, child = child.end(), None
                reply = reply or _died(code, json.loads(line)["seconds"])
            yield reply
    finally:
        if child is not None:
            child.end()


def _died(code: int, seconds: float) -> str:
    slow = code == -signal.SIGALRM
    found = f"more than {seconds:g} s" if slow else "its decoder ended before it was done"
    error = {"summary": "The image cannot be decoded.", "found": found, "expected": "a whole image of common size"}
    return json.dumps({"error": error}) + "\n"


def main() -> None:
    """Answer each task on stdin until it ends."""
    here = (answer(Task(**json.loads(line))) + "\n" for line in sys.stdin)
    for reply in _apart(sys.stdin) if hasattr(os, "fork") else here:
        sys.stdout.write(reply)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
