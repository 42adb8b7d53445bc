"""A thumbnail is a small picture in a data URL, or nothing."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.data.labels import LabelSet
from keepmap.reporting.thumbnails import SIDE, image_thumbnail, mask_thumbnail

LABELS = LabelSet((0, 1), ("background", "cell"), 255, ((10, 20, 30), (200, 100, 0)))


def opened(url: str | None) -> np.ndarray:
    assert url is not None
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2]))))


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (900, 3), (400, 300), (170, 170), (2000, 1500)])
def test_any_size_is_made_to_fit(tmp_path: Path, shape: tuple[int, int]) -> None:
    Image.fromarray(np.full((*shape, 3), 90, np.uint8)).save(tmp_path / "a.png")
    picture = opened(image_thumbnail(tmp_path / "a.png"))
    assert SIDE / 2 <= max(picture.shape[:2]) <= 2 * SIDE
    assert abs(int(picture.mean()) - 90) <= 2


def test_masks_have_the_colours_of_their_classes(tmp_path: Path) -> None:
    values = np.kron([[0, 1], [255, 7]], np.ones((84, 84))).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    picture = opened(mask_thumbnail(tmp_path / "m.png", LABELS))
    corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert [tuple(c) for c in corners.tolist()] == [(10, 20, 30), (200, 100, 0), (150,) * 3, (226, 40, 60)]
    assert opened(mask_thumbnail(tmp_path / "m.png", None)).shape == (SIDE, SIDE, 3)


def test_what_cannot_be_read_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    assert image_thumbnail(tmp_path / "a.png") is None
    assert mask_thumbnail(tmp_path / "a.png", LABELS) is None
