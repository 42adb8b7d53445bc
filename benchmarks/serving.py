"""What a server bears: speed beside a plain loop, memory, malformed requests, a crowd, and kills in the middle of jobs.

usage: python benchmarks/serving.py [throughput memory malformed crowd killed] [--run RUN] [--scale 1.0]
Each part writes a result of its own, so that one that was stopped goes on with the next. Without --run the default
network with random weights is served: its speed is that of a trained one. --scale multiplies counts and seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

import keepmap
from common import write_result
from keepmap.data.labels import LabelSet, default_colours
from keepmap.data.sinks import open_sink
from keepmap.networks.catalogue import build_network
from untrained import save_run

SIDE = 512
CLIENTS = (1, 4, 16)
ROUND = 8.0
"""Seconds of one round of requests, or of the plain loop."""
ROUNDS = 3
REQUESTS, MALFORMED, CROWD, KILLS = 2000, 500, 32, 5
RECEIVE = 2.0
"""Seconds that the server of the malformed requests gives them."""
LABELS = LabelSet((0, 255), ("background", "cell"), None, default_colours(2))


def make_run(folder: Path) -> Path:
    """A RUN of the default network with random weights."""
    torch.manual_seed(0)
    options = {"encoder": "efficientnet_lite0"}
    network = build_network("encoder_unet", channels=3, classes=2, options=options)
    network.set_normalisation([127.0] * 3, [128.0] * 3)
    return save_run(folder / "run", network, LABELS).path


def picture(side: int, seed: int, kind: str = "PNG") -> bytes:
    """An image of blots with a little noise, as a file."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (side // 16, side // 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    buffer = io.BytesIO()
    noisy = np.clip(smooth + random.integers(-3, 4, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(buffer, kind)
    return buffer.getvalue()


@dataclass
class Served:
    """A server in a process of its own."""

    port: int
    process: subprocess.Popen[str]

    def client(self) -> http.client.HTTPConnection:
        """A connection that is kept."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and content, over a connection for this request."""
        with contextlib.closing(self.client()) as client:
            client.request(method, path, body)
            answer = client.getresponse()
            return answer.status, answer.read()

    def resident(self) -> int:
        """Bytes that its process holds, by its own metrics."""
        lines = self.ask("GET", "/metrics")[1].decode().splitlines()
        return int(float(next(line.split()[1] for line in lines if line.startswith("keepmap_resident_bytes "))))


@contextlib.contextmanager
def served(run: Path, state: Path, *options: str) -> Iterator[Served]:
    """`keepmap serve` on a free port, until the block ends."""
    words = [sys.executable, "-m", "keepmap", "serve", str(run), "--port", "0", "--state", str(state), *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = process.stdout or iter(())
            address = next(line for line in lines if line.startswith("serving "))
            yield Served(int(address.rpartition(":")[2].strip().rstrip("/")), process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout and process.stdout.read()


def rate_of(work: Callable[[int], object], seconds: float) -> float:
    """How often a second `work` is done, called with 0, 1, 2, ..."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        work(count)
        count += 1
    return count / (time.perf_counter() - start)


def load(server: Served, bodies: Sequence[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
    """Requests a second of so many clients that each ask again at once, and the seconds of each request."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    def one(number: int) -> None:
        with contextlib.closing(server.client()) as client:
            while time.perf_counter() < end:
                start = time.perf_counter()
                client.request("POST", "/v1/predict", bodies[number % len(bodies)])
                answer = client.getresponse()
                if answer.status != 200 or not answer.read():
                    raise RuntimeError(f"a good request was answered with {answer.status}")
                times.append(time.perf_counter() - start)
                number += 1

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(one, range(clients)))
    return len(times) / (time.perf_counter() - start), times


def throughput(run: Path, folder: Path, scale: float) -> dict[str, Any]:
    """Requests a second and their latency, beside the predictor in a plain loop and beside the loop of `predict`."""
    bodies = [picture(SIDE, seed) for seed in range(8)]
    images = [np.asarray(Image.open(io.BytesIO(body))) for body in bodies]
    predictor = keepmap.load(run)

    def with_files(number: int) -> None:
        image = np.asarray(Image.open(io.BytesIO(bodies[number % 8])))
        with open_sink(folder / "mask.png", (SIDE, SIDE), np.uint8) as sink:
            sink.write((slice(0, SIDE), slice(0, SIDE)), predictor(image))

    seconds = ROUND * scale
    rates: dict[str, list[float]] = {"loop": [], "files": [], **{str(n): [] for n in CLIENTS}}
    times: dict[int, list[float]] = {n: [] for n in CLIENTS}
    with served(run, folder / "state") as server:
        rate_of(lambda n: predictor(images[n % 8]), 1.0)
        load(server, bodies, 4, 1.0)
        for _ in range(ROUNDS):
            for clients in CLIENTS:
                rates["loop"].append(rate_of(lambda n: predictor(images[n % 8]), seconds / 2))
                rate, found = load(server, bodies, clients, seconds)
                rates[str(clients)].append(rate)
                times[clients] += found
            rates["files"].append(rate_of(with_files, seconds / 2))
        card = json.loads(server.ask("GET", "/v1/model")[1])
    middle = {name: float(np.median(found)) for name, found in rates.items()}
    return {
        "side": SIDE, "rates": rates, "rate": middle, "batches": card["batches"], "precision": card["precision"],
        "share": {name: middle[name] / middle["loop"] for name in middle if name != "loop"},
        "latency": {str(n): [float(p) for p in np.percentile(t, (50, 90, 99))] for n, t in times.items()},
    }  # fmt: skip


def memory(run: Path, folder: Path, scale: float) -> dict[str, Any]:
    """Memory of the server over many requests of several sizes from four clients."""
    bodies = [picture(side, side, kind) for side in (256, 320, 512) for kind in ("PNG", "JPEG", "TIFF")]
    count = max(20, round(REQUESTS * scale))
    done, held = 0, []
    with served(run, folder / "state") as server, ThreadPoolExecutor(4) as threads:
        while done < count:
            step = min(count - done, max(1, count // 10))
            answers = threads.map(lambda n: server.ask("POST", "/v1/predict", bodies[n % 9]), range(step))
            statuses = {status for status, _ in answers}
            if statuses != {200}:
                raise RuntimeError(f"good requests were answered with {statuses}")
            done += step
            held.append(server.resident())
            print(f"  {done} requests, {held[-1] / 2**20:.0f} MiB", flush=True)
    return {"requests": done, "resident": held, "growth_after_the_first_tenth": held[-1] / held[0] - 1}


# Malformed requests: each gives the status that it was answered with, 0 where there was none.


def raw(server: Served, parts: Sequence[bytes], pause: float = 0.0) -> int:
    """The status that bytes are answered with; the rest is not sent to who does not take it any more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        with contextlib.suppress(OSError):
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
        answer = b""
        with contextlib.suppress(OSError):
            while b"\r\n" not in answer and (part := client.recv(4096)):
                answer += part
    words = answer.split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def head(length: int | None, *more: str) -> bytes:
    """The head of a request for a mask."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join(["POST /v1/predict HTTP/1.1", "Host: localhost", size, *more, "", ""]).encode()


def in_form(content: bytes, name: str, parts: int = 0) -> bytes:
    """A request with a form: so many fields, then a file."""
    field = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'
    file = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
    body = field * parts + file + content + b"\r\n--b--\r\n"
    return head(len(body), "Content-Type: multipart/form-data; boundary=b") + body


def fuzzed(random: np.random.Generator) -> bytes:
    """A file that is cut short or, where its format notices, has flipped bits."""
    kind = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")[random.integers(5)]
    content = bytearray(picture(96, int(random.integers(1000)), kind))
    if kind == "PNG" and random.integers(2):
        for place in random.integers(60, len(content) - 20, 4):
            content[place] ^= 1 << int(random.integers(8))
        return bytes(content)
    return bytes(content[: int(len(content) * random.uniform(0.05, 0.8))])


def malformed_request(number: int, server: Served) -> tuple[str, int]:
    """One malformed request: what it was, and the status of its answer."""
    random = np.random.default_rng(number)
    bad, good = fuzzed(random), picture(96, 1)
    names = ("../../../etc/passwd", "/etc/shadow", "..\\..\\a.png", "CON", "a\0b.png")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    kinds: list[tuple[str, Callable[[], int]]] = [
        ("fuzzed", lambda: raw(server, [head(len(bad)) + bad])),
        ("fuzzed", lambda: raw(server, [in_form(bad, "a.png")])),
        ("traversal name", lambda: raw(server, [in_form(bad, names[number // 10 % 5])])),
        ("traversal path", lambda: server.ask("GET", f"/v1/jobs/..%2f..%2f{number}")[0]),
        ("length too long", lambda: raw(server, [head(len(good) + 999) + good])),
        ("length too short", lambda: raw(server, [head(len(good) // 2) + good])),
        ("no number", lambda: raw(server, [head(0).replace(b"Length: 0", b"Length: -4") + good])),
        ("too many parts", lambda: raw(server, [in_form(good, "a.png", 100_000)])),
        ("endless", lambda: raw(server, [head(None), *[chunk] * 3000])),
        ("slow", lambda: raw(server, [head(900), *[b"a"] * 100], 0.2)),
    ]
    name, work = kinds[number % len(kinds)]
    return name, work()


def malformed(run: Path, folder: Path, scale: float) -> dict[str, Any]:
    """Malformed requests from eight clients: what they were answered with, and whether a good one is answered then."""
    good = picture(SIDE, 0)
    answered: Counter[str] = Counter()
    with served(run, folder / "state", "--receive", f"{RECEIVE}s") as server, ThreadPoolExecutor(8) as threads:
        alone = server.ask("POST", "/v1/predict", good)
        count = max(20, round(MALFORMED * scale))
        right = 0
        for first in range(0, count, 20):
            found = threads.map(partial(malformed_request, server=server), range(first, min(count, first + 20)))
            answered.update(f"{name}: {status}" for name, status in found)
            right += server.ask("POST", "/v1/predict", good) == alone
        alive = server.process.poll() is None
    refused = sum(n for what, n in answered.items() if what.rpartition(" ")[2].startswith("4"))
    after = [right, -(-count // 20)]
    return {"tried": count, "refused": refused, "good_after": after, "alive": alive, "answers": dict(answered)}


def crowd(run: Path, folder: Path, scale: float) -> dict[str, Any]:
    """Clients that all ask at once, whose answers are compared with those of one alone."""
    bodies = [picture(side, seed) for seed, side in enumerate((256, 256, 300, 512))]
    rounds = max(1, round(10 * scale))
    with served(run, folder / "state") as server, ThreadPoolExecutor(CROWD) as threads:
        alone = [server.ask("POST", "/v1/predict", body) for body in bodies]
        barrier = threading.Barrier(CROWD)

        def one(number: int) -> bool:
            barrier.wait()
            return server.ask("POST", "/v1/predict", bodies[number % 4]) == alone[number % 4]

        same = sum(sum(threads.map(one, range(CROWD))) for _ in range(rounds))
    return {"clients": CROWD, "answers": CROWD * rounds, "same": same, "good": {s for s, _ in alone} == {200}}


def killed(run: Path, folder: Path, scale: float) -> dict[str, Any]:
    """Servers that are killed in the middle of a job: the next one ends it, with the bytes of `keepmap predict`."""
    side = 3000 if scale >= 1 else 1200
    image = np.asarray(Image.open(io.BytesIO(picture(side, 5))))
    tifffile.imwrite(folder / "large.tif", image, photometric="rgb", compression="zlib", tile=(256, 256))
    keepmap.predict(run, folder / "large.tif", folder / "truth", way="bands")
    truth, right, at = (folder / "truth" / "large.tif").read_bytes(), 0, []
    tries = max(1, round(KILLS * scale))
    for number in range(tries):
        state = folder / f"state{number}"
        with served(run, state, "--way", "bands") as server:
            job = json.loads(server.ask("POST", "/v1/jobs", (folder / "large.tif").read_bytes())[1])
            while job["progress"] < 0.1 * (1 + number) and job["state"] in ("queued", "running"):
                time.sleep(0.02)
                job = json.loads(server.ask("GET", job["status"])[1])
            at.append(job["progress"])
            os.kill(server.process.pid, signal.SIGKILL)
        with served(run, state, "--way", "bands") as server:
            while job["state"] != "done":
                time.sleep(0.1)
                job = json.loads(server.ask("GET", job["status"])[1])
                if job["state"] == "failed":
                    break
            right += server.ask("GET", job["status"] + "/result") == (200, truth)
    return {"tried": tries, "right": right, "killed_at": at, "side": side}


PARTS = {"throughput": throughput, "memory": memory, "malformed": malformed, "crowd": crowd, "killed": killed}


def main() -> None:
    """Measure, and write results/serving-PART.json for each part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            run = arguments.run or make_run(Path(folder))
            figures = PARTS[name](run, Path(folder), arguments.scale)
        print(f"{name}: {figures}", flush=True)
        write_result(f"serving-{name}", {"what": (PARTS[name].__doc__ or "").strip(), **figures})


if __name__ == "__main__":
    main()
