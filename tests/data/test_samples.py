"""What numbers become in memory: exact, rounded or refused, and what was never measured stays apart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepmap.data.samples import (
    as_image,
    count_not_finite,
    filled,
    image_dtype,
    image_nodata,
    not_finite,
    unmeasured,
)
from keepmap.errors import DataError

PATH = Path("x.tif")


@given(st.sampled_from(["int8", "int16", "int32", "uint32", "int64", "uint64"]), st.data())
def test_whole_numbers_are_exact_or_refused(dtype: str, data: st.DataObject) -> None:
    info = np.iinfo(dtype)
    value = data.draw(st.integers(max(info.min, -(2**25)), min(info.max, 2**25)) | st.integers(info.min, info.max))
    array = np.array([[[value]]], dtype)
    if abs(value) <= 2**24:
        assert as_image(PATH, array).item() == value
    else:
        with pytest.raises(DataError, match=rf"(?s)x\.tif holds {dtype} values that float32 cannot hold.*{value}"):
            as_image(PATH, array)


@given(st.floats(width=64))
def test_fractions_are_rounded_as_numpy_does_and_never_become_infinite(value: float) -> None:
    array = np.array([[[value]]])
    with np.errstate(over="ignore"):
        rounded = np.float32(value)
    if math.isfinite(value) and not math.isfinite(rounded):
        with pytest.raises(DataError, match="float32 cannot hold"):
            as_image(PATH, array)
    else:
        np.testing.assert_array_equal(as_image(PATH, array), rounded)


@pytest.mark.parametrize("dtype", ["uint8", "<u2", ">u2"])
def test_bytes_and_16_bits_stay(dtype: str) -> None:
    array = np.arange(6).astype(dtype).reshape(1, 2, 3)
    found = as_image(PATH, array, nodata=3)
    assert found.dtype.isnative and found.dtype.itemsize == array.dtype.itemsize
    assert np.array_equal(found, array)


def test_bits_are_black_and_white_and_text_is_refused() -> None:
    assert as_image(PATH, np.array([True, False])).tolist() == [255, 0]
    for dtype in ("complex64", "U3", "O", "M8[s]"):
        with pytest.raises(DataError, match=r"x\.tif holds .* samples, which are not read"):
            image_dtype(PATH, dtype)


def test_what_was_not_measured() -> None:
    floats = as_image(PATH, np.array([[[1, -9999]], [[2, -9999]]], np.int16), nodata=-9999)
    assert math.isnan(image_nodata(PATH, "int16", -9999.0) or 0)
    assert unmeasured(floats, math.nan).tolist() == [[False, True]]
    bytes_ = np.array([[[0, 0, 5]], [[0, 7, 5]]], np.uint8)
    assert unmeasured(bytes_, 0).tolist() == [[True, False, False]]
    assert filled(bytes_, 0, [3.4, 9.6]).tolist() == [[[3, 0, 5]], [[10, 7, 5]]]
    assert filled(bytes_, None, [1, 1]) is bytes_
    assert filled(floats, math.nan, [0.5, 1.5]).tolist() == [[[1, 0.5]], [[2, 1.5]]]


@pytest.mark.parametrize(
    ("dtype", "nodata", "found"), [("uint8", 255, 255), ("uint8", -1, None), ("uint16", 0.5, None)]
)
def test_a_nodata_value_that_no_sample_can_have_is_none(dtype: str, nodata: float, found: float | None) -> None:
    assert image_nodata(PATH, dtype, float(nodata)) == found
    assert image_nodata(PATH, dtype, None) is None


def test_values_that_are_no_numbers_are_counted() -> None:
    assert count_not_finite(np.array([1, np.nan, np.inf, -np.inf])) == 3
    assert count_not_finite(np.array([1, 2])) == 0
    assert "NaN or infinity in 3 of 4 values" in str(not_finite("x.tif", 3, 4))
