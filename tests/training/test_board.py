"""The board: every number of metrics.jsonl at its step, pictures with a validation; nothing without being asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keepmap import external
from keepmap.errors import MissingPackage
from keepmap.training.board import FOLDER, board_in

PICTURE = np.full((5, 7, 3), 200, np.uint8)


def events(run: Path) -> list[tuple[str, int, Any]]:
    """(name, step, number or None for a picture) of all event files, in the order of writing."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = []
    for file in sorted((run / FOLDER).iterdir()):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                is_number = value.metadata.plugin_data.plugin_name == "scalars"
                found.append((value.tag, event.step, value.tensor.float_val[0] if is_number else None))
    return found


def test_numbers_and_pictures_stand_at_their_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    asked: list[int] = []

    def pictures() -> list[tuple[str, np.ndarray]]:
        asked.append(1)
        return [("a", PICTURE)]

    with board_in(tmp_path, True, pictures) as board:
        assert board is not None
        board.add({"step": 2, "loss": 0.5, "seconds": 1.25})
        board.add({"step": 4, "skipped": ["x.png"], "loss": None})
        board.add({"step": 4, "validation_mean_iou": 0.75})
    assert len(asked) == 1
    expected = [("loss", 2, 0.5), ("seconds", 2, 1.25), ("validation_mean_iou", 4, 0.75), ("a", 4, None)]
    assert events(tmp_path) == expected


def test_unasked_there_is_none_and_nothing_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "available", lambda name: False)
    with board_in(tmp_path, False, list) as board:
        assert board is None
    assert not (tmp_path / FOLDER).exists()
    with pytest.raises(MissingPackage, match="--tensorboard needs the package tensorboard"), board_in(
        tmp_path, True, list
    ):
        pass
