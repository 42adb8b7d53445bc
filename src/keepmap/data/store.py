"""Decoded image and mask pairs, kept in memory up to a limit and read again beyond it.

Does not crop, augment or batch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keepmap.data.facts import FileFacts
from keepmap.data.images import open_image
from keepmap.data.instances import read_objects
from keepmap.data.labels import IGNORE_INDEX, LabelSet
from keepmap.data.masks import read_mask
from keepmap.data.samples import filled, unmeasured
from keepmap.errors import DataError
from keepmap.options import ImageOptions
from keepmap.protocols import Array

Sample = tuple[Array, npt.NDArray[np.int16]]


class SampleStore:
    """The pairs of `facts` as arrays. Safe to read from several threads; no array may be written to.

    limit_bytes: memory for what is kept; the pairs that come first are kept, for good. reading: how files are read.
    Pixels that were never measured have the mean of their image and are ignored.
    """

    def __init__(
        self,
        facts: Sequence[FileFacts],
        labels: LabelSet,
        limit_bytes: int,
        reading: ImageOptions = ImageOptions(),  # noqa: B008
    ) -> None:
        self._reading = reading
        self.facts = tuple(facts)
        self.labels = labels
        self._limit = limit_bytes
        self._used = 0
        self._kept: dict[int, Sample] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def used_bytes(self) -> int:
        """Memory that the kept pairs take."""
        return self._used

    def get(self, index: int) -> Sample:
        """Image (C, H, W) in its own dtype and class indices (H, W) int16. Raises DataError if a file has changed."""
        sample = self._kept.get(index)
        if sample is None:
            sample = self._read(self.facts[index])
            size = sample[0].nbytes + sample[1].nbytes
            with self._lock:
                if index not in self._kept and self._used + size <= self._limit:
                    self._kept[index] = sample
                    self._used += size
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
