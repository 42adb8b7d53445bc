"""Plain arrays on disk: any type and order, windows without the rest, and no code from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

from keepmap.data.npy_image import open_npy
from keepmap.errors import DataError
from keepmap.options import ImageOptions


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_what_numpy_writes_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["bool", "uint8", "<u2", ">u2", "<i2", ">i4", "<f4", ">f8"]))
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(5, 9)))
    array = data.draw(drawn.arrays(dtype, shape, elements=st.integers(0, 1 if dtype == "bool" else 200)))
    stored = np.asfortranarray(array) if data.draw(st.booleans()) else array
    path = tmp_path_factory.mktemp("npy") / "x.npy"
    np.save(path, stored)
    found = open_npy(path, ImageOptions()).read()
    assert found.dtype.name in ("uint8", "uint16", "float32")
    assert found.dtype.isnative
    assert np.array_equal(found[0], array * 255 if dtype == "bool" else array)


def test_a_window_of_a_giant_leaves_the_rest_on_disk(tmp_path: Path) -> None:
    stored = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint16, (20_000, 20_000))  # a hole but for a corner
    stored[-3:, -2:] = 7
    del stored
    source = open_npy(tmp_path / "x.npy", ImageOptions())
    assert source.shape == (1, 20_000, 20_000)
    assert (source.read((slice(19_997, 20_000), slice(19_998, 20_000))) == 7).all()


def test_an_array_of_objects_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    array = np.empty((2, 2), object)
    array[:] = Payload(tmp_path / "mark")
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy"):
        open_npy(tmp_path / "x.npy", ImageOptions())
    assert not (tmp_path / "mark").exists()


def test_damage_and_false_names_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((50, 50)))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:300])
    with pytest.raises(DataError, match=r"x\.npy is damaged"):
        open_npy(tmp_path / "x.npy", ImageOptions())
    (tmp_path / "y.npy").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"(?s)y\.npy is not the NumPy file.*a ZIP file"):
        open_npy(tmp_path / "y.npy", ImageOptions())
