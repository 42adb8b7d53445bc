"""What label values mean: which of them are classes, which one is ignored, their names and colours.

Does not read masks (`masks` does), and does not decide which values are classes (`label_rules` does).
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from keepmap.data.values import COLOUR, LARGEST_VALUE, Colour, is_coloured, value_text
from keepmap.errors import DataError
from keepmap.protocols import Array

IGNORE_INDEX = -1
"""The class index of pixels that neither loss nor scores count."""

_UNKNOWN = -2
SHOWN = 8
"""Label values that a message lists."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of a data set, K of them; class index i stands for `values[i]` in mask files.

    values: 0..65535, or those of colours (see `values`), all different. names: as many. ignore: the value left out,
    None if there is none. colours: RGB 0..255, one per class, for pictures only.
    instances: every value above 0 but the ignored one numbers an object; all of them are class 1.
    """

    values: tuple[int, ...]
    names: tuple[str, ...]
    ignore: int | None
    colours: tuple[Colour, ...]
    instances: bool = False

    @property
    def coloured(self) -> bool:
        """Whether masks are colour-coded, and predictions are to be."""
        return is_coloured(self._known)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Of label values: uint8, uint16 where one exceeds 255, uint32 where they are colours."""
        return np.dtype(np.uint32 if self.coloured else np.uint8 if max(self.values) < 256 else np.uint16)

    @property
    def count(self) -> int:
        """K, the number of classes."""
        return len(self.values)

    @property
    def has_ground(self) -> bool:
        """Whether the first class is the ground that the others lie on: by its name, or for want of names."""
        return self.names[0].lower() in ("background", "class 0")

    @property
    def blank(self) -> int:
        """What is written where an image has no measurement: the ignored value, else a large one that is no label.

        Never a colour: a GeoTIFF cannot declare one, so that a grey stands for it.
        """
        if self.ignore is not None and self.ignore < COLOUR:
            return self.ignore
        return next((value for value in range(255, -1, -1) if value not in self.values), LARGEST_VALUE)

    def encode(self, values: Array, where: object = "The mask") -> npt.NDArray[np.int16]:
        """Class indices (H, W) of label values (H, W), any integers; ignored pixels become IGNORE_INDEX.

        Raises DataError, naming `where` and the value, for a value that is no label.
        """
        values = values if values.dtype == np.int32 else values.astype(np.int64)
        indices = self._look_up(values)
        if indices.size and indices.min() == _UNKNOWN:
            found, counts = np.unique(values[indices == _UNKNOWN], return_counts=True)
            unknown = {int(v): int(n) for v, n in zip(found, counts, strict=True)}
            raise unknown_values(where, unknown, values.size, self)
        return indices

    def decode(self, indices: Array) -> Array:
        """Label values (H, W) in `dtype` of class indices (H, W) in 0..K-1."""
        decoded: Array = np.array(self.values, self.dtype)[indices]
        return decoded

    @property
    def _known(self) -> list[int]:
        return [*self.values, *([] if self.ignore is None else [self.ignore])]

    def _look_up(self, values: Array) -> npt.NDArray[np.int16]:
        """Class indices, _UNKNOWN where a value is no label."""
        indices: npt.NDArray[np.int16]
        if self.instances:
            indices = np.where(values < 0, _UNKNOWN, values > 0).astype(np.int16)
            indices[values == self.ignore] = IGNORE_INDEX
        elif self.coloured:
            known = np.sort(self._known)
            places = np.searchsorted(known, values).clip(max=len(known) - 1)
            index = [self.values.index(v) if v in self.values else IGNORE_INDEX for v in known.tolist()]
            indices = np.array(index, np.int16)[places]
            indices[known[places] != values] = _UNKNOWN
        else:
            indices = self._indices[np.clip(values, -1, len(self._indices) - 1)]
        return indices

    @cached_property
    def _indices(self) -> npt.NDArray[np.int16]:
        """Value -> index; the last entry, which -1 reaches too, stands for all values that are none."""
        table = np.full(max(self._known) + 2, _UNKNOWN, np.int16)
        table[list(self.values)] = np.arange(self.count)
        if self.ignore is not None:
            table[self.ignore] = IGNORE_INDEX
        return table

    def describe(self) -> str:
        """Values and names, such as "0 background, 255 foreground"; the ignored value last."""
        texts = [self.text(value) for value in self._known]
        parts = [f"{text} {name}" for text, name in zip(texts, self.names, strict=False)]
        parts = parts if len(parts) <= 2 * SHOWN else [*parts[:SHOWN], "...", parts[-1]]
        return ", ".join([*parts, *([] if self.ignore is None else [f"{texts[-1]} ignored"])])

    def text(self, value: int) -> str:
        """A value as people write it, of this set or beside it in a mask."""
        return value_text(value, self.coloured or value >= COLOUR)


def unknown_values(where: object, unknown: Mapping[int, int], pixels: int, labels: LabelSet) -> DataError:
    """The error for a mask `where` of `pixels` pixels with values outside `labels`. unknown: pixels per value."""
    values = sorted(unknown, key=lambda value: -unknown[value])
    kind = "colour" if labels.coloured or is_coloured(values) else "value"
    one = len(values) == 1
    text = labels.text(values[0]).removeprefix("rgb ")
    what = f"{kind} {text}, which is not a label" if one else f"{len(values)} {kind}s that are no labels"
    single = f", or pass --ignore {text}" if one and labels.ignore is None else ""
    return DataError(
        f"{where} contains {what}.", found=describe_counts(unknown, pixels, coloured=kind == "colour"),
        expected=labels.describe(), do=f"correct the mask{single}",
    )  # fmt: skip


def describe_counts(counts: Mapping[int, int], pixels: int | None = None, *, coloured: bool | None = None) -> str:
    """Label values with their share of `pixels` (default: of all counted), most frequent first, rare ones in pixels.

    coloured: whether the numbers among them are greys; default: if one of them is a colour.
    """
    total = sum(counts.values()) if pixels is None else pixels
    order = sorted(counts, key=lambda value: (-counts[value], value))
    parts = []
    for value in order[:SHOWN]:
        share = 100 * counts[value] / max(total, 1)
        text = value_text(value, is_coloured(counts) if coloured is None else coloured)
        parts.append(f"{text} ({share:.0f} %)" if share >= 5 else f"{text} ({share:.2g} %, {counts[value]} px)")
    if len(order) > SHOWN:
        parts.append(f"and {len(order) - SHOWN} other values")
    return ", ".join(parts)


_PALETTE: tuple[Colour, ...] = (
    (44, 48, 58), (255, 159, 28), (46, 196, 182), (155, 93, 229), (77, 150, 255), (139, 201, 38), (255, 112, 166),
    (255, 221, 74), (0, 121, 107), (141, 85, 36), (0, 78, 152), (196, 224, 255), (120, 0, 60), (180, 180, 100),
    (90, 90, 200), (255, 200, 170), (60, 110, 30), (200, 60, 200), (150, 160, 170), (250, 90, 60),
)  # fmt: skip


def default_colours(count: int) -> tuple[Colour, ...]:
    """`count` different colours, a dark neutral one first; the first ones do not depend on `count`."""
    colours = list(_PALETTE[:count])
    step = 0
    while len(colours) < count:
        hue, ring = (step * 0.618034) % 1, step % 9
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.45 + 0.06 * ring, 0.95 - 0.07 * (step % 7))
        colour = (round(255 * red), round(255 * green), round(255 * blue))
        if colour not in colours:
            colours.append(colour)
        step += 1
    return tuple(colours)
