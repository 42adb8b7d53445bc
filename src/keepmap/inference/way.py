"""Which way through a network an image takes: whole in one pass, in bands or in tiles, and why.

Knows sizes, bytes and reaches; runs nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Literal

from keepmap.errors import OptionError
from keepmap.geometry.tiles import Halo, count_tiles, equal_window, round_up
from keepmap.inference.blending import blend_bytes, overlap_of
from keepmap.options import WantedWay

_LEAST_BAND, _MOST_BAND = 32, 256
"""Rows. Shorter bands cost more time than they save memory, larger ones bring nothing."""
_QUICK_BAND = 256 << 20
"""Bytes that the pass of a band takes at most, where the shortest is not larger: larger bands save few calls of layers
for the memory that they take, in smaller ones the calls cost a quarter of the time on a processor with AMX."""
_NONE: Halo = (0, 0)


@dataclass(frozen=True)
class Way:
    """How one image is computed. Sizes in pixels, (rows, columns).

    window:  what the network sees at once, a multiple of its stride; of bands the columns that it sees, all rows high.
    halo:    context (before, after) on each axis that is computed and thrown away; zero where nothing is. Of blended
             tiles what two of them have in common.
    tiles:   windows that cover the image.
    band:    rows that are computed at a time, a multiple of the stride; 0 where the whole window is.
    exact:   whether the result is that of one pass (up to rounding); False where tiles are blended.
    because: the reason, for the user.
    """

    kind: Literal["one pass", "bands", "tiles", "blended tiles"]
    window: tuple[int, int]
    halo: tuple[Halo, Halo]
    tiles: int
    exact: bool
    because: str
    band: int = 0

    def __str__(self) -> str:
        rows, columns = self.window
        if self.kind == "bands":
            return f"bands of {self.band} rows" + (f" in {self.tiles} columns of {columns} px" * (self.tiles > 1))
        return self.kind if self.kind == "one pass" else f"{self.tiles} {self.kind} of {rows} x {columns} px"


    def overhead(self, size: tuple[int, int]) -> float:
        """Pixels that are computed for each pixel of an image of `size` (H, W)."""
        return self.tiles * prod(self.window) / prod(size)


@dataclass(frozen=True)
class Position:
    """How far an image is that is computed in parts: whole tiles, and rows of the next one where it goes in bands.

    Of blended tiles only the rows are counted.
    """

    tiles: int = 0
    rows: int = 0

    def after(self, window: tuple[slice, slice], kind: str, height: int) -> Position:
        """The position after the next part, which is written at `window` of an image of `height` rows."""
        if kind in ("bands", "blended tiles") and window[0].stop < height:
            return Position(self.tiles, window[0].stop)
        return Position(self.tiles + 1)


@dataclass(frozen=True)
class Limits:
    """What the way depends on, apart from the image.

    stride:       total stride of the network, pixels. reach: (before, after), pixels. local: whether tiles are exact.
    memory_bytes: what the computing may take; peak_bytes(height, width): what a pass takes, band_bytes(band, width):
    what bands take. unstreamable: why there can be no bands, "" where there can. wanted: the way that was asked for.
    classes:      of the network, K. ahead: bytes of a pixel of the part that is read while another is computed.
    quick_pass:   bytes of a pass from which bands take less time.
    """

    stride: int
    reach: tuple[int, int]
    local: bool
    memory_bytes: int
    peak_bytes: Callable[[int, int], int]
    band_bytes: Callable[[int, int], int]
    unstreamable: str
    wanted: WantedWay = "auto"
    classes: int = 2
    ahead: int = 0
    quick_pass: float = inf

    def part_bytes(self, height: int, width: int) -> int:
        """Bytes that one of several passes takes, of (height, width) pixels, about."""
        return self.peak_bytes(height, width) + self.ahead * height * width


def plan_way(size: tuple[int, int], limits: Limits) -> Way:
    """One pass where it fits the memory and bands would not be quicker, else bands, in columns where the image is too
    wide for them, else tiles.

    A tile is never shorter than twice its context, even where the memory is too small for that; `because` says so.
    size: (H, W) of the image, at least 1 each. Raises OptionError where bands are wanted and there can be none.
    """
    allowed = limits.memory_bytes
    whole = _rounded(size, limits.stride)
    needed = limits.peak_bytes(*whole)
    if limits.wanted == "pass" or (limits.wanted == "auto" and needed <= allowed):
        quicker = limits.wanted == "auto" and needed > limits.quick_pass and not limits.unstreamable
        bands = _in_bands(size, limits, f"one pass would take {_bytes(needed)}, and more time") if quicker else None
        if bands is not None and bands.tiles == 1:
            return bands
        because = f"one pass takes {_bytes(needed)} of the {_bytes(allowed)} it may take"
        return Way("one pass", whole, (_NONE, _NONE), 1, True, because)
    because = f"one pass would take {_bytes(needed)}, it may take {_bytes(allowed)}"
    if limits.wanted != "auto":
        because = f"--way {limits.wanted}"
    tiles = _in_tiles(size, limits, because) if limits.local else _in_blended_tiles(size, limits, because)
    if limits.wanted == "tiles":
        return tiles
    if limits.unstreamable:
        if limits.wanted == "bands":
            raise OptionError(
                "This network cannot be computed in bands.", found=limits.unstreamable, do="--way auto or --way tiles"
            )
        return replace(tiles, because=f"{tiles.because}; no bands: {limits.unstreamable}")
    bands = _in_bands(size, limits, because)
    cheaper = bands is not None and bands.overhead(size) <= tiles.overhead(size)
    if bands is not None and (cheaper or limits.wanted == "bands"):
        return bands
    return tiles


def _in_tiles(size: tuple[int, int], limits: Limits, because: str) -> Way:
    """The tiles with the least arithmetic that fit the memory."""
    stride = limits.stride
    halo = (round_up(limits.reach[0], stride), round_up(limits.reach[1], stride))
    window = _cheapest(size, halo, limits)
    tiles = count_tiles(size, window, (halo, halo), (stride, stride))
    if (smallest := limits.part_bytes(*window)) > limits.memory_bytes:
        because += f"; the smallest tile takes {_bytes(smallest)}"
    return Way("tiles", window, (halo, halo), tiles, True, because)


def _in_blended_tiles(size: tuple[int, int], limits: Limits, because: str) -> Way:
    """The largest square tiles that fit the memory with the band in which they are blended, then the smallest that are
    as many: what a network that is not local sees of the image matters more than arithmetic."""
    stride = limits.stride
    whole = _rounded(size, stride)
    smallest = 2 * max(sum(round_up(side, stride) for side in limits.reach), stride)

    def taken(side: int) -> int:
        height, width = min(side, whole[0]), min(side, whole[1])
        return limits.part_bytes(height, width) + blend_bytes(limits.classes, (height, width), size[1])

    sides = range(max(smallest, *whole), smallest - 1, -stride)
    at = bisect_left(sides, True, key=lambda side: taken(side) <= limits.memory_bytes)
    if at == len(sides):
        because += f"; the smallest tile takes {_bytes(taken(sides[-1]))}"
    largest = sides[min(at, len(sides) - 1)]
    window = _least(whole[0], largest, smallest, stride), _least(whole[1], largest, smallest, stride)
    halo = overlap_of(window[0], stride), overlap_of(window[1], stride)
    tiles = count_tiles(size, window, halo, (stride, stride))
    if tiles > 1:
        because += "; this network sees the whole image at once, so the tiles are not exact and are blended"
    return Way("blended tiles", window, halo, tiles, tiles == 1, because)


def _least(extent: int, window: int, smallest: int, stride: int) -> int:
    """The shortest window, not below `smallest`, of which no more than of `window` cover an axis with an overlap."""
    if window >= extent:
        return extent

    def count(side: int) -> int:
        return count_tiles((extent,), (side,), (overlap_of(side, stride),), (stride,))

    shorter = window
    while shorter - stride >= smallest and count(shorter - stride) == count(window):
        shorter -= stride
    return shorter


def _in_bands(size: tuple[int, int], limits: Limits, because: str) -> Way | None:
    """Bands of full width, or the fewest columns in which they fit the memory; None where none do.

    Where bands alone are wanted the narrowest columns will do, however much they take.
    """
    stride = limits.stride
    height, end = _rounded(size, stride)
    halo = (round_up(limits.reach[0], stride), round_up(limits.reach[1], stride))
    heights = range(min(round_up(_LEAST_BAND, stride), height), min(_MOST_BAND, height) + 1, stride)
    for width in _windows(size[1], halo, stride, 2 * max(sum(halo), stride)):
        aside = _NONE if width == end else halo
        columns = count_tiles((size[1],), (width,), (aside,), (stride,))
        allowed = limits.memory_bytes
        fitting = [h for h in heights if limits.band_bytes(h, width) + limits.ahead * h * width <= allowed]
        if fitting:
            quick = [h for h in fitting if limits.peak_bytes(h, width) <= _QUICK_BAND]
            band = max(quick, default=min(fitting))
            return Way("bands", (height, width), (_NONE, aside), columns, True, because, band)
    if limits.wanted == "auto":
        return None
    because += f"; the shortest bands of the narrowest columns take {_bytes(limits.band_bytes(heights[0], width))}"
    return Way("bands", (height, width), (_NONE, aside), columns, True, because, heights[0])


def _cheapest(size: tuple[int, int], halo: Halo, limits: Limits) -> tuple[int, int]:
    """The window (h, w) with the smallest area over all tiles among those that fit, or the smallest allowed."""
    stride = limits.stride
    smallest = 2 * max(sum(halo), stride)
    heights = _windows(size[0], halo, stride, smallest)
    widths = _windows(size[1], halo, stride, smallest)
    best, least = (heights[-1], widths[-1]), float("inf")
    for height in heights:
        width = _widest(height, widths, limits)
        if width is None:
            continue
        tiles = count_tiles(size, (height, width), (halo, halo), (stride, stride))
        if tiles * height * width < least:
            best, least = (height, width), tiles * height * width
    return best


def _windows(extent: int, halo: Halo, stride: int, smallest: int) -> list[int]:
    """The windows worth trying along one axis, falling: one, two, three ... of them cover the extent."""
    end = round_up(extent, stride)
    windows = [end]
    count = 2
    while windows[-1] > smallest and (window := max(equal_window(extent, count, halo, stride), smallest)) < end:
        if window < windows[-1]:
            windows.append(window)
        count += 1
    return windows


def _widest(height: int, falling: list[int], limits: Limits) -> int | None:
    """The largest of the falling widths at which a window of this height fits the memory."""
    low, high = 0, len(falling)
    while low < high:
        middle = (low + high) // 2
        if limits.part_bytes(height, falling[middle]) <= limits.memory_bytes:
            high = middle
        else:
            low = middle + 1
    return falling[low] if low < len(falling) else None


def _rounded(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return round_up(size[0], stride), round_up(size[1], stride)


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
