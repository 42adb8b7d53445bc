"""How one damaged image or mask file is read all the same, and turned into what the readers accept.

Writes nothing and decides nothing about a data set: `repair` says what kind and which labels it is to be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keepmap.data import headers, pillow_image, smoothing
from keepmap.data.facts import bands
from keepmap.data.images import open_image
from keepmap.data.instances import holds_objects
from keepmap.data.masks import mask_mode, read_mask
from keepmap.data.samples import count_not_finite, filled, not_finite
from keepmap.data.settling import Key, Look
from keepmap.data.tiff_plane import TiffPlane
from keepmap.data.values import is_coloured, pack_colours, value_text
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Array, ArraySource, Geometry, Window

_MOST_VALUES = 1000
_SHOWN = 5
_LEVELS = 4  # by which compression may tint a grey
_BY_PILLOW = (headers.PNG, headers.JPEG, headers.WEBP, headers.BMP, headers.GIF)


class Mended(NamedTuple):
    """A repaired image or mask. pixels: (H, W) or (H, W, C), None if the file may stay as it is.

    content: equal for equal pixels. done: what was wrong, what was done and how many pixels it changed, one for each
    repair. Of an image: plain: whether it is of one colour; orientation: EXIF, that was applied; geometry: to be kept.
    """

    pixels: Array | None
    content: str
    size: tuple[int, int]
    done: tuple[tuple[str, str, int], ...]
    plain: bool = False
    orientation: int = 1
    geometry: Geometry = Geometry()


class RawMask(NamedTuple):
    """The values (H, W) of a mask as seen, whether its format is lossy, and whether it is an RGB file.

    sound: whether `read_mask` reads it.
    """

    values: npt.NDArray[np.int32]
    lossy: bool
    rgb: bool
    sound: bool


def true_kind(path: Path) -> str | None:
    """The format of a file by its first bytes, Zarr for a folder; None if unknown. Raises DataError."""
    return headers.ZARR if path.is_dir() else headers.kind_of(headers.read_head(path))


def read_raw_mask(path: Path, reading: ImageOptions = ImageOptions()) -> RawMask:  # noqa: B008
    """A mask, also of a lossy format and under a wrong suffix.

    Raises DataError where nothing can be read, for transparency, and for the colour modes that are no RGB.
    """
    try:
        return RawMask(read_mask(path, reading), False, "RGB" in mask_mode(path, reading), True)
    except DataError as refusal:
        kind = true_kind(path)
        pixels = _lossy_pixels(path, reading, kind)
        if pixels is not None:
            spread = pixels.max(axis=-1).astype(np.int16) - pixels.min(axis=-1)
            tinted = bool(spread.max() > _LEVELS)
            values = pack_colours(pixels) if tinted else pixels[..., pixels.shape[-1] // 2].astype(np.int32)
            return RawMask(values, True, tinted, False)
        if kind is None or kind == headers.SUFFIXES.get(path.suffix.lower()):
            raise
        try:
            values = read_mask(path, reading, kind)
        except DataError:
            raise refusal from None
        return RawMask(values, False, is_coloured([int(values.max())]), False)


def _lossy_pixels(path: Path, reading: ImageOptions, kind: str | None) -> Array | None:
    """The pixels (H, W, 1 or 3) uint8 of a mask in a lossy format; None where that is not why it was refused."""
    if kind == headers.TIFF:
        plane = TiffPlane(path, reading)
        return plane.read() if plane.lossy and plane.dtype == np.uint8 and plane.channels in (1, 3) else None
    if kind not in _BY_PILLOW:
        return None
    with pillow_image.opened(path, reading) as file:
        if not file.lossy or file.image.mode not in ("L", "RGB"):
            return None
        pixels = headers.orient(np.array(file.image), file.orientation)
    return pixels.reshape(*pixels.shape[:2], -1)


def look(path: Path, reading: ImageOptions) -> Look:
    """What a mask holds, for `settling` to settle the labels by. Raises DataError where it cannot be read."""
    return _look(read_raw_mask(path, reading))


def _look(raw: RawMask) -> Look:
    found, pixels = np.unique(raw.values, return_counts=True)
    counts = {int(v): int(n) for v, n in zip(found, pixels, strict=True)}
    objects = None if raw.lossy else holds_objects(raw.values)
    solid = tuple(counts) if objects else smoothing.solid_values(raw.values, counts)
    coloured = True if is_coloured(counts) else None if raw.rgb else False
    frequent = dict(sorted(counts.items(), key=lambda item: -item[1])[:_MOST_VALUES])
    lossy = raw.lossy or smoothing.is_smoothed(counts, solid)
    return Look(coloured, lossy, frequent, smoothing.main_values(raw.values), solid, objects)


def mend_mask(path: Path, key: Key, size: tuple[int, int], orientation: int, reading: ImageOptions) -> Mended:
    """The label values of a mask by `key`. size: (H, W) of its image; orientation: the image's EXIF rotation.

    Raises DataError where the labels cannot be told, with the reason.
    """
    raw = read_raw_mask(path, reading)
    if key.mains:
        places, done = _judge(path, raw, key)
        labels = np.array(key.values, np.uint8 if max(key.values) < 256 else np.uint16)[places]
    else:
        labels, done = _numbers(path, raw), []
    if labels.shape != size:
        if not headers.turns(orientation) or labels.shape != size[::-1]:
            raise untold(path, f"{labels.shape[1]} x {labels.shape[0]} px", f"{size[1]} x {size[0]} px, as its image")
        labels = np.ascontiguousarray(headers.orient(labels, orientation))
        done.append(("not turned like its image", f"turned by the image's EXIF orientation {orientation}", labels.size))
    if not done and raw.sound:
        return Mended(None, _content(labels), size, ())
    return Mended(labels, _content(labels), size, tuple(done or [("a format that is not read", "saved as PNG", 0)]))


def _numbers(path: Path, raw: RawMask) -> Array:
    """The numbers of the objects, in as few bytes as they take."""
    if raw.lossy or is_coloured([int(raw.values.max())]) or raw.values.min() < 0:
        raise untold(path, "compressed, coloured or negative numbers", "the numbers of objects")
    return raw.values.astype(np.min_scalar_type(int(raw.values.max())))


def _judge(path: Path, raw: RawMask, key: Key) -> tuple[npt.NDArray[np.intp], list[tuple[str, str, int]]]:
    """Which of `key.mains` each pixel stands for, and what that changed."""
    seen = _look(raw)
    if seen.coloured not in (key.coloured, None):
        raise untold(path, "colours" if seen.coloured else "numbers", "what most of the masks hold")
    strange = sorted(set(seen.counts) - set(key.mains))
    if seen.lossy and smoothing.closest(key.mains, key.coloured) < smoothing.APART:
        raise untold(path, "smoothed or compressed", "labels that are further apart than such damage")
    mains = sorted(seen.mains)
    away = smoothing.distances(mains, key.mains, key.coloured).min(axis=1)
    far = [value for value, least in zip(mains, away, strict=True) if least > (smoothing.NEAR if seen.lossy else 0)]
    if far:
        raise untold(path, f"areas of {_shown(far, key.coloured)}", f"the labels {_shown(key.mains, key.coloured)}")
    places = smoothing.snap(raw.values, key.mains, key.coloured, all_pixels=seen.lossy)
    done = []
    if snapped := int(np.count_nonzero(np.array(key.mains)[places] != raw.values)):
        problem = "smoothed or compressed" if seen.lossy else f"stray values: {_shown(strange, key.coloured)}"
        done.append((problem, "snapped to the nearest label around", snapped))
    if key.renumbered:
        done.append(("colours" if key.coloured else "values that are no ids", "replaced by ids", raw.values.size))
    return places, done


def mend_image(path: Path, channels: int, dtype: str, reading: ImageOptions) -> Mended:
    """An image as it is meant to be seen, of the kind of the others. Raises DataError where that is impossible."""
    source, done, content, plain = _source(path, reading)
    if source.orientation != 1:
        turned = f"orientation {source.orientation} applied"
        done.append(("EXIF rotation", turned, source.shape[1] * source.shape[2]))
    size = source.shape[1:]
    if not done and (source.shape[0], str(source.dtype)) == (channels, dtype):
        return Mended(None, content, size, (), plain, source.orientation)
    pixels = source.read()
    if len(pixels) != channels:
        pixels, how = _to_channels(path, pixels, channels)
        done.append((f"{source.shape[0]} channels", how, size[0] * size[1]))
    if str(pixels.dtype) != dtype:
        if dtype != "uint8" or pixels.dtype.kind != "u" or pixels.max() > 255:
            raise untold(path, f"values of {pixels.dtype}", f"{dtype}, like most images, whose scale may be another")
        pixels = pixels.astype(np.uint8)
        done.append((f"values of {source.dtype}", "saved as uint8, values unchanged", 0))
    if source.nodata is not None:
        raise untold(path, f"{done[0][0]}, and pixels that were never measured", "an image that need not be converted")
    content, plain = _digest(_Held(path, pixels, source.orientation))
    whole = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    return Mended(whole, content, size, tuple(done), plain, source.orientation, source.geometry)


def _digest(source: ArraySource) -> tuple[str, bool]:
    """What is equal for images of equal pixels, and whether there is one colour only.

    Raises DataError for pixels that cannot be read and for values that are no numbers.
    """
    digest = hashlib.blake2b(repr(source.shape).encode(), digest_size=16)
    first, plain, bad = None, True, 0
    for _, band in bands(source):
        band = filled(band, source.nodata, np.zeros(len(band)))
        bad += count_not_finite(band)
        first = band[:, :1, :1] if first is None else first
        plain = plain and bool((band == first).all())
        digest.update(np.ascontiguousarray(band).data)
    if bad:
        raise not_finite(source.path, bad, int(np.prod(source.shape)))
    return digest.hexdigest(), plain


class _Held:
    """An ArraySource for pixels (C, H, W) in memory."""

    nodata = None
    geometry = Geometry()

    def __init__(self, path: Path, pixels: Array, orientation: int) -> None:
        self.path, self.orientation = path, orientation
        self.shape = (len(pixels), *pixels.shape[1:])
        self.dtype = pixels.dtype
        self._pixels = pixels

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w), a view."""
        return self._pixels if window is None else self._pixels[:, window[0], window[1]]


