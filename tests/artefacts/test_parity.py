"""What parity measures, with functions in place of networks, and what it is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.artefacts.parity import AGREEMENT, IOU_LOST, TOLERANCE, Sides, measure_parity
from keepmap.artefacts.pictures import Pictures
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.pairing import Pair
from keepmap.options import ImageOptions
from keepmap.protocols import Silent
from keepmap.runtime.exported import ExportedRuntime
from keepmap.runtime.manifest import Manifest

LABELS = LabelSet((0, 1), ("dark", "light"), None, default_colours(2))
NOTHING = Pictures((), (), ImageOptions())
MANIFEST = Manifest(
    "unet", {}, "", "", 1, "grey", "uint8", LABELS, (0.0,), 1, (0, 0), True, 0, 4.0, "float32", (), 20, 10, {}
)


def runtime(threshold: float, scale: float = 1.0) -> ExportedRuntime:
    """Light is what is above the threshold."""

    def compute(x: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full_like(x, threshold), x * np.float32(scale)], 1)

    return ExportedRuntime(MANIFEST, compute, name="", precision="float32", share=1.0)


def measured(export: ExportedRuntime, pictures: Pictures = NOTHING, *, int8: bool = False, used=None):
    original = runtime(99.5)
    images = [np.arange(200, dtype=np.float32).reshape(1, 1, 10, 20), np.full((1, 1, 1, 1), 7, np.float32)]
    sides = Sides(original, original, export, used or export)
    return measure_parity(sides, ("float32", "used"), images, pictures, LABELS, int8=int8, progress=Silent())


def test_equal_is_within() -> None:
    parity = measured(runtime(99.5))
    assert (parity.difference, parity.agreement, parity.within) == (0.0, 1.0, True)
    assert [row.size for row in parity.exact] == [(10, 20), (1, 1)]
    assert min(parity.rates) > 0
    assert parity.mean_iou is None


@pytest.mark.parametrize("scale", [1 + 0.5 * TOLERANCE, 1 + 3 * TOLERANCE])
def test_difference_is_of_the_largest_logit(scale: float) -> None:
    parity = measured(runtime(99.5, scale))
    assert parity.exact[0].difference == pytest.approx(scale - 1, rel=0.1)
    assert parity.within == (scale < 1 + TOLERANCE)


def test_values_that_are_no_numbers_are_never_within() -> None:
    assert not measured(runtime(float("nan"))).within


def test_int8_is_judged_by_labels_and_by_scores_where_there_are_masks(tmp_path: Path) -> None:
    near, far = runtime(101.5), runtime(130.5)
    for export, within in ((near, True), (far, False)):
        parity = measured(runtime(99.5), int8=True, used=export)
        assert parity.within is within
        assert (parity.agreement >= AGREEMENT) is within
    image = np.arange(250, dtype=np.uint8).reshape(10, 25)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray((image > 99).astype(np.uint8)).save(tmp_path / "m.png")
    pictures = Pictures((), (Pair("a", tmp_path / "a.png", tmp_path / "m.png"),), ImageOptions())
    parity = measured(runtime(99.5), pictures, int8=True, used=near)
    assert parity.mean_iou is not None
    assert parity.mean_iou[0] == 1.0
    assert parity.mean_iou[1] == pytest.approx((100 / 102 + 148 / 150) / 2)
    assert not parity.within
    assert str(IOU_LOST) in parity.tolerance
    assert measured(runtime(99.5), pictures, int8=True).within
