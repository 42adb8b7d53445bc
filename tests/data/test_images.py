"""The suffix decides who reads; an unknown one is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from PIL import Image

from keepmap.data.images import open_image
from keepmap.errors import DataError

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_whole_and_by_window(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("read") / data.draw(st.sampled_from(["x.png", "x.PNG", "x.tif", "x.TIFF"]))
    height, width = data.draw(SHAPES)
    colours = data.draw(st.sampled_from([1, 3]))
    tiff = path.suffix.lower() != ".png"
    dtype = data.draw(st.sampled_from(["uint8", "uint16"])) if tiff or colours == 1 else "uint8"
    array = data.draw(drawn.arrays(dtype, (height, width) if colours == 1 else (height, width, 3)))
    if tiff:
        tifffile.imwrite(path, array, compression=data.draw(st.sampled_from([None, "zlib"])))
    else:
        Image.fromarray(array).save(path)
    source = open_image(path)
    expected = array.reshape(height, width, colours).transpose(2, 0, 1)
    assert (source.path, source.shape, source.dtype) == (path, expected.shape, expected.dtype)
    whole = source.read()
    assert whole.dtype == expected.dtype
    assert np.array_equal(whole, expected)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = slice(top, data.draw(st.integers(top + 1, height))), slice(left, data.draw(st.integers(left + 1, width)))
    assert np.array_equal(source.read(window), expected[:, window[0], window[1]])


def test_an_unknown_suffix_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.tga"
    path.write_bytes(b"BM")
    with pytest.raises(DataError, match=r"(?s)x\.tga is of a format that is not read.*PNG, JPEG, TIFF"):
        open_image(path)


def test_an_absent_file_is_said_to_be_absent_whatever_its_suffix(tmp_path: Path) -> None:
    for name in ("x.tga", "x.png", "x.tif", "x.npy", "x.zarr", "x.bmp"):
        with pytest.raises(DataError, match=f"(?s){name} cannot be opened.*No such file"):
            open_image(tmp_path / name)
