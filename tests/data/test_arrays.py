"""Axes by name or by length, frames, windows, and what is no image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keepmap.data.arrays import ArrayImage, guess_axes
from keepmap.errors import DataError
from keepmap.options import ImageOptions

PATH = Path("x.npy")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((9, 8), "yx"), ((9, 8, 3), "yxc"), ((3, 9, 8), "cyx"), ((5, 9, 5), "yxc"), ((4, 9, 8, 2), "tyxc"),
     ((4, 2, 9, 8), "tcyx")],
)  # fmt: skip
def test_the_shorter_end_counts_channels(shape: tuple[int, ...], axes: str) -> None:
    assert guess_axes(PATH, shape) == axes


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3, 4, 5), (0, 5), (5, 5, 0)])
def test_what_is_no_image_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"(?s)x\.npy is no image.*shape"):
        guess_axes(PATH, shape)


@pytest.mark.parametrize(("axes", "shape"), [("yx", (9, 8)), ("xcy", (8, 2, 9)), ("tyzcx", (2, 9, 3, 2, 8))])
def test_axes_in_any_order_give_channels_first(axes: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 99, shape).astype(np.uint8)
    frames = array.size // (9 * 8 * (2 if "c" in axes else 1))
    whole = np.einsum(f"{axes}->{''.join(a for a in axes if a not in 'cyx')}{'c' * ('c' in axes)}yx", array)
    whole = whole.reshape(frames, -1, 9, 8)
    for n in range(frames):
        image = ArrayImage(PATH, lambda: array, axes, ImageOptions(frame=n))
        assert image.shape == whole[n].shape
        assert np.array_equal(image.read(), whole[n])
        assert np.array_equal(image.read((slice(2, 5), slice(1, 8))), whole[n][:, 2:5, 1:8])
    if frames > 1:
        with pytest.raises(DataError, match=rf"x\.npy holds {frames} frames"):
            ArrayImage(PATH, lambda: array, axes, ImageOptions())


def test_what_fails_while_reading_names_the_file() -> None:
    class Broken(np.ndarray):
        def __getitem__(self, index: object) -> None:
            raise OSError("a block is gone")

    image = ArrayImage(PATH, lambda: np.zeros((3, 3)).view(Broken), "yx", ImageOptions())
    with pytest.raises(DataError, match=r"(?s)x\.npy is damaged.*a block is gone"):
        image.read()
