"""What a file is before any decoder sees it: regular, not empty, of a known kind, not too large, which way up.

Knows no decoder; `pillow_image` and `tiff_image` ask here first.
"""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import numpy as np

from keepmap.errors import DataError
from keepmap.protocols import Array

PIXEL_LIMIT = 100_000_000
"""Most pixels of an image that has to be decoded whole."""

PNG, JPEG, TIFF = "PNG", "JPEG", "TIFF"
SUFFIXES = {".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".tif": TIFF, ".tiff": TIFF}
"""Suffix in lower case -> the kind of file that it announces."""

FORMATS = "PNG, JPEG or TIFF (.png, .jpg, .jpeg, .tif, .tiff)"

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", "NumPy"),
    (b"\x89HDF", "HDF5"),
    (b"RIFF", "WebP"),
)
_KINDS_OF_NODE = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


def read_head(path: Path, size: int = 32) -> bytes:
    """The first bytes of a regular, non-empty file. Raises DataError for anything else; never blocks on a pipe."""
    try:
        mode = path.stat().st_mode
        for is_kind, name in _KINDS_OF_NODE:
            if is_kind(mode):
                raise DataError(f"{path} is {name}, not a file.", expected=FORMATS, do="remove or rename it")
        with path.open("rb") as file:
            head = file.read(size)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DataError(f"{path} cannot be opened.", found=reason, expected="a readable file") from error
    if not head:
        raise DataError(
            f"{path} is an empty file.", found="0 bytes", expected=FORMATS, do="copy it again from its source"
        )
    return head


def kind_of(head: bytes) -> str | None:
    """The kind of file that begins with `head`, such as "PNG" or "GIF"; None if unknown."""
    return next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)


def describe_head(head: bytes) -> str:
    """What a file that begins with `head` looks like, for messages."""
    kind = kind_of(head)
    if kind:
        return f"a {kind} file"
    text = head.decode("utf-8", errors="replace")
    if text.isascii() and all(c.isprintable() or c.isspace() for c in text):
        shown = " ".join(text.split())
        return f"text that starts with “{shown}”"
    return f"bytes that start with {head[:8].hex(' ')}"


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a file whose decoder failed with `error`."""
    return DataError(
        f"{path} is damaged and cannot be decoded.",
        found=str(error).replace(str(path), path.name) or type(error).__name__,
        expected="a whole file",
        do="copy it again from its source, or remove it together with its partner",
    )


def require_pixels(path: Path, height: int, width: int) -> None:
    """Raise DataError for an image without pixels, or with more than may be decoded at once."""
    if height < 1 or width < 1:
        raise DataError(f"{path} has no pixels.", found=f"{width} x {height} px", expected="at least 1 x 1 px")
    if height * width > PIXEL_LIMIT:
        raise DataError(
            f"{path} is too large to be decoded whole.",
            found=f"{width} x {height} px, {height * width / 1e6:.0f} million",
            expected=f"at most {PIXEL_LIMIT // 10**6} million pixels",
            do="cut it into parts, or save it as an uncompressed TIFF, which is read window by window",
        )


def exif_orientation(exif: bytes) -> int:
    """The orientation 1..8 in a block of EXIF data; 1 where it has none or is damaged."""
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 10:
        return 1
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return 1
    (entries,) = struct.unpack_from(order + "H", data, start)
    for position in range(start + 2, min(start + 2 + 12 * entries, len(data) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", data, position)
        if tag == 0x0112 and kind == 3:
            (value,) = struct.unpack_from(order + "H", data, position + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def turns(orientation: int) -> bool:
    """Whether an EXIF orientation swaps rows and columns."""
    return orientation >= 5


def orient(array: Array, orientation: int) -> Array:
    """`array` (H, W, ...) as it is meant to be seen, after EXIF `orientation` 1..8; a view."""
    if turns(orientation):
        array = np.swapaxes(array, 0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
