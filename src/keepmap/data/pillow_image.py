"""PNG, JPEG, WebP, BMP and GIF files through Pillow: which modes are read, as what, and which are refused.

Does not choose between file formats (`images` does) and gives label values no meaning (`masks` does).
The decoders are called by name: only these run, and Pillow's size warning, a process-wide setting, plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from keepmap.data import headers
from keepmap.errors import DataError, KeepmapError
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Geometry, Window

_DECODERS: dict[str, Callable[[Path], ImageFile]] = {
    headers.PNG: PngImageFile,
    headers.JPEG: JpegImageFile,
    headers.WEBP: WebPImageFile,
    headers.BMP: BmpImageFile,
    headers.GIF: GifImageFile,
}
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I": 1, "I;16": 1, "P": 3, "RGB": 3, "RGBA": 3, "RGBX": 3}
"""Pillow mode -> channels of the image it is read as; any other mode is refused."""

_LIBPNG_SIDE = 1_000_000  # pixels: libpng refuses longer sides
_DEPTH_BYTE = 24  # of a PNG file: bits per sample, since the header chunk always comes first
_COLOUR_BYTE = 25  # 0 grey, 4 grey with alpha; Pillow takes the latter for colour if it has 16 bits


class Opened(NamedTuple):
    """A file whose header was read and whose pixels were not, at the frame to read.

    depth: bits per sample. grey: whether a PNG file has no colours. orientation: EXIF, 1..8. lossy: whether its
    compression changes values.
    """

    image: ImageFile
    kind: str
    depth: int
    grey: bool
    orientation: int
    lossy: bool


@contextmanager
def opened(path: Path, options: ImageOptions = ImageOptions()) -> Iterator[Opened]:  # noqa: B008
    """Open a file, judge its header, and turn whatever its decoder raises into a DataError.

    A JPEG that carries further pictures (gain map, depth, stereo) is read as its main one.
    """
    head = headers.read_head(path)
    kind = headers.kind_of(head)
    if kind not in _DECODERS:
        promised = headers.SUFFIXES.get(path.suffix.lower(), headers.PNG)
        raise headers.wrong_kind(path, headers.describe_head(head), f"a {promised} file")
    try:
        if size_of := _SIZES.get(kind):
            headers.require_pixels(path, *size_of(head), options.max_pixels)
        with _DECODERS[kind](path) as image:
            _go_to_frame(path, image, options)
            depth = head[_DEPTH_BYTE] if kind == headers.PNG else 8
            grey = kind == headers.PNG and head[_COLOUR_BYTE] in (0, 4)
            orientation = headers.exif_orientation(image.info.get("exif", b""))
            lossy = kind == headers.JPEG or (kind == headers.WEBP and _is_lossy_webp(path.read_bytes()))
            yield Opened(image, kind, depth, grey, orientation, lossy)
    except KeepmapError:
        raise
    except Exception as error:
        raise headers.damaged(path, error) from error


def _go_to_frame(path: Path, image: ImageFile, options: ImageOptions) -> None:
    width, height = image.size
    headers.require_pixels(path, height, width, options.max_pixels)
    frame = headers.choose_frame(path, getattr(image, "n_frames", 1), options.frame)
    if frame:
        image.seek(frame)
        width, height = image.size
        headers.require_pixels(path, height, width, options.max_pixels)


def _webp_size(head: bytes) -> tuple[int, int]:
    """Height and width in the first 30 bytes of a WebP file; 0 where it is none of the three kinds."""
    kind, body = head[12:16], head[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[7:10], "little"), 1 + int.from_bytes(body[4:7], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(body[8:10], "little") & 0x3FFF, int.from_bytes(body[6:8], "little") & 0x3FFF
    return 0, 0


def _png_size(head: bytes) -> tuple[int, int]:
    """Height and width in the first 24 bytes of a PNG file; 1 where they are not there, and the decoder will say so."""
    if head[12:16] != b"IHDR" or len(head) < 24:
        return 1, 1
    return int.from_bytes(head[20:24]), int.from_bytes(head[16:20])


_SIZES = {headers.PNG: _png_size, headers.WEBP: _webp_size}
"""Where the size is asked for before the decoder: Pillow's gives no reason for 0 x 0, and that of WebP allocates."""


def _is_lossy_webp(content: bytes) -> bool:
    """Whether a WebP file has a chunk of the lossy kind, in itself or in a frame of its animation."""
    place = 12
    while place + 8 <= len(content):
        kind, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        if kind == b"VP8 ":
            return True
        place += 24 if kind == b"ANMF" else 8 + size + size % 2
    return False


