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
        (b"\x89PNG\r\n\x1a\n", "a PNG file"),
        (b"<html>\n <body>", "text that starts with “<html> <body>”"),
        (b"\xff\x00\x01\x02", "bytes that start with ff 00 01 02"),
    ],
)
def test_the_head_of_a_file_is_put_into_words(head: bytes, words: str) -> None:
    assert headers.describe_head(head) == words


def test_the_pixel_limit_is_100_million() -> None:
    headers.require_pixels(Path("x.png"), 10_000, 10_000)
    with pytest.raises(DataError, match=r"x\.png is too large to be decoded whole"):
        headers.require_pixels(Path("x.png"), 10_000, 10_001)
    with pytest.raises(DataError, match=r"x\.png has no pixels"):
        headers.require_pixels(Path("x.png"), 0, 5)


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
