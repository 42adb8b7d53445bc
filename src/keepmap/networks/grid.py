"""Where the rows of a value lie in the image, and how many there are: exact arithmetic through every kind of layer.

Knows the layer kinds of the tables in `layers.py`, along one axis; not which pixels a value depends on (see `reach`).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import nn

from keepmap.networks.layers import Crop, Join, Product, Upsample
from keepmap.networks.reach import AVERAGES, CONVS, GLOBAL_POOLS, JOINS, PADS, POINTWISE, POOLS, TRANSPOSEDS, along
from keepmap.networks.trace import Step, steps_of

WINDOWS = (*CONVS, *POOLS, *AVERAGES)


@dataclass(frozen=True)
class Grid:
    """Row i of a value is centred on row origin + step * i of the image; the default is the image itself.

    Composing these maps from layer to layer is how the crop offsets of an FCN follow from its layers.
    Source: Shelhamer, Long and Darrell 2017, reference code (coord_map.py).
    """

    step: Fraction = Fraction(1)
    origin: Fraction = Fraction(0)

    def through(self, layer: nn.Module, axis: int = 0) -> Grid:
        """Of what `layer` returns, along an axis (0: rows, 1: columns). Raises TypeError for an unknown layer."""
        if isinstance(layer, POINTWISE):
            return self
        if isinstance(layer, PADS):
            return self.without(-layer.padding[-2 - 2 * axis])
        if isinstance(layer, Crop):
            return self.without(layer.before)
        if isinstance(layer, Upsample):
            step = self.step / layer.factor
            return Grid(step, self.origin - (self.step - step) / 2)
        if isinstance(layer, (*WINDOWS, *TRANSPOSEDS)):
            kernel, stride, padding, dilation = (along(getattr(layer, key, 1), axis) for key in _NUMBERS)
            centre = Fraction(dilation * (kernel - 1), 2) - padding
            if isinstance(layer, TRANSPOSEDS):
                return Grid(self.step / stride, self.origin - centre * self.step / stride)
            return Grid(self.step * stride, self.origin + centre * self.step)
        raise TypeError(f"where the rows of {type(layer).__name__} lie is unknown")

    def without(self, rows: int) -> Grid:
        """The same without its first `rows` rows; a negative number adds so many before it."""
        return Grid(self.step, self.origin + rows * self.step)

    def rows_before(self, other: Grid) -> int:
        """How many of its first rows to cut off for the rest to lie on those of `other`; ValueError where none do."""
        rows = (other.origin - self.origin) / self.step
        if self.step != other.step or rows.denominator != 1 or rows < 0:
            raise ValueError(f"cutting no number of rows off {self} makes it lie on {other}")
        return int(rows)


def extents_of(network: Any, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The extent (H, W) of each step of a network's core for an image of `size`. TypeError for an unknown layer."""
    extents: list[tuple[int, int]] = []
    for step in steps_of(network):
        if step.kind == "input":
            height, width = network.padded(size)
        else:
            source = extents[step.inputs[-1 if _follows_its_last(step) else 0]]
            if step.kind == "add" or isinstance(step.layer, Product):
                source = max(extents[each] for each in step.inputs)
            height, width = (rows_after(step.layer, rows, axis) for axis, rows in enumerate(source))
        extents.append((height, width))
    return extents


def grids_of(network: Any) -> list[Grid]:
    """The Grid of each step of a network's core, in rows of what the core is given. TypeError for an unknown layer."""
    grids: list[Grid] = []
    for step in steps_of(network):
        source = grids[step.inputs[0]] if step.inputs else Grid()
        grids.append(source if step.layer is None else source.through(step.layer))
    return grids


def _follows_its_last(step: Step) -> bool:
    """Whether a step has the extent of the last of its inputs, not of the first."""
    return isinstance(step.layer, Crop) or (isinstance(step.layer, Join) and step.layer.match == "crop")


def rows_after(layer: nn.Module | None, rows: int, axis: int = 0) -> int:
    """How many rows `layer` makes of `rows`; None stands for what changes no extent, and a Crop for its pattern's."""
    if layer is None or isinstance(layer, (*POINTWISE, *JOINS, Crop)):
        return rows
    if isinstance(layer, GLOBAL_POOLS):
        return along(layer.output_size, axis)
    if isinstance(layer, PADS):
        return rows + int(layer.padding[-2 - 2 * axis]) + int(layer.padding[-1 - 2 * axis])
    if isinstance(layer, Upsample):
        return rows * layer.factor
    if isinstance(layer, (*WINDOWS, *TRANSPOSEDS)):
        kernel, stride, padding, dilation = (along(getattr(layer, key, 1), axis) for key in _NUMBERS)
        span = dilation * (kernel - 1) + 1
        if isinstance(layer, TRANSPOSEDS):
            return (rows - 1) * stride - 2 * padding + span + along(layer.output_padding, axis)
        steps, rest = divmod(rows + 2 * padding - span, stride)
        partial = isinstance(layer, POOLS) and layer.ceil_mode and rest and (steps + 1) * stride < rows + padding
        return steps + 1 + bool(partial)
    raise TypeError(f"how many rows {type(layer).__name__} returns is unknown")


_NUMBERS = ("kernel_size", "stride", "padding", "dilation")
