"""What a job that goes on takes up, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepmap.data.sinks import hidden_file
from keepmap.errors import OutputError, RunError
from keepmap.inference.jobs import Job
from keepmap.inference.record import NAME, Record, State
from keepmap.inference.way import Position, Way
from keepmap.options import PredictOptions

ABOUT = {"run": "run"}
ASKED = PredictOptions(smallest_object=3)
AGAIN = PredictOptions(smallest_object=3, resume=True)
WAY = Way("bands", (64, 32), ((0, 0), (4, 8)), 2, True, "because", 16)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for name in ("x.tif", "mask.tif", "p.npy"):
        (tmp_path / name).write_bytes(b"1")
    return Job(tmp_path / "x.tif", tmp_path / "mask.tif", probabilities=tmp_path / "p.npy")


def test_an_image_that_is_whole_is_known_until_it_or_its_outputs_change(tmp_path, job) -> None:
    Record(tmp_path, ABOUT, ASKED).add(job, [("a", 1, 0.5)])
    assert Record(tmp_path, ABOUT, AGAIN).finished(job) == [("a", 1, 0.5)]
    job.mask.write_bytes(b"other")
    assert Record(tmp_path, ABOUT, AGAIN).finished(job) is None
    again = Record(tmp_path, ABOUT, AGAIN)
    again.add(job, [])
    job.image.write_bytes(b"another")
    assert Record(tmp_path, ABOUT, AGAIN).finished(job) is None
    job.image.unlink()
    assert Record(tmp_path, ABOUT, AGAIN).finished(job) is None
    assert Record(tmp_path, ABOUT, ASKED).finished(job) is None


def test_a_line_that_was_cut_short_is_left_out(tmp_path, job) -> None:
    record = Record(tmp_path, ABOUT, ASKED)
    record.add(job, [])
    with (tmp_path / NAME).open("a") as file:
        file.write('{"image": "y')
    record = Record(tmp_path, ABOUT, AGAIN)
    assert record.finished(job) == []
    first, _ = (tmp_path / NAME).read_text().splitlines()
    assert json.loads(first)["options"]["smallest_object"] == 3


def test_a_record_that_was_cut_short_in_its_first_line_is_begun_anew(tmp_path, job) -> None:
    Record(tmp_path, ABOUT, ASKED).add(job, [])
    whole = (tmp_path / NAME).read_text().splitlines()[0]
    for length in (0, 1, 9, len(whole) // 2, len(whole) - 1):
        (tmp_path / NAME).write_text(whole[:length])
        record = Record(tmp_path, ABOUT, AGAIN)
        record.add(job, [])
        assert Record(tmp_path, ABOUT, AGAIN).finished(job) == []


def test_something_else_is_refused_by_its_name(tmp_path, job) -> None:
    record = Record(tmp_path, ABOUT, ASKED)
    assert not (tmp_path / NAME).exists()
    record.add(job, [])
    with pytest.raises(OutputError, match=r"(?s)prediction\.jsonl is of another.*smallest_object 3.*smallest_object 4"):
        Record(tmp_path, ABOUT, PredictOptions(smallest_object=4, resume=True))
    with pytest.raises(OutputError, match=r"run: run"):
        Record(tmp_path, {"run": "other"}, AGAIN)
    (tmp_path / NAME).write_text("no record")
    with pytest.raises(RunError, match="not what keepmap predict writes"):
        Record(tmp_path, ABOUT, AGAIN)
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        Record(tmp_path, ABOUT, ASKED)


def test_lines_of_the_same_prediction_stay_and_those_of_another_go(tmp_path, job) -> None:
    Record(tmp_path, ABOUT, ASKED).add(job, [("a",)])
    other = Job(tmp_path / "y.tif", tmp_path / "y mask.tif")
    for path in (other.image, other.mask):
        path.write_bytes(b"2")
    second = Record(tmp_path, ABOUT, ASKED)
    assert second.finished(job) is None and not second.replaces
    for _ in range(2):
        second.add(other, [("b",)])
    third = Record(tmp_path, ABOUT, AGAIN)
    assert (third.finished(job), third.finished(other)) == ([("a",)], [("b",)])
    assert len((tmp_path / NAME).read_text().splitlines()) == 3
    assert Record(tmp_path, {"run": "other"}, ASKED).replaces
    assert not (tmp_path / NAME).exists()
    (tmp_path / NAME).write_text("no record")
    with pytest.raises(RunError, match="not what keepmap predict writes"):
        Record(tmp_path, ABOUT, ASKED)
    assert (tmp_path / NAME).read_text() == "no record"


def test_how_far_an_image_is(tmp_path, job) -> None:
    state = State(WAY, Position(1, 48), 1000, [[0.1, 2.0, 3.0]])
    Record(tmp_path, ABOUT, ASKED).save(job, state)
    record = Record(tmp_path, ABOUT, AGAIN)
    assert record.begun(job) is None  # without its pixels
    for path in (job.mask, job.probabilities):
        hidden_file(path).touch()
    assert record.begun(job) == state
    assert Record(tmp_path, ABOUT, ASKED).begun(job) is None
    file = next(tmp_path.glob(".*.state"))
    text = file.read_text()
    for broken in ("", text[:-9], text.replace("tiles", "tils"), text.replace('"written": 1000', '"written": "x"')):
        file.write_text(broken)
        assert record.begun(job) is None
    file.write_text(text)
    job.image.write_bytes(b"another")
    assert record.begun(job) is None
    record.forget(job)
    assert not file.exists()
