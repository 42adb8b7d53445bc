"""What a decoder takes, what it tells, and that an image which is too large or endless ends its child, not it."""

from __future__ import annotations

import json
import os
import time
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from keepmap.data.images import open_image
from keepmap.errors import DataError
from keepmap.serving import decoder
from keepmap.serving.decoder import Foreign, Task, answer, decode


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(str(tmp_path / "upload"), str(tmp_path / "pixels"), None, 10_000, 10_000, 3, "uint8", 5.0, 1 << 30)


def given(task: Task, content: bytes) -> Task:
    Path(task.path).write_bytes(content)
    return task


@pytest.mark.parametrize("name", ["a.png", "b.jpg", "c.webp", "d.bmp", "e.tif"])
def test_pixels_are_those_of_the_reader(task: Task, images: Path, name: str) -> None:
    facts = decode(given(task, (images / name).read_bytes()))
    source = open_image(images / name)
    assert (facts["shape"], facts["dtype"], facts["spacing"]) == (source.shape, "uint8", source.geometry.spacing)
    channels, height, width = source.shape
    found = np.fromfile(task.target, np.uint8).reshape(height, width, channels)
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0), source.read())


def test_only_known_kinds_and_compressions(task: Task) -> None:
    for content in (b"GIF89a" + bytes(30), b"\x93NUMPY" + bytes(30), b"%PDF", b"{}"):
        with pytest.raises(Foreign):
            decode(given(task, content))
    tifffile.imwrite(task.path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="lzma")
    with pytest.raises(DataError, match="compressed in a way"):
        decode(task)


def test_pixels_are_counted_before_they_are_decoded(task: Task) -> None:
    header = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", (100000).to_bytes(4) * 2 + b"\x08\x02\0\0\0") + _chunk(b"IEND", b"")
    assert "at most" in json.loads(answer(given(task, header)))["error"]["expected"]
    tifffile.imwrite(task.path, np.zeros((200, 200, 3), np.uint8), photometric="rgb", compression="zlib")
    error = json.loads(answer(task))["error"]
    assert "too large" in error["summary"] and "--" not in error["do"]
    assert not Path(task.target).exists()


@pytest.mark.parametrize(
    ("shape", "dtype", "words"), [((9, 9, 40), "uint8", "40 channels"), ((9, 9, 3), "uint16", "uint16")]
)
def test_channels_and_type_are_looked_at_before_pixels_are_read(
    task: Task, shape: tuple[int, ...], dtype: str, words: str
) -> None:
    colours = {"photometric": "minisblack", "planarconfig": "contig"} if shape[2] > 3 else {"photometric": "rgb"}
    tifffile.imwrite(task.path, np.zeros(shape, dtype), compression="zlib", **colours)
    error = json.loads(answer(task))["error"]
    assert words in error["found"] and "as in the images that the network was trained on" in error["expected"]
    assert not Path(task.target).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_not_the_fault_of_the_image(task: Task, images: Path) -> None:
    reply = json.loads(answer(replace(given(task, (images / "a.png").read_bytes()), target="/dev/full")))
    assert reply["kind"] == "DiskFull" and "disk is full" in reply["error"]["summary"]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def test_no_message_names_a_file(task: Task) -> None:
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"II*\0" + bytes(9), b"BM" + bytes(50)):
        text = answer(given(task, content))
        assert "error" in json.loads(text) and "upload" not in text and str(Path(task.path).parent) not in text
        assert "partner" not in text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("what", "words"), [("sleep", "more than 0.2 s"), ("eat", "memory"), ("die", "its decoder")])
def test_a_child_that_takes_too_much_ends_alone(
    task: Task, what: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(task: Task) -> dict[str, Any]:
        if what == "sleep":
            time.sleep(30)
        elif what == "eat":
            try:
                np.ones(1 << 30)
            except MemoryError as error:
                raise DataError("The image does not fit into the memory.") from error
        os._exit(3)

    monkeypatch.setattr(decoder, "decode", wrong)
    line = json.dumps(asdict(given(replace(task, seconds=0.2 if what == "sleep" else 9.0), b"x")))
    error = json.loads(next(decoder._apart([line + "\n"])))["error"]
    assert words in error["summary"] + error.get("found", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_decodes_image_after_image_until_one_fails(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told the process that it was answered by; the limit of a task is not that of the next."""

    def told(task: Task) -> str:
        if task.frame == 2:
            os._exit(3)
        if task.frame == 3:
            time.sleep(0.3)
        return json.dumps({"error": {}} if task.frame == 1 else {"pid": os.getpid()})

    monkeypatch.setattr(decoder, "answer", told)
    monkeypatch.setattr(decoder, "_IMAGES", 3)
    given(task, b"x")
    frames = (None, 3, 1, 0, 2, 0, 0, 0, 0)
    tasks = [replace(task, frame=frame, seconds=0.2 if frame is None else 5.0) for frame in frames]
    lines = (json.dumps(asdict(each)) + "\n" for each in tasks)
    first, slow, failed, second, dead, *others = (json.loads(reply) for reply in decoder._apart(lines))
    assert first["pid"] == slow["pid"] != os.getpid()
    assert failed == {"error": {}} and "ended before" in dead["error"]["found"]
    pids = [reply["pid"] for reply in others]
    assert len({first["pid"], second["pid"], pids[0], pids[3]}) == 4 and pids[0] == pids[1] == pids[2]
