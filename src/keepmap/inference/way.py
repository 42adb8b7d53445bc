"""Which way through a network an image takes: whole in one pass, or in tiles, and why.

Knows sizes, bytes and reaches; runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from keepmap.geometry.tiles import Halo, count_tiles, equal_window, round_up


@dataclass(frozen=True)
class Way:
    """How one image is computed. Sizes in pixels, (rows, columns).

    window:  what the network sees at once, a multiple of its stride.
    halo:    context (before, after) on each axis that is computed and thrown away; zero in one pass.
    tiles:   forward passes.
    exact:   whether the result is that of one pass (up to rounding); False for a network that is not local.
    because: the reason, for the user.
    """

    kind: Literal["one pass", "tiles"]
    window: tuple[int, int]
    halo: tuple[Halo, Halo]
    tiles: int
    exact: bool
    because: str


@dataclass(frozen=True)
class Limits:
    """What the way depends on, apart from the image.

    stride:       total stride of the network, pixels. reach: (before, after), pixels. local: whether tiles are exact.
    memory_bytes: what one forward pass may take; peak_bytes(height, width): what it takes.
    """

    stride: int
    reach: tuple[int, int]
    local: bool
    memory_bytes: int
    peak_bytes: Callable[[int, int], int]


def plan_way(size: tuple[int, int], limits: Limits) -> Way:
    """One pass where it fits the memory, else the tiles with the least arithmetic that do.

    A tile is never shorter than twice its context, even where the memory is too small for that; `because` says so.
    size: (H, W) of the image, at least 1 each.
    """
    stride, allowed = limits.stride, limits.memory_bytes
    whole = (round_up(size[0], stride), round_up(size[1], stride))
    needed = limits.peak_bytes(*whole)
    if needed <= allowed:
        none = (0, 0)
        because = f"one pass takes {_bytes(needed)} of the {_bytes(allowed)} it may take"
        return Way("one pass", whole, (none, none), 1, True, because)
    halo = (round_up(limits.reach[0], stride), round_up(limits.reach[1], stride))
    window = _cheapest(size, halo, limits)
    tiles = count_tiles(size, window, (halo, halo), (stride, stride))
    because = f"one pass would take {_bytes(needed)}, it may take {_bytes(allowed)}"
    if (smallest := limits.peak_bytes(*window)) > allowed:
        because += f"; the smallest tile takes {_bytes(smallest)}"
    if not limits.local:
        because += "; this network sees the whole image at once, so the tiles are not exact"
    return Way("tiles", window, (halo, halo), tiles, limits.local, because)


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
        if limits.peak_bytes(height, falling[middle]) <= limits.memory_bytes:
            high = middle
        else:
            low = middle + 1
    return falling[low] if low < len(falling) else None


def _bytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
