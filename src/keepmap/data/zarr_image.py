"""Zarr folders, plain and OME-Zarr: the full-resolution array, read chunk by chunk, and such a folder for a mask.

Reads no pyramid levels and no labels inside an image. Codecs are allowed by name: among Zarr's is one that unpickles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keepmap import external
from keepmap.data import headers
from keepmap.data.arrays import ArrayImage, guess_axes
from keepmap.data.values import unpack_colours
from keepmap.errors import DataError, KeepmapError
from keepmap.geometry.tiles import round_up
from keepmap.options import ImageOptions
from keepmap.protocols import Array, Geometry

_PURPOSE = "Reading and writing Zarr"
_CODECS = {
    "blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "bytes", "transpose", "sharding_indexed", "shuffle", "delta",
    "crc32c", "crc32", "adler32", "fletcher32", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype",
}  # fmt: skip
_CHUNK = 512  # side of the chunks of a mask, in px
_OLD_AXES = "tczyx"  # of OME-Zarr before axes had names


def open_zarr(path: Path, options: ImageOptions) -> ArrayImage:
    """The image in a Zarr folder: its array, or level 0 of the first image of an OME-Zarr group.

    Axes are known by their names; those of a plain array without names as in `guess_axes`.
    Raises DataError, MissingPackage without the extra `zarr`.
    """
    if not path.is_dir():
        headers.read_head(path)
        raise DataError(
            f"{path} is no Zarr folder.", found="a file", expected="a folder with zarr.json or .zgroup",
            do="unpack it, or give it the suffix of its format",
        )
    zarr = external.load("zarr", _PURPOSE)
    try:
        node = zarr.open(zarr.storage.LocalStore(path, read_only=True), mode="r")
        array, axes, geometry = (node, None, Geometry()) if isinstance(node, zarr.Array) else _level_0(path, node)
        _check_codecs(path, array.metadata.to_dict())
        block = array.shards or array.chunks
        axes = axes or _named_axes(array) or guess_axes(path, array.shape)
    except KeepmapError:
        raise
    except Exception as error:
        raise headers.damaged(path, error) from error
    if len(axes) != len(array.shape) or len(set(axes)) != len(axes) or not {"y", "x"} <= set(axes):
        raise DataError(
            f"{path} has axes that do not fit.", found=f"{axes}, shape {array.shape}", expected="y and x",
            do="name each axis of the array once, y and x among them",
        )
    kept = _KeptRow(array, axes.index("y"), array.chunks[axes.index("y")])
    image = ArrayImage(path, partial(_same, kept), axes, options, geometry)
    height, width = (block[axes.index(axis)] for axis in "yx")
    headers.require_pixels(path, height, width, options.max_pixels, math.prod(block) // (height * width))
    return image


class _KeptRow:
    """An array in chunks, `high` rows each, that decodes them once for windows that follow each other downwards.

    What a window leaves unread of its last row of chunks is kept for the next one of the same columns.
    """

    def __init__(self, array: Any, axis: int, high: int) -> None:
        self.shape, self.dtype = tuple(array.shape), np.dtype(array.dtype)
        self._array, self._axis, self._high = array, axis, high
        self._kept: tuple[Any, slice, Array] | None = None

    def __getitem__(self, index: tuple[slice | int, ...]) -> Array:
        """The elements at `index`, whose rows are a slice of two numbers."""
        rows: Any = index[self._axis]
        others = index[: self._axis], index[self._axis + 1 :]
        kept, top, parts = self._kept, rows.start, []
        if kept is not None and kept[0] == others and kept[1].start <= top < kept[1].stop:
            parts.append(self._cut(others, kept[2], top - kept[1].start, rows.stop - kept[1].start))
            top = min(rows.stop, kept[1].stop)
        if top < rows.stop:
            first = max(top, (rows.stop - 1) // self._high * self._high)  # of the last row of chunks
            end = min(round_up(rows.stop, self._high), self.shape[self._axis])
            if (end - first) * self._row_bytes(index) > headers.KEPT_ROW_BYTES:
                end = rows.stop
            self._kept = None
            read = np.asarray(self._array[(*others[0], slice(top, end), *others[1])])
            if end > rows.stop:
                self._kept = others, slice(first, end), self._cut(others, read, first - top, end - top).copy()
            parts.append(self._cut(others, read, 0, rows.stop - top))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, self._place(others))

    def _place(self, others: tuple[Any, Any]) -> int:
        """The axis of the rows in what is read."""
        return sum(isinstance(each, slice) for each in others[0])

    def _cut(self, others: tuple[Any, Any], part: Array, start: int, stop: int) -> Array:
        return part[(slice(None),) * self._place(others) + (slice(start, stop),)]

    def _row_bytes(self, index: tuple[slice | int, ...]) -> int:
        pairs = [pair for axis, pair in enumerate(zip(index, self.shape, strict=True)) if axis != self._axis]
        lengths = [len(range(*each.indices(length))) for each, length in pairs if isinstance(each, slice)]
        return int(math.prod(lengths) * self.dtype.itemsize)


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder says that it is Zarr."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _same(array: Any) -> Any:
    return array


def _level_0(path: Path, group: Any) -> tuple[Any, str | None, Geometry]:
    """The full-resolution array of an OME-Zarr group, its axes and its geometry."""
    attributes = group.attrs.asdict()
    found = attributes.get("ome", attributes).get("multiscales")
    if not found:
        raise DataError(
            f"{path} is a group of arrays and does not say which is the image.",
            found=", ".join(sorted(group.keys())) or "an empty group",
            expected="an array, or the multiscales of OME-Zarr",
            do="rename the array you mean to NAME.zarr",
        )
    image, level = found[0], found[0]["datasets"][0]
    described = image.get("axes", list(_OLD_AXES))
    names = [axis["name"] if isinstance(axis, Mapping) else axis for axis in described]
    axes = "".join(name if name in _OLD_AXES else "?" for name in names)
    units = {axis["name"]: axis.get("unit", "") for axis in described if isinstance(axis, Mapping)}
    steps = [*level.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())]
    return group[level["path"]], axes, _geometry(axes, steps, units)


def _geometry(axes: str, steps: Sequence[Mapping[str, Any]], units: Mapping[str, str]) -> Geometry:
    spacing, origin = np.ones(2), np.zeros(2)
    yx = [axes.index("y"), axes.index("x")]
    for step in steps:
        if step["type"] == "scale":
            spacing, origin = spacing * np.take(step["scale"], yx), origin * np.take(step["scale"], yx)
        elif step["type"] == "translation":
            origin = origin + np.take(step["translation"], yx)
    unit = units.get("y", "") if units.get("y") == units.get("x") else ""
    (height, width), (top, left) = spacing.tolist(), origin.tolist()
    return Geometry((height, width) if steps else None, unit, (top, left))


def _named_axes(array: Any) -> str | None:
    """The names of the dimensions, where an array has some and each is one letter."""
    names = getattr(array.metadata, "dimension_names", None) or ()
    if not names or not all(isinstance(name, str) and len(name) == 1 for name in names):
        return None
    return "".join(names).lower()


def _check_codecs(path: Path, metadata: Mapping[str, Any]) -> None:
    stages = [metadata.get(key) for key in ("codecs", "filters", "compressor")]
    strange = sorted({name for name in _names(stages) if name.removeprefix("numcodecs.") not in _CODECS})
    if strange:
        raise DataError(
            f"{path} is compressed in a way that is not read.", found=", ".join(strange),
            expected="blosc, zstd or gzip",
            do="write it anew with one of these",
        )


def _names(stages: Any) -> Iterator[str]:
    """The names of all codecs, also of those inside a shard."""
    if isinstance(stages, Mapping):
        yield from (str(stages[key]) for key in ("name", "id") if key in stages)
        yield from _names([value for key, value in stages.items() if key not in ("name", "id")])
    elif isinstance(stages, list | tuple):
        for stage in stages:
            yield from _names(stage)


def write_zarr(array: Array, path: Path, geometry: Geometry) -> None:
    """Write a mask (H, W) as an OME-Zarr (0.4) folder of one level, chunk row by chunk row.

    Values of colours, uint32, become colours (3, H, W) uint8.
    """
    zarr = external.load("zarr", _PURPOSE)
    coloured = array.dtype == np.uint32
    shape, dtype = ((3, *array.shape), np.dtype(np.uint8)) if coloured else (array.shape, array.dtype)
    group = zarr.open_group(zarr.storage.LocalStore(path), mode="w", zarr_format=2)
    unit = {"unit": geometry.unit} if geometry.unit else {}
    channel = [{"name": "c", "type": "channel"}] * coloured
    scale = [*[1.0] * coloured, *(geometry.spacing or (1.0, 1.0))]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if any(geometry.origin):
        steps.append({"type": "translation", "translation": [*[0.0] * coloured, *geometry.origin]})
    image = {
        "version": "0.4",
        "axes": [*channel, *({"name": name, "type": "space", **unit} for name in "yx")],
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }
    group.attrs.put({"multiscales": [image]})
    chunks = tuple(min(_CHUNK, side) for side in shape)
    stored = group.create_array(
        "0", shape=shape, chunks=chunks, dtype=dtype, chunk_key_encoding={"name": "v2", "separator": "/"}
    )
    for top in range(0, array.shape[0], _CHUNK):
        rows = array[top : top + _CHUNK]
        stored[..., top : top + _CHUNK, :] = np.moveaxis(unpack_colours(rows), -1, 0) if coloured else rows
