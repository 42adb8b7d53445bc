"""Which reader opens which image file: one table by suffix.

Knows nothing of masks, and nothing of what the readers do inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepmap.data import headers
from keepmap.data.pillow_image import PillowImage
from keepmap.data.tiff_image import TiffImage
from keepmap.errors import DataError
from keepmap.protocols import ArraySource

_READERS: dict[str, Callable[[Path], ArraySource]] = {
    headers.PNG: PillowImage,
    headers.JPEG: PillowImage,
    headers.TIFF: TiffImage,
}


def open_image(path: Path) -> ArraySource:
    """The image at `path`, its header read: (C, H, W) uint8 or uint16. Raises DataError naming the file."""
    kind = headers.SUFFIXES.get(path.suffix.lower())
    if kind is None:
        headers.read_head(path)
        raise DataError(
            f"{path} is of a format that is not read.", found=path.suffix or "no suffix", expected=headers.FORMATS,
            do="save it as PNG or TIFF",
        )
    return _READERS[kind](path)
