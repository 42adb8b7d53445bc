"""The contact sheet shows the very crops that the first steps draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keepmap.data.augment import Augmentation
from keepmap.data.drawn import draw_dataset
from keepmap.data.overlay import contact_sheet
from keepmap.data.sampling import Sampler, rare_first
from keepmap.data.scan import scan
from keepmap.data.store import SampleStore
from keepmap.errors import OptionError, OutputError
from keepmap.protocols import Silent
from keepmap.training.batches import Batches
from keepmap.training.preview import check_preview, write_preview

HOW = Augmentation(
    scale=(0.7, 1.4),
    upright=False,
    invert=0.1,
    gain=0.2,
    shift=8.0,
    value_range=(0.0, 255.0),
    fill=(9.0, 9.0, 9.0),
    padding=7,
    rotation=(0.5, 30.0),
)


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    folder = tmp_path_factory.mktemp("data")
    draw_dataset(folder, count=3, seed=0)
    report = scan(folder / "images", folder / "masks", class_names=None, ignore="auto", progress=Silent())
    assert report.labels is not None
    store = SampleStore(report.facts, report.labels, 10**9)
    return Batches(store, Sampler(3, 6, 4, rare_first(report.facts, report.labels, rate=0.5)), 32, HOW)


def test_the_crops_are_those_of_the_first_steps(batches: Batches, tmp_path: Path) -> None:
    labels = batches.store.labels
    write_preview(batches, labels, "uint8", tmp_path / "new" / "sheet.png")
    drawn = [batches.draw(step) for step in range(3)]
    x = np.concatenate([np.asarray(x) for x, _ in drawn])[:16].round().astype(np.uint8)
    y = np.concatenate([np.asarray(y) for _, y in drawn])[:16]
    notes = []
    for n in range(16):
        place = divmod(n, 6)
        wanted = batches.sampler.wanted(*place)
        around = "" if wanted is None else f"around {labels.names[wanted]}"
        notes.append((batches.store.facts[batches.sampler.image(*place)].stem, around))
        assert wanted is None or n % 2
    sheet = contact_sheet(list(x), list(y), notes, labels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "sheet.png")), sheet)


def test_a_picture_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"sheet\.jpg is no PNG"):
        check_preview(tmp_path / "sheet.jpg")
    (tmp_path / "sheet.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_preview(tmp_path / "sheet.png")
