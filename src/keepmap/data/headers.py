"""What a file is before any decoder sees it: regular, not empty, of a known kind, not too large, which way up.

Knows no decoder; the readers ask here first.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from keepmap.errors import DataError
from keepmap.protocols import Array, Geometry, Window

PNG, JPEG, WEBP, BMP, GIF, TIFF, NPY, ZARR = "PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF", "NumPy", "Zarr"
SUFFIXES = {
    ".png": PNG, ".apng": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".webp": WEBP, ".bmp": BMP, ".gif": GIF,
    ".tif": TIFF, ".tiff": TIFF, ".npy": NPY, ".zarr": ZARR,
}  # fmt: skip
"""Suffix in lower case -> the kind of file that it announces; that of Zarr announces a folder."""

FORMATS = "PNG, JPEG, TIFF, WebP, BMP, GIF, NumPy or Zarr (" + ", ".join(SUFFIXES) + ")"

KEPT_ROW_BYTES = 256 << 20
"""Of a row of tiles or chunks that a reader keeps whole, so that low windows decode each of them once."""

_COLOURS = 4
"""Channels that a pixel may have before it counts as several."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"\xff\xd8\xff", JPEG),
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"GIF8", GIF),
    (b"BM", BMP),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", NPY),
    (b"\x89HDF", "HDF5"),
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
                raise DataError(
                    f"{path} is {name}, not a file.", found=name, expected=FORMATS, do="remove or rename it"
                )
        with path.open("rb") as file:
            head = file.read(size)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        link = path.is_symlink()
        raise DataError(
            f"{path} cannot be opened.", found=reason + (f", a link to {os.readlink(path)}" if link else ""),
            expected="a readable file", do="mend or remove the link" if link else "look at its name and permissions",
        ) from error
    if not head:
        raise DataError(
            f"{path} is an empty file.", found="0 bytes", expected=FORMATS, do="copy it again from its source"
        )
    return head


def kind_of(head: bytes) -> str | None:
    """The kind of file that begins with `head`, such as "PNG" or "PDF"; None if unknown."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return WEBP
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
    if isinstance(error, MemoryError):
        return DataError(
            f"{path} does not fit into the memory.", found=str(error) or "no memory is left",
            expected="a smaller image",
            do="cut it into parts; if it is not as large as that, its header is damaged",
        )
    return DataError(
        f"{path} is damaged and cannot be decoded.",
        found=str(error).replace(str(path), path.name) or type(error).__name__,
        expected="a whole file",
        do="copy it again from its source, or remove it together with its partner",
    )


def require_pixels(path: Path, height: int, width: int, limit: int, channels: int = 1) -> None:
    """Raise DataError for an image without pixels, or with more than `limit` that have to be decoded at once.

    A pixel of more than four channels counts as several.
    """
    if height < 1 or width < 1:
        raise DataError(
            f"{path} has no pixels.", found=f"{width} x {height} px", expected="at least 1 x 1 px",
            do="copy it again from its source, or remove it together with its partner",
        )
    if height * width * max(channels, _COLOURS) > limit * _COLOURS:
        several = f" of {channels} channels" if channels > _COLOURS else ""
        raise DataError(
            f"{path} is too large to be decoded whole.",
            found=f"{width} x {height} px{several}, {height * width / 1e6:.0f} million",
            expected=f"at most {limit / 1e6:g} million pixels" + " of four channels" * bool(several),
            do="raise --max-pixels if the memory allows it; or save it as a tiled TIFF, which is read by window",
        )


def choose_frame(path: Path, frames: int, wanted: int | None) -> int:
    """Which of the `frames` of a file is read: `wanted`, or the only one. Raises DataError."""
    if frames == 1:
        return 0
    if wanted is None or wanted >= frames:
        raise DataError(
            f"{path} holds {frames} frames.", found=f"{frames} frames" + (f", no frame {wanted}" if wanted else ""),
            expected="one image a file, or the number of the frame to read",
            do=f"pass --frame N with N from 0 to {frames - 1}, or save the frames as separate files",
        )
    return wanted


def wrong_kind(path: Path, found: str, expected: str) -> DataError:
    """The error for a file that is not what its suffix promises; both as in "a TIFF file"."""
    return DataError(
        f"{path} is not the {expected.removeprefix('a ')} that its name promises.", found=found, expected=expected,
        do="save it in that format, or give it the right suffix",
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


def stored_window(rows: slice, columns: slice, orientation: int, height: int, width: int) -> Window:
    """Where the pixels of a window of the oriented image lie in the stored one of `height` x `width` pixels."""
    seen_height, seen_width = (width, height) if turns(orientation) else (height, width)
    if orientation in (3, 4, 7, 8):
        rows = slice(seen_height - rows.stop, seen_height - rows.start)
    if orientation in (2, 3, 6, 7):
        columns = slice(seen_width - columns.stop, seen_width - columns.start)
    return (columns, rows) if turns(orientation) else (rows, columns)


def orient_geometry(geometry: Geometry, orientation: int) -> Geometry:
    """The geometry of the oriented image: height and width of a pixel change places where the sides do."""
    if geometry.spacing is None or not turns(orientation):
        return geometry
    return replace(geometry, spacing=geometry.spacing[::-1])
