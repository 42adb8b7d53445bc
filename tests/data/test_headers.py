"""Files that are no images are told apart before a decoder sees them, and nothing blocks."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keepmap.data import headers
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Geometry


def test_a_pipe_a_folder_and_a_socket_are_named_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.png"))
        for name, kind in (("pipe", "a named pipe"), ("folder", "a folder"), ("socket", "a socket")):
            with pytest.raises(DataError, match=rf"{name}\.png is {kind}, not a file"):
                headers.read_head(tmp_path / f"{name}.png")


def test_an_empty_and_an_absent_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png is an empty file"):
        headers.read_head(tmp_path / "empty.png")
    with pytest.raises(DataError, match=r"(?s)absent\.png cannot be opened.*No such file"):
        headers.read_head(tmp_path / "absent.png")


def test_a_link_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"(?s)cannot be opened.*symbolic links"):
        headers.read_head(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"GIF89a....", "a GIF file"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP file"),
        (b"RIFF\0\0\0\0AVI \xff", "bytes that start with 52 49 46 46 00 00 00 00"),
        (b"\x89PNG\r\n\x1a\n", "a PNG file"),
        (b"<html>\n <body>", "text that starts with “<html> <body>”"),
        (b"\xff\x00\x01\x02", "bytes that start with ff 00 01 02"),
    ],
)
def test_the_head_of_a_file_is_put_into_words(head: bytes, words: str) -> None:
    assert headers.describe_head(head) == words


def test_the_pixel_limit_is_100_million() -> None:
    limit = ImageOptions().max_pixels
    assert limit == 100_000_000
    headers.require_pixels(Path("x.png"), 10_000, 10_000, limit, 4)
    for sides in ((10_000, 10_001, limit), (10_000, 10_000, limit, 5), (3, 4, 11)):
        with pytest.raises(DataError, match=r"(?s)x\.png is too large to be decoded whole.*raise --max-pixels"):
            headers.require_pixels(Path("x.png"), *sides)
    with pytest.raises(DataError, match=r"x\.png has no pixels"):
        headers.require_pixels(Path("x.png"), 0, 5, limit)


def test_a_frame_is_chosen_and_never_silently_the_first() -> None:
    assert [headers.choose_frame(Path("x.gif"), 1, wanted) for wanted in (None, 0, 7)] == [0, 0, 0]
    assert headers.choose_frame(Path("x.gif"), 3, 2) == 2
    for wanted in (None, 3):
        with pytest.raises(DataError, match=r"(?s)x\.gif holds 3 frames.*--frame N with N from 0 to 2"):
            headers.choose_frame(Path("x.gif"), 3, wanted)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.data())
def test_a_window_of_the_oriented_image_is_found_in_the_stored_one(
    height: int, width: int, orientation: int, data: st.DataObject
) -> None:
    stored = np.arange(height * width).reshape(height, width)
    oriented = headers.orient(stored, orientation)
    rows, columns = (
        slice(start := data.draw(st.integers(0, side - 1)), data.draw(st.integers(start + 1, side)))
        for side in oriented.shape
    )
    place = headers.stored_window(rows, columns, orientation, height, width)
    assert np.array_equal(headers.orient(stored[place], orientation), oriented[rows, columns])


def test_a_pixel_turns_with_the_image() -> None:
    geometry = Geometry((1.0, 2.0), "inch")
    assert headers.orient_geometry(geometry, 3) == geometry
    assert headers.orient_geometry(geometry, 6).spacing == (2.0, 1.0)
    assert headers.orient_geometry(Geometry(), 6) == Geometry()


def test_an_image_that_does_not_fit_the_memory_is_no_damage() -> None:
    text = str(headers.damaged(Path("x.png"), MemoryError()))
    assert "x.png does not fit into the memory" in text


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_and_applied_like_pillow_does(orientation: int, order: str) -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif.endian = order
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    image = Image.fromarray(array)
    image.getexif()[0x0112] = orientation
    assert headers.exif_orientation(exif.tobytes()) == orientation
    oracle = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(headers.orient(array, orientation), oracle)
    assert headers.turns(orientation) == (oracle.shape != array.shape)


@given(st.binary(max_size=60))
def test_damaged_exif_means_no_rotation_or_a_valid_one(noise: bytes) -> None:
    for start in (b"", b"II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"):
        assert 1 <= headers.exif_orientation(start + noise) <= 8


def test_an_orientation_out_of_range_means_none() -> None:
    block = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHH", 0x0112, 3, 1, 9, 0)
    assert headers.exif_orientation(block) == 1
