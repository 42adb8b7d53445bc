"""What is put into a scratch file comes back, in forked processes too, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from keepmap.data.scratch import Scratch

LAYOUTS = [(("uint8", (3, 5, 7)), (np.int16, (5, 7))), (("float32", (1, 2, 9)), (np.int16, (2, 9)))]


def arrays(seed: int) -> list[tuple[np.ndarray, ...]]:
    random = np.random.default_rng(seed)
    return [tuple(random.integers(0, 99, shape).astype(dtype) for dtype, shape in layout) for layout in LAYOUTS]


def equal(found: tuple[np.ndarray, ...] | None, expected: tuple[np.ndarray, ...]) -> bool:
    assert found is not None
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


def test_what_is_put_comes_back_and_no_name_is_left(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, LAYOUTS)
    assert scratch.get(0) is None
    one, other = arrays(0)
    scratch.put(1, other)
    assert scratch.get(0) is None
    scratch.put(0, [one[0][:, ::-1][:, ::-1], one[1]])
    found = scratch.get(0)
    assert equal(found, one) and equal(scratch.get(1), other)
    assert found is not None and not found[0].flags.writeable
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_child_puts_its_parent_gets(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, LAYOUTS)
    child = os.fork()
    if not child:
        scratch.put(0, arrays(3)[0])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert equal(scratch.get(0), arrays(3)[0])


@pytest.mark.skipif(sys.platform == "win32", reason="writes to the map there")
def test_a_full_disk_is_an_error_and_nothing_was_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    scratch = Scratch(tmp_path, LAYOUTS)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        scratch.put(0, arrays(0)[0])
    assert scratch.get(0) is None
