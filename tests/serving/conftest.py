"""A RUN of a tiny network, and servers of it that listen, once for all tests; and what asks them."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import keepmap
from keepmap.data.labels import LabelSet, default_colours
from keepmap.external import available
from keepmap.networks.catalogue import build_network
from keepmap.options import ServeOptions
from keepmap.protocols import Silent
from keepmap.runs import RunConfig, RunFolder, write_tensors
from keepmap.serving import engine, guard, server

collect_ignore_glob = [] if available("fastapi") else ["test_*.py"]  # pip install '.[serve]'

LABELS = LabelSet((0, 255), ("background", "cell"), None, default_colours(2))


@dataclass
class Client:
    """Asks a server on this machine; one connection for each request."""

    port: int
    token: str = ""

    def __call__(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case and content of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        with contextlib.closing(connection):
            connection.request(method, path, body, {**given, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def make_form(content: bytes, name: str = "a.png", **fields: str) -> tuple[bytes, dict[str, str]]:
    """A multipart body with one file, and the header that goes with it."""
    boundary = "b0"
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n')
    body = "".join(parts).encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@pytest.fixture(scope="session")
def form() -> Any:
    return make_form


@pytest.fixture(scope="session")
def serve() -> Any:
    return serving


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = RunFolder(tmp_path_factory.mktemp("served") / "cells")
    torch.manual_seed(0)
    network = build_network("unet", channels=3, classes=2, options={"widths": (4, 8)})
    network.set_normalisation([100.0] * 3, [60.0] * 3)
    folder.create()
    folder.write_config(RunConfig("unet", {"widths": [4, 8]}, 3, "uint8", LABELS, "0.1.0"))
    write_tensors(folder.model_file, network.state_dict())
    return folder.path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.png, b.jpg, c.webp, d.bmp, e.tif and f.ome.tif, each of another size, the TIFFs with a pixel size."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number, suffix in enumerate(("png", "jpg", "webp", "bmp")):
        coarse = random.integers(0, 256, (5, 6, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((40 + number, 31 + number), Image.Resampling.BICUBIC)
        picture.save(folder / f"{'abcd'[number]}.{suffix}")
    for name in ("e.tif", "f.ome.tif"):
        tifffile.imwrite(
            folder / name, random.integers(0, 256, (33, 45, 3), np.uint8), photometric="rgb", compression="zlib",
            resolution=(20000, 20000), resolutionunit="CENTIMETER", ome=False,
        )
    return folder


@pytest.fixture(scope="session")
def masks(run: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `keepmap predict` makes of `images`, probabilities too."""
    folder = tmp_path_factory.mktemp("masks")
    keepmap.predict(run, images, folder, precision="float32", probabilities=True)
    return folder


@contextlib.contextmanager
def serving(run: Path, state: Path, **options: Any) -> Iterator[Client]:
    """A server in a thread of its own, with one decoder and no check of batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "check_together", lambda *_: {})
        patch.setattr(engine, "_DECODERS", 1)
        patch.setattr(guard, "_LINGER", 0.3)
        settings = ServeOptions(port=0, state=str(state), precision="float32", **options)
        load = partial(keepmap.load, run, precision="float32")
        with server.opened(run, load, settings, Silent()) as opened:
            thread = threading.Thread(target=opened.run)
            thread.start()
            while not opened.started and thread.is_alive():
                time.sleep(0.01)
            try:
                yield Client(int(opened.address.rpartition(":")[2].split("/")[0]), options.get("token") or "")
            finally:
                opened.stop()
                thread.join()


@pytest.fixture(scope="session")
def ask(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with its usual limits, but for a receive time of 5 s."""
    with serving(run, tmp_path_factory.mktemp("state"), receive="5s") as client:
        yield client


@pytest.fixture(scope="session")
def strict(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server with a token and small limits."""
    limits: dict[str, Any] = {
        "token": "secret", "receive": "0.4s", "max_bytes": "20K", "max_job_bytes": "40K", "queue": 1,
        "connections": 3, "max_pixels": 3000, "max_job_pixels": 6000,
    }  # fmt: skip
    with serving(run, tmp_path_factory.mktemp("strict"), **limits) as client:
        yield client
