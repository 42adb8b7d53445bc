"""Which images look alike: a 64-bit hash of light and dark, and the pairs whose hashes differ in few bits.

Reads no file and does not say what alike images mean for a split.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

BITS = 64
_GRID = 8
_BLOCKS = 6
_CROWD = 64  # hashes that share a key and are compared each with each; in a larger crowd, only with the next ones


def edges(extent: int) -> npt.NDArray[np.intp]:
    """Where the 9 columns of the hash begin, in pixels of a side of `extent`."""
    return np.arange(_GRID + 1) * extent // (_GRID + 1)


def difference_hash(cells: npt.NDArray[np.float64], width: int) -> int:
    """64 bits: whether each of 8 x 8 fields of an image is darker than its right neighbour.

    cells: (H, 9), the sum of the pixels of each row from one of `edges(width)` to the next. Gain, offset and size of
    the image do not matter, but for rounding. Source: the "difference hash" of N. Krawetz, "Kind of Like That", 2013.
    """
    height = len(cells)
    fields = np.add.reduceat(cells, np.arange(_GRID) * height // _GRID, axis=0)
    fields /= np.maximum(np.diff(edges(width), append=width), 1)
    bits = fields[:, 1:] > fields[:, :-1]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def distance(one: int, other: int) -> int:
    """In how many bits two hashes differ, 0..64."""
    return (one ^ other).bit_count()


def alike_groups(hashes: Sequence[int], *, most: int) -> list[list[int]]:
    """Groups of two places or more in `hashes` that are linked by distances of at most `most` bits, 0 to 4.

    The 64 bits are cut into 6 blocks, of which two near hashes share 2 at least: only hashes that agree in some two
    blocks are compared. Where more than 64 agree, each is compared with the next 64 in ascending order, so that the
    time stays near n log n; among so many some links may be missed, of equal hashes none.
    """
    unique, place = np.unique(np.array(hashes, np.uint64), return_inverse=True)
    links = _Links(len(unique))
    for mask in _masks():
        order = np.lexsort((unique, unique & mask))
        keys, sorted_hashes = (unique & mask)[order], unique[order]
        for step in range(1, min(_CROWD, len(unique) - 1) + 1):
            same = keys[step:] == keys[:-step]
            if not same.any():
                break
            near = same & (np.bitwise_count(sorted_hashes[step:] ^ sorted_hashes[:-step]) <= most)
            for first in np.flatnonzero(near).tolist():
                links.join(int(order[first]), int(order[first + step]))
    groups: dict[int, list[int]] = {}
    for index, hash_place in enumerate(place.tolist()):
        groups.setdefault(links.root(hash_place), []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _masks() -> Iterator[np.uint64]:
    """The bits of every two of the six blocks."""
    cuts = [BITS * block // _BLOCKS for block in range(_BLOCKS + 1)]
    blocks = [(1 << high) - (1 << low) for low, high in itertools.pairwise(cuts)]
    for one, other in itertools.combinations(blocks, 2):
        yield np.uint64(one | other)


class _Links:
    """Which of n things are linked, directly or through others."""

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def root(self, thing: int) -> int:
        """The same thing for all that are linked."""
        while self._above[thing] != thing:
            self._above[thing] = self._above[self._above[thing]]
            thing = self._above[thing]
        return thing

    def join(self, one: int, other: int) -> None:
        """Link two things."""
        self._above[self.root(one)] = self.root(other)
