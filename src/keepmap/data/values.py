"""What a label value is: a number, or in a colour-coded mask a colour packed into one.

Does not know which values are classes (`labels` does) and reads no file.

A colour is COLOUR + 0xRRGGBB, except that a grey is the number of its three equal channels. An RGB file with grey
pixels only so holds the values of the grey mask, and an empty mask reads the same beside colour-coded ones and others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from keepmap.protocols import Array

COLOUR = 1 << 24
"""Values from here on are colours; numbers are less."""

LARGEST_VALUE = 65535
"""The largest number of a class."""

Colour = tuple[int, int, int]

_NEAR = 12
"""Levels by which lossy compression shifts a colour, or less."""
_ON_LINE = 2.0
"""Levels by which rounding moves a mixture of two colours off the line between them, or less."""


def pack_colours(colours: Array) -> npt.NDArray[np.int32]:
    """The label values (H, W) of colours (H, W, 3) uint8."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    packed = COLOUR | red << 16 | green << 8 | blue
    return np.where((red == green) & (green == blue), red, packed)


def unpack_colours(values: Array) -> npt.NDArray[np.uint8]:
    """The colours (H, W, 3) of label values (H, W) from a colour-coded mask."""
    greys = values < COLOUR
    return np.stack([np.where(greys, values, values >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)], axis=-1)


def colour_value(colour: Colour) -> int:
    """The label value of one colour, 0..255 each."""
    return int(pack_colours(np.array(colour, np.uint8)))


def is_coloured(values: Collection[int]) -> bool:
    """Whether there is a colour among label values, so that the numbers among them are greys."""
    return any(value >= COLOUR for value in values)


def value_text(value: int, coloured: bool) -> str:
    """A label value as people write it: "128", or "rgb 128,0,0" among colours."""
    if not coloured or value < 0 or 255 < value < COLOUR:
        return str(value)
    return "rgb " + ",".join(str(level) for level in unpack_colours(np.array(value)).tolist())


def parse_value(text: str) -> int | None:
    """The label value that "128" or "128,0,0" stands for; None if it is none."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() for part in parts):
        return None
    numbers = [int(part) for part in parts]
    if len(numbers) == 1:
        return numbers[0] if numbers[0] <= LARGEST_VALUE else None
    if len(numbers) == 3 and max(numbers) <= 255:
        return colour_value((numbers[0], numbers[1], numbers[2]))
    return None


def solid_colours(values: Array) -> set[int]:
    """The values of which some pixel lies amid eight others of the same value; those of thin lines are left out."""
    if min(values.shape) < 3:
        return set()
    alike = values[:, 1:-1]
    rows = (values[:, :-2] == alike) & (values[:, 2:] == alike)
    middle = values[1:-1, 1:-1]
    solid = rows[1:-1] & rows[:-2] & rows[2:] & (values[:-2, 1:-1] == middle) & (values[2:, 1:-1] == middle)
    return {int(value) for value in np.unique(middle[solid])}


def colours_between(counts: Mapping[int, int], solid: Collection[int]) -> set[int]:
    """Colours that smoothing or lossy compression made, not a person.

    Such a colour occurs in thin lines only, and lies on the straight line between two more frequent colours that do
    not, or next to one of them. counts: pixels per label value. solid: see `solid_colours`. Distances in RGB levels.
    """
    firm = sorted(set(counts) & set(solid))
    colours = unpack_colours(np.array(firm, np.int64)).astype(float)
    pixels = np.array([counts[value] for value in firm])
    found = set()
    for value in set(counts) - set(solid):
        ends = colours[pixels > counts[value]]
        offsets = unpack_colours(np.array(value)).astype(float) - ends
        spans = ends[None] - ends[:, None]
        lengths = np.maximum((spans**2).sum(axis=2), 1)
        shares = (offsets[:, None] * spans).sum(axis=2) / lengths
        distances = np.abs(offsets[:, None] - shares[..., None] * spans).max(axis=2, initial=0)
        mixed = (shares > 0) & (shares < 1) & (distances <= _ON_LINE)
        near = np.abs(offsets).max(axis=1) <= _NEAR
        if mixed.any() or near.any():
            found.add(value)
    return found
