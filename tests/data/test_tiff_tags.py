"""Pixel sizes, places and nodata: read from tags as others write them, and written so that others read them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.sinks import open_sink
from keepmap.data.tiff_plane import TiffPlane
from keepmap.data.tiff_tags import METRES
from keepmap.protocols import Geometry

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


def told(path: Path, **options: object) -> Geometry:
    tifffile.imwrite(path, GREY, **options)
    return TiffPlane(path).geometry


def written(path: Path, geometry: Geometry, nodata: float | None = None) -> TiffPlane:
    with open_sink(path, (3, 4), np.uint8, geometry, nodata) as sink:
        sink.write((slice(0, 3), slice(0, 4)), GREY)
    return TiffPlane(path)


def test_resolution_tags_and_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    assert told(path, resolution=(100, 50), resolutionunit="INCH") == Geometry((1 / 50, 1 / 100), "inch")
    assert told(path, resolution=(100, 50), resolutionunit="CENTIMETER").unit == "centimeter"
    assert told(path, resolution=(100, 50), resolutionunit="NONE") == Geometry()
    assert told(path) == Geometry()
    imagej = told(path, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    assert imagej == Geometry((0.5, 0.25), "micrometer")
    for unit, name in (("µm", "micrometer"), ("nm", "nanometer")):
        sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": unit, "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": unit}
        assert told(path, ome=True, metadata={"axes": "YX", **sizes}) == Geometry((0.5, 0.25), name)


@pytest.mark.parametrize(
    "description",
    ["<OME><Pixels PhysicalSizeX='x'/></OME>", "<OME", "<!DOCTYPE a [<!ENTITY b 'c'>]><OME/>", "<OME" + "a" * 2**21],
    ids=["no number", "no end", "entities", "endless"],
)
def test_a_strange_description_means_no_pixel_size(tmp_path: Path, description: str) -> None:
    assert told(tmp_path / "x.tif", description=description + " OME>", metadata=None).spacing is None


@given(
    st.floats(3e-3, 1e3), st.floats(3e-3, 1e3), st.sampled_from(sorted(METRES)), st.sampled_from(["m.tif", "m.ome.tif"])
)
@settings(max_examples=40, deadline=None)
def test_a_mask_has_the_pixel_size_of_its_image(
    tmp_path_factory: pytest.TempPathFactory, height: float, width: float, unit: str, name: str
) -> None:
    plane = written(tmp_path_factory.mktemp("size") / name, Geometry((height, width), unit))
    found = np.multiply(plane.geometry.spacing, METRES[plane.geometry.unit])
    np.testing.assert_allclose(found, np.multiply((height, width), METRES[unit]), rtol=1e-4)
    assert np.array_equal(plane.read()[..., 0], GREY)


def test_a_pixel_too_small_for_the_tag_has_no_size(tmp_path: Path) -> None:
    assert written(tmp_path / "m.tif", Geometry((0.001, 0.001), "nanometer")).geometry == Geometry()


def test_an_unknown_unit_is_not_guessed(tmp_path: Path) -> None:
    assert written(tmp_path / "m.tif", Geometry((1.0, 2.0), "parsec")).geometry == Geometry()


def geotiff(path: Path, array: np.ndarray, **options: object) -> Path:
    rasterio = pytest.importorskip("rasterio")
    transform = rasterio.transform.from_origin(500_000.5, 4_200_000.25, 0.5, 0.25)
    count = 1 if array.ndim == 2 else len(array)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", height=array.shape[-2], width=array.shape[-1], count=count, dtype=array.dtype,
            crs="EPSG:32633", transform=transform, **options,
        ) as file:  # fmt: skip
            file.write(array if array.ndim == 3 else array[None])
    return path


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}])
def test_a_geotiff_is_read_as_rasterio_writes_it_and_its_mask_as_rasterio_reads_it(
    tmp_path: Path, options: dict[str, object]
) -> None:
    rasterio = pytest.importorskip("rasterio")
    bands = np.random.default_rng(0).random((4, 30, 40), dtype=np.float32)
    bands[:, 3, 4] = -9999
    plane = TiffPlane(geotiff(tmp_path / "x.tif", bands, nodata=-9999, **options))
    assert np.array_equal(plane.read(), bands.transpose(1, 2, 0))
    assert plane.nodata == -9999
    with open_sink(tmp_path / "m.tif", (30, 40), np.uint8, plane.geometry, 254) as sink:
        sink.write((slice(0, 30), slice(0, 40)), np.full((30, 40), 7, np.uint8))
    with rasterio.open(tmp_path / "x.tif") as image, rasterio.open(tmp_path / "m.tif") as mask:
        assert mask.crs == image.crs
        assert mask.crs.to_epsg() == 32633
        assert mask.transform == image.transform
        assert mask.nodata == 254
        assert (mask.read(1) == 7).all()
