"""NumPy's .npy files, left on disk and read by window.

Does not unpickle: arrays of objects are refused.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from keepmap.data import headers
from keepmap.data.arrays import ArrayImage, guess_axes
from keepmap.errors import KeepmapError
from keepmap.options import ImageOptions
from keepmap.protocols import Array


def open_npy(path: Path, options: ImageOptions) -> ArrayImage:
    """The array of a .npy file; see `guess_axes` for its shape. Raises DataError."""
    head = headers.read_head(path)
    if headers.kind_of(head) != headers.NPY:
        raise headers.wrong_kind(path, headers.describe_head(head), "a NumPy file")
    try:
        axes = guess_axes(path, _map(path).shape)
    except KeepmapError:
        raise
    except Exception as error:
        raise headers.damaged(path, error) from error
    return ArrayImage(path, partial(_map, path), axes, options)


def _map(path: Path) -> Array:
    array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
