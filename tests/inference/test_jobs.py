"""What is written for each input, and what is refused before anything is."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepmap.errors import DataError, OutputError
from keepmap.inference.jobs import Failure, failed, plan_outputs
from keepmap.options import PredictOptions


def save(path: Path) -> Path:
    """An input; nothing opens it here."""
    path.touch()
    return path


def test_everything_has_its_name_beside_the_mask(tmp_path) -> None:
    options = PredictOptions(overlay=True, polygons=True, probabilities=True, coarse=True)
    ((job,), failures) = plan_outputs([save(tmp_path / "x.tif")], tmp_path / "out", options)
    names = ["x.tif", "x_overlay.png", "x.geojson", "x.npy", "x_coarse.npy"]
    assert [path.name for path in job.outputs] == names
    assert not failures



def test_an_overlay_must_not_take_the_name_of_a_mask(tmp_path) -> None:
    inputs = [save(tmp_path / "x.png"), save(tmp_path / "x_overlay.jpg")]
    assert len(plan_outputs(inputs, tmp_path / "out")[0]) == 2
    with pytest.raises(OutputError, match=r"x_overlay\.png"):
        plan_outputs(inputs, tmp_path / "out", PredictOptions(overlay=True))


def test_a_folder_in_place_of_a_mask_is_found_first(tmp_path) -> None:
    (tmp_path / "out" / "x.png").mkdir(parents=True)
    with pytest.raises(OutputError, match="is a folder"):
        plan_outputs([save(tmp_path / "x.png")], tmp_path / "out")


def test_the_module_knows_how_many_failures_it_shows() -> None:
    failures = [Failure(Path(f"{i}.png"), DataError(f"{i}.png is broken.")) for i in range(9)]
    text = str(failed(failures, 10))
    assert "4.png is broken" in text
    assert "5.png" not in text
    assert "and 4 more" in text