def _source(path: Path, reading: ImageOptions) -> tuple[ArraySource, list[tuple[str, str, int]], str, bool]:
    """The image, read as it should not need to be, what that changed, and its `_digest`."""
    try:
        source = open_image(path, reading)
        return source, [], *_digest(source)
    except DataError as refusal:
        kind = true_kind(path)
        found = _unusual(path, reading, kind)
        if found is not None:
            held, done = found
            return held, [(*done, held.shape[1] * held.shape[2])], *_digest(held)
        if kind is None or kind == headers.SUFFIXES.get(path.suffix.lower()):
            raise
        try:
            source = open_image(path, reading, kind)
            return source, [("a suffix that is not its format's", "saved under the right one", 0)], *_digest(source)
        except DataError:
            raise refusal from None


def _unusual(path: Path, reading: ImageOptions, kind: str | None) -> tuple[_Held, tuple[str, str]] | None:
    """An image with transparency or of another colour model as it can be kept, and what was done; else None."""
    if kind == headers.TIFF:
        plane = TiffPlane(path, reading)
        if not plane.alpha or plane.dtype.kind != "u":
            return None
        pixels, done, orientation = *_on_black(plane.read()), plane.orientation
    elif kind in _BY_PILLOW:
        with pillow_image.opened(path, reading) as file:
            found = _by_pillow(path, file)
            if found is None:
                return None
            orientation = file.orientation
            pixels, done = headers.orient(found[0], orientation), found[1]
    else:
        return None
    return _Held(path, np.moveaxis(pixels, -1, 0), orientation), done


