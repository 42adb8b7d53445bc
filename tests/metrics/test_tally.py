"""What is kept of each image, and what is left out above a size or without a unit."""

from __future__ import annotations

import numpy as np
import pytest

from keepmap.metrics import surfaces
from keepmap.metrics.surfaces import hausdorff95, outline_distances
from keepmap.metrics.tally import Extra, Judging, Tally

NAMES = ("background", "cell")


def square(shift: int = 0, size: int = 20):
    plane = np.zeros((size, size), np.int16)
    plane[5:11, 5 + shift : 11 + shift] = 1
    return plane


def tally_of(*pairs, judging: Judging = Judging(), extra: Extra = Extra()) -> Tally:  # noqa: B008
    tally = Tally(NAMES, judging)
    for number, (truth, prediction) in enumerate(pairs):
        tally.add(str(number), truth, prediction, extra)
    return tally


def test_region_alone_counts_pixels_alone() -> None:
    counts = tally_of((square(), square(2)), judging=Judging(shapes=False)).counts()
    assert set(counts) == {"region"}
    assert counts["region"].tolist() == [[[400 - 48, 400 - 36, 400 - 36], [24, 36, 36]]]


def test_background_has_no_objects() -> None:
    assert tally_of((square(), square())).counts()["objects"].tolist() == [[[0, 0, 0], [1, 1, 1]]]


def test_tolerance_is_that_of_the_surface_dice_alone() -> None:
    narrow, wide = (tally_of((square(), square(2)), judging=Judging(tolerance=t)).counts() for t in (0.0, 2.0))
    assert np.array_equal(narrow["boundary"], wide["boundary"])
    assert narrow["surface"][0, 1].tolist() == [20, 8, 20, 8]
    assert wide["surface"][0, 1].tolist() == [20, 20, 20, 20]


def test_a_large_image_has_the_same_boundaries_and_no_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tally_of((square(), square(1)))
    monkeypatch.setattr(surfaces, "DISTANCE_PIXELS", 399)
    monkeypatch.setattr(surfaces, "_BLOCK", 7)
    large = tally_of((square(), square(1)), extra=Extra(spacing=(1.0, 1.0), unit="micrometer"))
    assert (whole.large, large.large) == (0, 1)
    for name in ("boundary", "surface", "objects"):
        assert np.array_equal(whole.counts()[name], large.counts()[name])
    assert np.isnan(large.counts()["distances"]).all()


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (2.0, 0.5)])
def test_units_of_the_files(spacing) -> None:
    tally = tally_of((square(), square(2)), extra=Extra(spacing=spacing, unit="micrometer"))
    expected = hausdorff95(outline_distances(square(), square(2), 2, spacing)[1])
    assert tally.unit == "micrometer"
    assert tally.counts()["area"][0, 1].tolist() == [36 * spacing[0] * spacing[1]] * 2
    assert tally.counts()["physical"][0, 1, 0] == pytest.approx(expected)
    tally.add("other", square(), square(), Extra(spacing=(1.0, 1.0), unit="inch"))
    assert tally.unit == "" and {"physical", "area"}.isdisjoint(tally.counts())
    assert "physical" not in tally_of((square(), square())).counts()


def test_rows_do_not_grow_with_the_image() -> None:
    small, large = (tally_of((square(size=n), square(size=n))).rows[0] for n in (20, 200))
    assert {n: v.nbytes for n, v in small.items()} == {n: v.nbytes for n, v in large.items()}
