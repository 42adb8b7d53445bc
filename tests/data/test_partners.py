"""Names that differ in spelling only are brought together; ambiguous ones are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepmap.data.partners import likely_partners


def partners(images: str, masks: str) -> list[tuple[str, str]]:
    ours, theirs = ([Path(side) / name for name in names.split()] for side, names in (("i", images), ("m", masks)))
    return [(a.name, b.name) for a, b in likely_partners(ours, Path("i"), theirs, Path("m"))]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("Cell_A.png", "cell_a.png"),
        ("scan-007.jpg", "scan_7_mask.png"),
        ("image_12.png", "label_12.png"),
        ("a.jpg", "a.jpg.png"),
        ("cafe\u0301.png", "CAF\u00c9_GT.png"),
        ("aachen_1_leftImg8bit.png", "aachen_1_gtFine_labelIds.png"),
        ("sub/x.png", "sub/X_seg.png"),
    ],
)
def test_the_same_in_other_words(image: str, mask: str) -> None:
    assert partners(image, mask) == [(Path(image).name, Path(mask).name)]


@pytest.mark.parametrize(
    ("images", "masks"),
    [("a.png", "b.png"), ("a1.png", "a2.png"), ("A.png", "a_mask.png a_gt.png"), ("x.png X.png", "x_gt.png"),
     ("mask.png", "image.png"), ("s/x.png", "t/x.png")],
)  # fmt: skip
def test_what_is_another_name_or_not_unique_stays_alone(images: str, masks: str) -> None:
    assert partners(images, masks) == []
