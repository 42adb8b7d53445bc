"""Decoded image and mask pairs, kept in memory up to a limit, beyond it in a mapped file, and else read again.

Does not crop, augment or batch.
"""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from keepmap.data.facts import FileFacts
from keepmap.data.images import open_image
from keepmap.data.instances import read_objects
from keepmap.data.labels import IGNORE_INDEX, LabelSet
from keepmap.data.masks import read_mask
from keepmap.data.samples import filled, unmeasured
from keepmap.data.scratch import Layout, Scratch
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Array

Sample = tuple[Array, npt.NDArray[np.int16]]


class SampleStore:
    """The pairs of `facts` as arrays. Safe to read from several threads; no array may be written to.

    limit_bytes: memory for what is kept; the first pairs are kept, for good. reading: how files are read.
    scratch: a folder for the others, in a file without a name that takes half of the free disk at most, less where
    `sharing` such files grow on one disk; from there a crop costs what it costs from memory. What finds no place is
    read again.
    file_bytes: that the file may grow to. Processes forked from this one share the file.
    Pixels that were never measured have the mean of their image and are ignored.
    """

    def __init__(
        self,
        facts: Sequence[FileFacts],
        labels: LabelSet,
        limit_bytes: int,
        reading: ImageOptions = ImageOptions(),  # noqa: B008
        scratch: Path | None = None,
        sharing: int = 1,
    ) -> None:
        self._reading = reading
        self.facts = tuple(facts)
        self.labels = labels
        self._kept: dict[int, Sample] = {}
        self._in_memory = _how_many(self.facts, limit_bytes)
        others = self.facts[self._in_memory :]
        in_file = others[: _how_many(others, shutil.disk_usage(scratch).free // 2 // sharing)] if scratch else ()
        self._in_file = self._in_memory + len(in_file)
        self.file_bytes = sum(map(_size, in_file))
        self._scratch = Scratch(scratch, [_layout(fact) for fact in in_file]) if scratch and in_file else None

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def used_bytes(self) -> int:
        """Memory that the kept pairs take."""
        return sum(image.nbytes + classes.nbytes for image, classes in self._kept.values())

    def get(self, index: int) -> Sample:
        """Image (C, H, W) in its own dtype and class indices (H, W) int16. Raises DataError if a file has changed."""
        if index < self._in_memory:
            sample = self._kept.get(index) or self._read(self.facts[index])
            return self._kept.setdefault(index, sample)
        if self._scratch is None or index >= self._in_file:
            return self._read(self.facts[index])
        found = self._scratch.get(index - self._in_memory)
        if found is not None:
            return found[0], found[1]
        sample = self._read(self.facts[index])
        with suppress(OSError):  # a disk that is full by now: the pair is read again
            self._scratch.put(index - self._in_memory, sample)
        return sample

    def objects(self, index: int) -> npt.NDArray[np.int32] | None:
        """The objects (H, W) of an instance mask, 1, 2, 3, ..., 0 beside them and -1 where ignored; None for others.

        Read from the file each time, and not kept. Raises DataError.
        """
        if not self.labels.instances:
            return None
        return read_objects(self.facts[index].mask, self.labels.ignore, self._reading)

    def _read(self, fact: FileFacts) -> Sample:
        source = open_image(fact.image, self._reading)
        image, values = source.read(), read_mask(fact.mask, self._reading)
        expected = (fact.channels, fact.height, fact.width)
        for path, shape in ((fact.image, image.shape), (fact.mask, (fact.channels, *values.shape))):
            if shape != expected:
                raise DataError(
                    f"{path} has changed since it was checked.", found=f"(C, H, W) = {shape}",
                    expected=f"(C, H, W) = {expected}", do="leave the data alone while training, and start again",
                )
        classes = self.labels.encode(values, fact.mask)
        if source.nodata is not None:
            classes[unmeasured(image, source.nodata)] = IGNORE_INDEX
            image = filled(image, source.nodata, np.divide(fact.sums, max(fact.measured, 1)))
        return image, classes


def _layout(fact: FileFacts) -> Layout:
    size = fact.height, fact.width
    return (fact.dtype, (fact.channels, *size)), (np.int16, size)


def _size(fact: FileFacts) -> int:
    """Bytes of the decoded pair."""
    return fact.height * fact.width * (fact.channels * np.dtype(fact.dtype).itemsize + np.dtype(np.int16).itemsize)


def _how_many(facts: Sequence[FileFacts], limit: int) -> int:
    """Of how many pairs, from the first on, the bytes stay within a limit."""
    return bisect_right(list(accumulate(map(_size, facts))), limit)
