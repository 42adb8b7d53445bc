"""PNG and JPEG files through Pillow: which modes are read, as what, and which are refused.

Does not choose between file formats (`images` does) and gives label values no meaning (`masks` does).
The decoders are called by name: only these two run, and Pillow's size warning, a process-wide setting, plays no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from keepmap.data import headers
from keepmap.errors import DataError, KeepmapError
from keepmap.protocols import Array, Window

_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I": 1, "I;16": 1, "P": 3, "RGB": 3, "RGBA": 3}
"""Pillow mode -> channels of the image it is read as; any other mode is refused."""

_DEPTH_BYTE = 24  # of a PNG file: bits per sample, since the header chunk always comes first


class Opened(NamedTuple):
    """A file whose header was read and whose pixels were not. depth: bits per sample. orientation: EXIF, 1..8."""

    image: ImageFile
    kind: str
    depth: int
    orientation: int


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a PNG or JPEG file, judge its header, and turn whatever its decoder raises into a DataError.

    A JPEG that carries further pictures (gain map, depth, stereo) is read as its main one.
    """
    head = headers.read_head(path)
    kind = headers.kind_of(head)
    if kind not in (headers.PNG, headers.JPEG):
        raise DataError(
            f"{path} is not the PNG or JPEG file that its name promises.", found=headers.describe_head(head),
            expected="a PNG or JPEG file", do="save it in that format, or give it the right suffix",
        )
    try:
        with PngImageFile(path) if kind == headers.PNG else JpegImageFile(path) as image:
            _judge(path, image)
            depth = head[_DEPTH_BYTE] if kind == headers.PNG else 8
            yield Opened(image, kind, depth, headers.exif_orientation(image.info.get("exif", b"")))
    except (KeepmapError, MemoryError):
        raise
    except Exception as error:
        raise headers.damaged(path, error) from error


def _judge(path: Path, image: ImageFile) -> None:
    width, height = image.size
    headers.require_pixels(path, height, width)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DataError(
            f"{path} holds {frames} frames.", found=f"an animation of {frames} frames", expected="one image a file",
            do="save the frames as separate files",
        )


class PillowImage:
    """An ArraySource for PNG and JPEG: decoded whole on the first read, then kept.

    Grey and 1-bit give 1 channel, colour and palette 3, 16-bit PNG uint16; all else uint8. An alpha channel is
    dropped if every pixel is opaque. Raises DataError, when made for what the header shows, else on reading.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            mode, (width, height) = file.image.mode, file.image.size
            if mode not in _CHANNELS:
                raise DataError(
                    f"{path} has the colour mode {mode}, which is not read.", found=mode,
                    expected="grey, RGB, palette or 1-bit", do="convert it to RGB or grey",
                )
            if headers.turns(file.orientation):
                width, height = height, width
            self.shape = (_CHANNELS[mode], height, width)
            self.dtype = np.dtype(np.uint16 if file.depth == 16 else np.uint8)

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w), a view; None reads all. Raises DataError."""
        if window is None:
            return self._pixels
        return self._pixels[:, window[0], window[1]]

    @cached_property
    def _pixels(self) -> Array:
        with opened(self.path) as file:
            array = decode_deep(self.path) if _is_deep_colour(file) else _decode(file.image)
            array = _without_alpha(self.path, array)
            return np.moveaxis(np.ascontiguousarray(headers.orient(array, file.orientation)), -1, 0)


def _is_deep_colour(file: Opened) -> bool:
    """16-bit colour or alpha, which Pillow would cut to 8 bits."""
    return file.depth == 16 and file.image.mode not in ("I", "I;16")


def decode_deep(path: Path) -> Array:
    """A 16-bit PNG (H, W, C) uint16 with C = 1 to 4, not rotated."""
    array: Array = imagecodecs.png_decode(path.read_bytes())
    return array.reshape(*array.shape[:2], -1)


def _decode(image: ImageFile) -> Array:
    """(H, W, C) uint8 or uint16, with the alpha channel as the last one where there is any."""
    if image.mode in ("I", "I;16"):
        array = np.array(image).astype(np.uint16)
        key = image.info.get("transparency")
        clear = np.where(array == key, 0, 65535).astype(np.uint16)
        return array[..., None] if key is None else np.stack([array, clear], axis=-1)
    if "transparency" in image.info:
        return np.array(image.convert("RGBA" if image.mode in ("P", "RGB") else "LA"))
    array = np.array(image.convert({"1": "L", "P": "RGB"}.get(image.mode, image.mode)))
    return array.reshape(*array.shape[:2], -1)


def _without_alpha(path: Path, array: Array) -> Array:
    """The colour channels of (H, W, C), if all pixels are opaque."""
    if array.shape[-1] in (1, 3):
        return array
    clear = int(np.count_nonzero(array[..., -1] != np.iinfo(array.dtype).max))
    if clear:
        raise DataError(
            f"{path} has transparent pixels.",
            found=f"{clear} of {array[..., 0].size} px are not fully opaque", expected="an image without transparency",
            do="flatten it onto the background that it is meant to have, and save it again",
        )
    return array[..., :-1]
