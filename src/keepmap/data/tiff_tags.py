"""What the tags of a TIFF file say about its pixels, and which tags say the same of a mask: size, place, nodata.

Decodes no pixels and knows no coordinate system: GeoTIFF tags are handed on as they are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple
from xml.etree import ElementTree

import tifffile

from keepmap.protocols import Geometry

METRES = {
    "meter": 1.0, "centimeter": 1e-2, "millimeter": 1e-3, "micrometer": 1e-6, "nanometer": 1e-9, "inch": 0.0254,
}  # fmt: skip
"""Units of length that a pixel size may have -> metres."""

_SHORT = {
    "m": "meter", "cm": "centimeter", "mm": "millimeter", "um": "micrometer", "\u00b5m": "micrometer",
    "\u03bcm": "micrometer", "micron": "micrometer", "microns": "micrometer", "nm": "nanometer", "in": "inch",
    "\\u00b5m": "micrometer",
}  # fmt: skip
_GEO = (33550, 33922, 34264, 34735, 34736, 34737)
"""ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams."""

_NODATA = 42113
_LARGEST_TEXT = 1 << 20  # of an OME description that is parsed
_UNITS: dict[int, str] = {tifffile.RESUNIT.INCH: "inch", tifffile.RESUNIT.CENTIMETER: "centimeter"}


class Told(NamedTuple):
    """orientation: 1..8. nodata: in the file's own values, None where there is none."""

    orientation: int
    nodata: float | None
    geometry: Geometry


def read_tags(page: tifffile.TiffPage) -> Told:
    """What the tags of a page, and the description of its file, say."""
    tag = page.tags.get("Orientation")
    orientation = int(tag.value) if tag else 1
    tags = tuple(
        (found.code, int(found.dtype), found.count, found.value) for code in _GEO if (found := page.tags.get(code))
    )
    spacing, unit = _ome_spacing(page) or _resolution(page)
    geometry = Geometry(spacing, unit, tags=tags)
    return Told(orientation if 1 <= orientation <= 8 else 1, _nodata(page), geometry)


def _nodata(page: tifffile.TiffPage) -> float | None:
    tag = page.tags.get(_NODATA)
    try:
        return float(str(tag.value).strip("\0 ")) if tag else None
    except ValueError:
        return None


def _resolution(page: tifffile.TiffPage) -> tuple[tuple[float, float] | None, str]:
    """Pixel size from the resolution tags; their unit may stand in an ImageJ description."""
    across, down = (_rational(page.tags.get(name)) for name in ("XResolution", "YResolution"))
    said = (page.parent.imagej_metadata or {}).get("unit", "") if page.parent.is_imagej else ""
    unit = _SHORT.get(str(said), str(said)) or _UNITS.get(page.resolutionunit, "")
    if not across or not down or unit not in METRES:
        return None, ""
    return (1 / down, 1 / across), unit


def _rational(tag: tifffile.TiffTag | None) -> float:
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or not tag.value[1]:
        return 0.0
    return float(tag.value[0] / tag.value[1])


def _ome_spacing(page: tifffile.TiffPage) -> tuple[tuple[float, float], str] | None:
    """Pixel size from the first image of an OME description."""
    text = page.parent.ome_metadata if page.parent.is_ome else None
    if not text or len(text) > _LARGEST_TEXT or "<!" in text.replace("<!--", ""):
        return None
    try:
        pixels = next((e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("}Pixels")), None)
        found = {} if pixels is None else pixels.attrib
        size = float(found.get("PhysicalSizeY", 0)), float(found.get("PhysicalSizeX", 0))
    except (ElementTree.ParseError, ValueError):
        return None
    units = {found.get(f"PhysicalSize{axis}Unit", "\u00b5m") for axis in "XY"}
    unit = _SHORT.get(units.pop(), "")
    return (size, unit) if unit and not units and all(0 < side < math.inf for side in size) else None


def tiff_options(geometry: Geometry, nodata: float | None, *, ome_axes: str | None) -> dict[str, Any]:
    """What `tifffile.imwrite` is to be told so that a mask (H, W) or (H, W, 3) carries `geometry` and `nodata`.

    ome_axes: of an OME-TIFF, "YX" or "YXS"; None for any other TIFF.
    """
    extra: list[tuple[Any, ...]] = [(*tag, True) for tag in geometry.tags]
    if nodata is not None:
        text = f"{nodata:g}"
        extra.append((_NODATA, 2, len(text) + 1, text, True))
    options: dict[str, Any] = {"extratags": extra, "metadata": {"axes": ome_axes} if ome_axes else None}
    options["ome"] = ome_axes is not None
    if geometry.spacing is not None and geometry.unit in METRES:
        height, width = geometry.spacing
        unit = "inch" if geometry.unit == "inch" else "centimeter"
        factor = METRES[unit] / METRES[geometry.unit]
        resolution = factor / width, factor / height
        if max(resolution) < 2**32:  # the tag holds no more
            options |= {"resolution": resolution, "resolutionunit": unit.upper()}
        if ome_axes:
            micrometres = METRES[geometry.unit] / METRES["micrometer"]
            options["metadata"] |= {"PhysicalSizeX": width * micrometres, "PhysicalSizeY": height * micrometres}
    return options
