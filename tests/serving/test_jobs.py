"""Jobs go on after a restart, whatever the last process left; they can be stopped, and go when they are old."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from keepmap.config import to_dict, write_json
from keepmap.errors import OutputError
from keepmap.serving import engine, jobs, server
from keepmap.serving.jobs import FORMAT, TRIES, Job, Jobs
from keepmap.serving.metrics import Metrics
from keepmap.serving.refusals import Refusal
from keepmap.serving.tickets import Ticket
from keepmap.serving.wishes import Wish

DONE, OLD, HALF, NEWER, DEADLY = (letter * 32 for letter in "abcde")


def leave(folder: Path, job: Job, upload: Path) -> None:
    """What a process that was killed in the middle of a job leaves behind."""
    (folder / "jobs" / job.id / "work").mkdir(parents=True)
    (folder / "jobs" / job.id / "work" / "pixels").write_bytes(b"half")
    shutil.copy(upload, folder / "jobs" / job.id / "upload")
    write_json(folder / "jobs" / job.id / "job.json", to_dict(job), format=FORMAT)


def until_ended(client: Any, number: str) -> dict[str, Any]:
    for _ in range(1000):
        told: dict[str, Any] = json.loads(client("GET", f"/v1/jobs/{number}")[2])
        if told["ended"]:
            return told
        time.sleep(0.02)
    pytest.fail("the job does not end")


def test_a_killed_job_is_done_by_the_next_process_and_kept_for_the_one_after(
    run: Path, serve: Any, images: Path, masks: Path, tmp_path: Path
) -> None:
    leave(tmp_path, Job(DONE, Wish(), time.time()), images / "e.tif")
    leave(tmp_path, Job(OLD, Wish(), 1.0, "done", 2.0, "mask.png", "image/png"), images / "a.png")
    (tmp_path / "jobs" / HALF).mkdir()
    (tmp_path / "jobs" / HALF / "upload").write_bytes(b"half")
    leave(tmp_path, Job(NEWER, Wish(), 1.0), images / "a.png")
    write_json(tmp_path / "jobs" / NEWER / "job.json", {"what": "a later version writes"}, format=FORMAT + 1)
    leave(tmp_path, Job(DEADLY, Wish(), time.time(), begun=TRIES), images / "a.png")
    with serve(run, tmp_path) as client:
        assert until_ended(client, DONE)["state"] == "done"
        assert "in the middle of this job" in until_ended(client, DEADLY)["error"]["summary"]
        assert client("DELETE", f"/v1/jobs/{DEADLY}")[0] == 204
        assert client("GET", f"/v1/jobs/{OLD}")[0] == client("GET", f"/v1/jobs/{HALF}")[0] == 404
    assert {path.name for path in (tmp_path / "jobs").iterdir()} == {DONE, NEWER}
    assert (tmp_path / "jobs" / NEWER / "upload").read_bytes() == (images / "a.png").read_bytes()
    assert {path.name for path in (tmp_path / "jobs" / DONE).iterdir()} == {"job.json", "mask.tif"}
    with serve(run, tmp_path) as client:
        assert client("GET", f"/v1/jobs/{DONE}/result")[2] == (masks / "e.tif").read_bytes()


def test_a_server_that_is_stopped_in_the_middle_of_a_job_does_not_count_as_dead(
    run: Path, serve: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    def endless(*arguments: Any) -> Any:
        begun.set()
        while True:
            next(a for a in arguments if isinstance(a, Ticket)).check()
            time.sleep(0.01)

    monkeypatch.setattr(engine, "write_answer", endless)
    monkeypatch.setattr(server, "GRACE", 0.1)
    with serve(run, tmp_path) as client:
        job = json.loads(client("POST", "/v1/jobs", (images / "a.png").read_bytes())[2])
        assert begun.wait(10)
        stored = json.loads((tmp_path / "jobs" / job["id"] / "job.json").read_text())
        assert (stored["state"], stored["begun"]) == ("queued", 1)
    stored = json.loads((tmp_path / "jobs" / job["id"] / "job.json").read_text())
    assert (stored["state"], stored["begun"]) == ("queued", 0)


def test_a_job_that_has_ended_does_not_run(tmp_path: Path) -> None:
    found = Jobs(tmp_path, SimpleNamespace(metrics=Metrics()), 1.0)  # type: ignore[arg-type]
    found._jobs[DONE], found._running = Job(DONE, Wish(), 1.0, "done", 2.0), (DONE, Ticket())
    assert found.get(DONE).state == "done"


def test_an_upload_takes_a_place_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "KEPT", 1)
    found = Jobs(tmp_path, SimpleNamespace(metrics=Metrics()), 1.0)  # type: ignore[arg-type]
    with found.receiving() as slow, found.receiving() as fast:
        found.add(fast, Wish())
        with pytest.raises(Refusal, match="too many jobs"):
            found.add(slow, Wish())
        with pytest.raises(Refusal, match="too many jobs"), found.receiving():
            pass
    assert [path.name for path in tmp_path.iterdir()] == [fast.name]


def test_a_large_image_is_a_job_and_a_bad_one_fails_with_words(strict: Any, tmp_path: Path) -> None:
    pixels = np.zeros((70, 70, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression="zlib", rowsperstrip=16)
    body = (tmp_path / "a.tif").read_bytes()
    assert strict("POST", "/v1/predict", body)[0] == 422
    job = json.loads(strict("POST", "/v1/jobs", body)[2])
    assert until_ended(strict, job["id"])["state"] == "done"
    job = json.loads(strict("POST", "/v1/jobs", b"no image at all")[2])
    assert strict("GET", f"{job['status']}/result")[0] == 409
    told = until_ended(strict, job["id"])
    assert (told["state"], "not taken" in told["error"]["summary"]) == ("failed", True)


def test_a_full_disk_at_the_end_of_a_job_does_not_end_the_jobs(
    ask: Any, images: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, values: Any, *, format: int) -> None:  # noqa: A002
        if values["ended"]:
            raise OutputError("no room")
        write_json(path, values, format=format)

    monkeypatch.setattr(jobs, "write_json", full)
    for name in ("a.png", "b.jpg"):
        job = json.loads(ask("POST", "/v1/jobs", (images / name).read_bytes())[2])
        assert until_ended(ask, job["id"])["state"] == "done"
        assert ask("GET", f"{job['status']}/result")[2] == (masks / name).with_suffix(".png").read_bytes()
        ask("DELETE", job["status"])


def test_a_running_job_is_stopped(
    ask: Any, images: Path, monkeypatch: pytest.MonkeyPatch, masks: Path
) -> None:
    tickets = []

    def endless(*arguments: Any) -> Any:
        tickets.append(next(a for a in arguments if isinstance(a, Ticket)))
        while True:
            tickets[-1].check()
            time.sleep(0.01)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_answer", endless)
        job = json.loads(ask("POST", "/v1/jobs", (images / "a.png").read_bytes())[2])
        while not tickets:
            time.sleep(0.01)
        assert json.loads(ask("GET", job["status"])[2])["state"] == "running"
        assert ask("DELETE", job["status"])[0] == 204
        while not tickets[0].cancelled:
            time.sleep(0.01)
    job = json.loads(ask("POST", "/v1/jobs", (images / "e.tif").read_bytes())[2])
    until_ended(ask, job["id"])
    assert ask("GET", f"/v1/jobs/{job['id']}/result")[2] == (masks / "e.tif").read_bytes()