def _by_pillow(path: Path, file: pillow_image.Opened) -> tuple[Array, tuple[str, str]] | None:
    mode, image = file.image.mode, file.image
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return np.array(image.convert("RGB")), (f"colour mode {mode}", "converted to RGB")
    if file.depth == 16:
        return _on_black(pillow_image.decode_png(path)) if mode in ("LA", "RGBA") else None
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info or file.kind == headers.GIF:
        return _on_black(np.array(image.convert("LA" if mode in ("L", "LA") else "RGBA")))
    return None


def _on_black(pixels: Array) -> tuple[Array, tuple[str, str]]:
    """What is seen of (H, W, C + alpha) on black, with as many bits as before."""
    top = np.iinfo(pixels.dtype).max
    seen = ((pixels[..., :-1].astype(np.uint64) * pixels[..., -1:] + top // 2) // top).astype(pixels.dtype)
    return seen, ("transparent pixels", "laid on black")


def _to_channels(path: Path, pixels: Array, channels: int) -> tuple[Array, str]:
    """Grey as RGB, or RGB as grey."""
    if (len(pixels), channels) == (1, 3):
        return np.repeat(pixels, 3, axis=0), "grey repeated in three channels"
    if (len(pixels), channels) == (3, 1):
        if (pixels == pixels[:1]).all():
            return pixels[:1], "the one of three equal channels kept"
        grey = np.tensordot([0.299, 0.587, 0.114], pixels, axes=(0, 0))[None]
        grey = grey if pixels.dtype.kind == "f" else np.rint(grey)
        return grey.astype(pixels.dtype), "converted to grey (ITU-R BT.601)"
    raise untold(path, f"{len(pixels)} channels", f"{channels}, like most images")


def _shown(values: Sequence[int], coloured: bool) -> str:
    return ", ".join(value_text(v, coloured) for v in values[:_SHOWN]) + ", ..." * (len(values) > _SHOWN)


def untold(path: Path, found: str, expected: str) -> DataError:
    """The error for a file that cannot be repaired without guessing."""
    return DataError(f"{path} cannot be repaired.", found=found, expected=expected)


def _content(labels: Array) -> str:
    digest = hashlib.blake2b(repr(labels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(labels, np.int32).data)
    return digest.hexdigest()
