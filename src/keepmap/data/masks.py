"""Mask files as label values: read by mode, never colour-converted, never lossy.

Does not know which values are classes; `labels` does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL.ImageFile import ImageFile

from keepmap.data import headers, pillow_image, tiff_image
from keepmap.errors import DataError
from keepmap.protocols import Array

_GREY_STEP = {2: 85, 4: 17}
"""Bits of a grey PNG -> what Pillow multiplies its values by."""

_MODES = {
    "1": "1-bit",
    "L": "8-bit grey",
    "P": "palette",
    "I": "16-bit grey",
    "I;16": "16-bit grey",
    "LA": "grey with alpha",
    "RGBA": "RGB with alpha",
}
"""Pillow's name of a mode -> ours, where they differ."""

_EXPECTED = "one label value for each pixel: grey, palette or 1-bit PNG, or integer TIFF"


def read_mask(path: Path) -> npt.NDArray[np.int32]:
    """The label values (H, W) of a mask file, orientation applied.

    1-bit gives 0 and 1, a palette its indices, colour with equal channels that one channel. Raises DataError for
    colour codes, transparency, JPEG and formats that are not read.
    """
    reader = _READERS.get(headers.SUFFIXES.get(path.suffix.lower(), ""))
    if reader is None:
        headers.read_head(path)
        raise DataError(
            f"{path} is of a format that is not read as a mask.", found=path.suffix or "no suffix",
            expected=_EXPECTED, do="save the mask as PNG",
        )
    return reader(path).astype(np.int32)


def mask_mode(path: Path) -> str:
    """How a mask file stores its values, from its header alone: "palette", "8-bit grey", ... Raises DataError."""
    if headers.SUFFIXES.get(path.suffix.lower()) == headers.TIFF:
        with tiff_image.opened(path) as page:
            return f"TIFF {page.dtype}"
    with pillow_image.opened(path) as file:
        return _MODES.get(file.image.mode, file.image.mode)


def _read_pillow(path: Path) -> Array:
    with pillow_image.opened(path) as file:
        if file.kind == headers.JPEG:
            raise DataError(
                f"{path} is a JPEG file, whose compression changes label values.", found="JPEG", expected=_EXPECTED,
                do="save the mask as PNG from its source; a converted JPEG keeps the damage",
            )
        if file.depth == 16 and file.image.mode not in ("I", "I;16"):
            array = _one_channel(path, pillow_image.decode_deep(path), alpha=file.image.mode in ("LA", "RGBA"))
        else:
            array = _values(path, file.image, file.depth)
        return headers.orient(array, file.orientation)


def _values(path: Path, image: ImageFile, depth: int) -> Array:
    array = np.array(image)
    if image.mode in ("1", "P", "I", "I;16"):
        return array
    if image.mode == "L":
        return array // _GREY_STEP.get(depth, 1)
    if image.mode in ("LA", "RGB", "RGBA"):
        return _one_channel(path, array, alpha=image.mode != "RGB")
    raise DataError(f"{path} has the colour mode {image.mode}, which is no mask.", found=image.mode, expected=_EXPECTED)


def _read_tiff(path: Path) -> Array:
    with tiff_image.opened(path) as page:
        if page.dtype is None or page.dtype.kind not in "bui" or page.dtype.itemsize > 4:
            raise DataError(
                f"{path} holds {page.dtype} samples, which are no label values.", found=str(page.dtype),
                expected="integers of at most 32 bits", do="save the mask with integer values",
            )
        array = tiff_image.decode_page(path, page)
        if array.dtype == np.uint32 and array.max() > np.iinfo(np.int32).max:
            raise DataError(
                f"{path} holds label values that are too large.", found=f"up to {array.max()}", expected="at most 65535"
            )
        one = _one_channel(path, array, alpha=array.shape[-1] in (2, 4))
        return headers.orient(one, tiff_image.page_orientation(page))


def _one_channel(path: Path, array: Array, *, alpha: bool) -> Array:
    """(H, W) from (H, W, C) whose colour channels are equal and whose alpha, the last, is opaque."""
    if alpha:
        if (array[..., -1] != np.iinfo(array.dtype).max).any():
            raise DataError(
                f"{path} has transparent pixels, whose label is unknown.", found="an alpha channel",
                expected=_EXPECTED, do="save the mask without transparency",
            )
        array = array[..., :-1]
    first = array[..., 0]
    if any((array[..., channel] != first).any() for channel in range(1, array.shape[-1])):
        colours = len(np.unique(array.reshape(-1, array.shape[-1]), axis=0))
        raise DataError(
            f"{path} is a colour-coded mask.", found=f"{colours} colours", expected=_EXPECTED,
            do="replace each colour by the number of its class, and save the mask as a grey PNG",
        )
    return first


_READERS: dict[str, Callable[[Path], Array]] = {
    headers.PNG: _read_pillow,
    headers.JPEG: _read_pillow,
    headers.TIFF: _read_tiff,
}
