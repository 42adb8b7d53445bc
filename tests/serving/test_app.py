"""The contract of the API: what each route answers, the very bytes of the command line, and words for every error."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keepmap.serving import app, engine

NAMES = ["a.png", "b.jpg", "c.webp", "d.bmp", "e.tif", "f.ome.tif"]


def png(height: int, width: int, channels: int = 3) -> bytes:
    shape = (height, width) if channels == 1 else (height, width, channels)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(height).integers(0, 256, shape, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def without_ids(content: bytes) -> bytes:
    """A file without the number that each OME-TIFF draws for itself."""
    return re.sub(rb"urn:uuid:[0-9a-f-]{36}", b"", content)


def error_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str]]:
    assert answer[1]["content-type"] == "application/json"
    return answer[0], json.loads(answer[2])["error"]


# The bytes of the command line.


@pytest.mark.parametrize("name", NAMES)
def test_mask_is_that_of_the_command_line(name: str, ask: Any, form: Any, images: Path, masks: Path) -> None:
    body, headers = form((images / name).read_bytes(), name)
    status, told, content = ask("POST", "/v1/predict", body, headers)
    suffix = ".tif" if name.endswith("tif") else ".png"
    assert (status, told["content-type"]) == (200, "image/tiff" if suffix == ".tif" else "image/png")
    assert without_ids(content) == without_ids((masks / name).with_suffix(suffix).read_bytes())


def test_bare_body_and_probabilities(ask: Any, images: Path, masks: Path) -> None:
    body = (images / "a.png").read_bytes()
    assert ask("POST", "/v1/predict", body)[2] == (masks / "a.png").read_bytes()
    answer = ask("POST", "/v1/predict", body, {"Accept": "application/x-npy"})
    assert answer[2] == (masks / "a.npy").read_bytes()


def test_eight_at_once_get_the_same_bytes(ask: Any, images: Path, masks: Path) -> None:
    def one(number: int) -> bool:
        name = NAMES[number % 4]
        content = ask("POST", "/v1/predict", (images / name).read_bytes())[2]
        return bool(content == (masks / name).with_suffix(".png").read_bytes())

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(24)))


def test_tiff_of_a_png_and_png_of_a_tiff(ask: Any, images: Path, masks: Path) -> None:
    def pixels(path: str, wanted: str) -> Any:
        content = ask("POST", f"/v1/predict?as={wanted}", (images / path).read_bytes())[2]
        return np.asarray(Image.open(io.BytesIO(content)))

    assert np.array_equal(pixels("a.png", "tiff"), np.asarray(Image.open(masks / "a.png")))
    assert np.array_equal(pixels("e.tif", "png"), np.asarray(Image.open(masks / "e.tif")))


def test_json_tells_the_same(ask: Any, form: Any, images: Path, masks: Path) -> None:
    body, headers = form((images / "e.tif").read_bytes(), "e.tif", shapes="runs", include="mask,preview")
    status, _, content = ask("POST", "/v1/predict?as=json", body, headers)
    told = json.loads(content)
    assert status == 200
    assert base64.b64decode(told["mask"]["base64"]) == (masks / "e.tif").read_bytes()
    truth = np.asarray(Image.open(masks / "e.tif")) > 0
    runs = told["runs"]
    assert np.array_equal(np.repeat(runs["indices"], runs["lengths"]).reshape(33, 45), truth)
    assert [row["pixels"] for row in told["classes"]] == [truth.size - truth.sum(), truth.sum()]
    assert told["classes"][1]["area"] == pytest.approx(truth.sum() * (1 / 20000) ** 2)
    assert told["classes"][1]["area_unit"] == "centimeter^2"
    assert Image.open(io.BytesIO(base64.b64decode(told["preview"]["base64"]))).size == (45, 33)
    polygons = json.loads(ask("POST", "/v1/predict?as=json&shapes=polygons", (images / "e.tif").read_bytes())[2])
    assert sum(f["properties"]["area_px"] for f in polygons["polygons"]["features"]) == truth.sum()


def test_a_long_answer_is_all_that_is_kept_while_it_is_sent(
    ask: Any, images: Path, masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[list[str]] = []

    def sent(answer: Any, afterwards: Any) -> Any:
        kept.append([path.name for path in answer.path.parent.iterdir()])
        return real(answer, afterwards)

    real = app._file
    monkeypatch.setattr(app, "_AT_ONCE", 0)
    monkeypatch.setattr(app, "_file", sent)
    assert ask("POST", "/v1/predict", (images / "a.png").read_bytes())[2] == (masks / "a.png").read_bytes()
    assert kept == [["mask.png"]]


# Words for every error.


@pytest.mark.parametrize(
    ("query", "body", "status", "words"),
    [
        ("", b"", 400, "holds no image"),
        ("", b"GIF89a" + bytes(40), 415, "format that is not taken"),
        ("", b"hello", 415, "format that is not taken"),
        ("", png(9, 9, 4), 422, "The image has transparent pixels"),
        ("", png(9, 9, 1), 422, "The image has 1 channel"),
        ("", png(9, 9)[:-30], 422, "The image is damaged"),
        ("?as=jpg", png(9, 9), 400, "as=jpg does not exist"),
        ("?size=3", png(9, 9), 400, "The parameter size does not exist"),
        ("?frame=-1", png(9, 9), 400, "frame=-1 cannot be"),
    ],
)
def test_error(ask: Any, query: str, body: bytes, status: int, words: str) -> None:
    found, error = error_of(ask("POST", f"/v1/predict{query}", body))
    assert (found, words in error["summary"]) == (status, True), error
    assert "/" not in error["summary"] + error.get("found", "")


def test_no_such_answer_address_or_method(ask: Any) -> None:
    assert error_of(ask("POST", "/v1/predict", png(9, 9), {"Accept": "text/html"}))[0] == 406
    assert error_of(ask("GET", "/v1/nothing"))[0] == 404
    refused = ask("PUT", "/v1/jobs/a")
    assert (error_of(refused)[0], refused[1]["allow"]) == (405, "DELETE, GET")
    assert error_of(ask("GET", "/v1/model/"))[0] == 404


def test_what_fails_is_told_as_json_too(ask: Any, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "write_answer", lambda *_: 1 / 0)
    status, error = error_of(ask("POST", "/v1/predict", (images / "a.png").read_bytes()))
    assert (status, error["do"]) == (500, "look into its log")


@pytest.mark.parametrize("name", ["../../x.png", "/etc/passwd", "a\\..\\b.png", "CON", "%2e%2e%2fx", "x" * 1500])
def test_no_name_becomes_a_path(ask: Any, form: Any, images: Path, masks: Path, name: str) -> None:
    body, headers = form((images / "a.png").read_bytes(), name)
    assert ask("POST", "/v1/predict", body, headers)[2] == (masks / "a.png").read_bytes()


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/v1/jobs/..%2f..%2fx", "/v1/jobs/%00/result"])
def test_no_address_becomes_a_path(ask: Any, path: str) -> None:
    assert ask("GET", path)[0] == 404


def test_fuzzed_images_leave_it_answering(ask: Any, images: Path, masks: Path) -> None:
    random = np.random.default_rng(0)
    statuses = set()
    for number in range(24):
        content = bytearray((images / NAMES[number % 5]).read_bytes())
        for place in random.integers(0, len(content), 1 + number // 4):
            content[place] = random.integers(256)
        statuses.add(ask("POST", "/v1/predict", bytes(content[: random.integers(8, len(content) + 1)]))[0])
    assert statuses <= {200, 415, 422}
    assert ask("POST", "/v1/predict", (images / "a.png").read_bytes())[2] == (masks / "a.png").read_bytes()


# The other routes.


def test_card_tells_what_is_served(ask: Any) -> None:
    card = json.loads(ask("GET", "/v1/model")[2])
    assert (card["name"], card["network"], card["channels"], card["precision"]) == ("cells", "unet", 3, "float32")
    assert [row["value"] for row in card["classes"]] == [0, 255]


def test_alive_ready_measured_described(ask: Any) -> None:
    assert [ask("GET", path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
    text = ask("GET", "/metrics")[2].decode()
    assert "keepmap_ready 1" in text and 'keepmap_step_seconds_count{step="predict"}' in text
    paths = json.loads(ask("GET", "/v1/openapi.json")[2])["paths"]
    assert {"/v1/predict", "/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/result", "/v1/model"} <= set(paths)
    operation = paths["/v1/predict"]["post"]
    assert operation["responses"]["200"]["content"]["application/json"]["example"]["classes"]
    assert operation["responses"]["422"]["content"]["application/json"]["example"]["error"]["do"]


def test_job_from_upload_to_result(ask: Any, images: Path, masks: Path) -> None:
    status, headers, content = ask("POST", "/v1/jobs", (images / "e.tif").read_bytes())
    job = json.loads(content)
    assert (status, headers["location"]) == (202, job["status"])
    while job["state"] in ("queued", "running"):
        time.sleep(0.02)
        job = json.loads(ask("GET", job["status"])[2])
    assert (job["state"], job["progress"]) == ("done", 1.0)
    for wanted in ({}, {"Range": "bytes=9-1"}):  # always whole
        assert ask("GET", job["result"], headers=wanted)[2] == (masks / "e.tif").read_bytes()
    assert ask("DELETE", job["status"])[0] == 204
    assert ask("GET", job["status"])[0] == 404


def test_client_that_goes_away_is_counted_and_the_next_answered(ask: Any, images: Path, masks: Path) -> None:
    body = (images / "a.png").read_bytes()

    def gone() -> float:
        lines = ask("GET", "/metrics")[2].decode().splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("keepmap_cancelled_total "))

    before = gone()
    with socket.create_connection(("127.0.0.1", ask.port)) as client:
        client.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        client.sendall(body)
    assert ask("POST", "/v1/predict", body)[2] == (masks / "a.png").read_bytes()
    assert gone() - before in (0, 1)  # 0 where the answer was there first


def test_client_that_goes_away_while_it_sends_is_no_failure(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", ask.port)) as client:
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc")
        time.sleep(0.2)
    tries = iter(range(100))
    while 'status="499"' not in (text := ask("GET", "/metrics")[2].decode()) and next(tries, None) is not None:
        time.sleep(0.05)
    assert 'status="499"' in text and not caplog.records