class PillowImage:
    """An ArraySource for PNG, JPEG, WebP, BMP and GIF: decoded whole on the first read, then kept.

    Grey and 1-bit give 1 channel, colour and palette 3, as does every GIF; 16-bit PNG gives uint16, all else uint8. An
    alpha channel is dropped if every pixel is opaque. Raises DataError, when made for what the header shows, else on
    reading.
    """

    nodata = None

    def __init__(self, path: Path, options: ImageOptions) -> None:
        self.path = path
        self._options = options
        with opened(path, options) as file:
            mode, (width, height) = file.image.mode, file.image.size
            if mode not in _CHANNELS:
                raise DataError(
                    f"{path} has the colour mode {mode}, which is not read.", found=mode,
                    expected="grey, RGB, palette or 1-bit", do="convert it to RGB or grey",
                )
            if _is_deep_colour(file) and getattr(file.image, "n_frames", 1) > 1:
                raise DataError(
                    f"{path} is an animation of 16 bits.", found=f"{getattr(file.image, 'n_frames', 1)} frames",
                    expected="one frame, or 8 bits", do="save the frame as a file of its own",
                )
            self.orientation = file.orientation
            if headers.turns(file.orientation):
                width, height = height, width
            channels = 3 if file.kind == headers.GIF else 1 if file.grey else _CHANNELS[mode]
            self.shape = (channels, height, width)
            self.dtype = np.dtype(np.uint16 if file.depth == 16 else np.uint8)
            self.geometry = headers.orient_geometry(_geometry(file), file.orientation)

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w), a view; None reads all. Raises DataError."""
        if window is None:
            return self._pixels
        return self._pixels[:, window[0], window[1]]

    @cached_property
    def _pixels(self) -> Array:
        with opened(self.path, self._options) as file:
            array = decode_png(self.path) if is_plain_png(file) or _is_deep_colour(file) else _decode(file)
            array = _without_alpha(self.path, array)
            return np.moveaxis(np.ascontiguousarray(headers.orient(array, file.orientation)), -1, 0)


def _geometry(file: Opened) -> Geometry:
    """The pixel size that a header gives on purpose: a JPEG without a unit counts as having none."""
    across, down = file.image.info.get("dpi", (0, 0))
    stated = file.kind != headers.JPEG or file.image.info.get("jfif_unit") in (1, 2)
    return Geometry((1 / float(down), 1 / float(across)), "inch") if stated and across > 0 and down > 0 else Geometry()


def is_plain_png(file: Opened) -> bool:
    """8-bit grey or colour without transparency: libpng gives what Pillow gives, in two thirds of the time."""
    plain = file.kind == headers.PNG and file.depth == 8 and file.image.mode in ("L", "RGB")
    one = getattr(file.image, "n_frames", 1) == 1
    return plain and one and "transparency" not in file.image.info and max(file.image.size) <= _LIBPNG_SIDE


def _is_deep_colour(file: Opened) -> bool:
    """16-bit colour or alpha, which Pillow would cut to 8 bits."""
    return file.depth == 16 and file.image.mode not in ("I", "I;16")


def decode_png(path: Path) -> Array:
    """A PNG of 8 or 16 bits (H, W, C) uint8 or uint16 with C = 1 to 4, not rotated."""
    try:
        array: Array = imagecodecs.png_decode(path.read_bytes())
    except imagecodecs.PngError as error:
        raise OSError("the file is truncated" if "too small" in str(error) else str(error)) from error
    return array.reshape(*array.shape[:2], -1)


def _decode(file: Opened) -> Array:
    """(H, W, C) uint8 or uint16, with the alpha channel as the last one where there is any."""
    image = file.image
    if image.mode in ("I", "I;16"):
        array = np.array(image).astype(np.uint16)
        key = image.info.get("transparency")
        clear = np.where(array == key, 0, 65535).astype(np.uint16)
        return array[..., None] if key is None else np.stack([array, clear], axis=-1)
    if file.kind == headers.GIF:
        return np.array(image.convert("RGBA"))
    if "transparency" in image.info:
        return np.array(image.convert("RGBA" if image.mode in ("P", "RGB") else "LA"))
    array = np.array(image.convert({"1": "L", "P": "RGB", "RGBX": "RGB"}.get(image.mode, image.mode)))
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
