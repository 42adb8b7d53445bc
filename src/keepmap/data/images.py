"""Which reader opens which image file: one table by suffix.

Knows nothing of masks, and nothing of what the readers do inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from keepmap.data import headers
from keepmap.data.npy_image import open_npy
from keepmap.data.pillow_image import PillowImage
from keepmap.data.tiff_image import TiffImage
from keepmap.data.zarr_image import open_zarr
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import ArraySource

_READERS: dict[str, Callable[[Path, ImageOptions], ArraySource]] = {
    headers.PNG: PillowImage,
    headers.JPEG: PillowImage,
    headers.WEBP: PillowImage,
    headers.BMP: PillowImage,
    headers.GIF: PillowImage,
    headers.TIFF: TiffImage,
    headers.NPY: open_npy,
    headers.ZARR: open_zarr,
}


def open_image(
    path: Path, options: ImageOptions = ImageOptions(), kind: str | None = None  # noqa: B008
) -> ArraySource:
    """The image at `path`, its header read: (C, H, W) uint8, uint16 or float32. Raises DataError naming the file.

    kind: the format, where the suffix is not to tell.
    """
    kind = kind or headers.SUFFIXES.get(path.suffix.lower())
    if kind is None:
        headers.read_head(path)
        raise DataError(
            f"{path} is of a format that is not read.", found=path.suffix or "no suffix", expected=headers.FORMATS,
            do="save it as PNG or TIFF",
        )
    return _READERS[kind](path, options)
