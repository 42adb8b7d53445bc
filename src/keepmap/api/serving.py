"""The verb that answers over HTTP.

Computes nothing itself: `serving` does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from keepmap.artefacts.loading import load_predictor
from keepmap.config import from_arguments
from keepmap.networks.candidate import Segmenter
from keepmap.options import Precision, ServeOptions, WantedWay
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.serving.server import serve_model


def serve(
    run: StrPath,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    names: str | None = None,
    state: str | None = None,
    queue: int = 64,
    connections: int = 128,
    receive: str = "20s",
    max_bytes: str = "100M",
    max_pixels: int = 100_000_000,
    max_job_bytes: str = "8G",
    max_job_pixels: int = 2_000_000_000,
    decode_time: str = "20s",
    decode_memory: str = "2G",
    keep: str = "24h",
    network: Segmenter | None = None,
    memory: str | None = None,
    way: WantedWay = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> None:
    """A page and an API for the model of a RUN or of an exported file; returns when SIGINT or SIGTERM ends it.

    The masks are those of `predict`, byte for byte. See docs/serving.md; network: as in `load`.
    Raises OptionError for an address that is taken, OutputError, RunError, ArtefactError, MissingPackage.
    """
    options = from_arguments(ServeOptions, locals())
    load = partial(load_predictor, Path(run), options, network)
    serve_model(Path(run), load, options, progress or Silent())
