"""Event files for TensorBoard: the figures of metrics.jsonl, and a few held-out images with what is predicted there.

Knows no training; metrics.jsonl stays the record, and keepmap never reads these files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keepmap import external
from keepmap.protocols import Array

FOLDER = "tensorboard"
"""Of a RUN: where the event files are."""
_VALIDATION = "validation_mean_iou"


def require_tensorboard() -> None:
    """Raise MissingPackage where it is not installed."""
    external.load("tensorboard", "--tensorboard")


class Board:
    """Writes figures as they come, and pictures with those of a validation.

    pictures: (name, (H, W, 3) uint8) of each, drawn when asked.
    """

    def __init__(self, folder: Path, pictures: Callable[[], Iterable[tuple[str, Array]]]) -> None:
        require_tensorboard()
        self._open = external.load("torch.utils.tensorboard", "--tensorboard").SummaryWriter
        self._folder = folder
        self._pictures = pictures
        self._writer: Any = None

    def add(self, figures: Mapping[str, object]) -> None:
        """Add one line of metrics.jsonl: its numbers, by their names, at its step. A later one of before is purged."""
        step = figures["step"]
        if self._writer is None:
            self._writer = self._open(str(self._folder), purge_step=step)
        for name, value in figures.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(name, value, step)
        if _VALIDATION in figures:
            for name, picture in self._pictures():
                self._writer.add_image(name, picture, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def board_in(run: Path, wanted: bool, pictures: Callable[[], Iterable[tuple[str, Array]]]) -> Iterator[Board | None]:
    """A Board on the RUN at `run`, closed in the end; None unless `wanted`."""
    board = Board(run / FOLDER, pictures) if wanted else None
    try:
        yield board
    finally:
        if board is not None:
            board.close()
