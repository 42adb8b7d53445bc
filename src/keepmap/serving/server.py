"""The process that serves: its folder, its socket, its signals, and what it says when it starts.

Knows nothing of images; `app` does the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from keepmap import external
from keepmap.errors import OptionError, OutputError
from keepmap.inference.predictor import Predictor
from keepmap.options import TOKEN, ServeOptions, parse_size, parse_time
from keepmap.protocols import Progress
from keepmap.serving.app import Service, make_app
from keepmap.serving.card import model_card
from keepmap.serving.connections import HEAD_BYTES, PURPOSE, protocol
from keepmap.serving.decoder import FORMATS
from keepmap.serving.engine import Engine, Limits
from keepmap.serving.guard import Guard, Rules, allowed_hosts, is_loopback
from keepmap.serving.jobs import Jobs
from keepmap.serving.metrics import Metrics
from keepmap.serving.turns import InTurn, check_together
from keepmap.training.lock import held
from keepmap.weights.download import cache_folder

GRACE = 30.0
"""Seconds that requests and the running job have to end when the server is stopped."""
_IDLE = 15
"""Seconds that a connection stays open between two requests."""


@dataclass
class Server:
    """A server that listens. address: of the page. `run` returns when it was stopped, by a signal or by `stop`."""

    address: str
    _socket: socket.socket
    _uvicorn: Any

    def run(self) -> None:
        """Serve until the end: requests that run are answered, a job that does not end goes on in the next process."""
        with self._socket:
            self._uvicorn.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let `run` end, from any thread."""
        self._uvicorn.should_exit = True

    @property
    def started(self) -> bool:
        """Whether requests are taken."""
        return bool(self._uvicorn.started)


def serve_model(path: Path, load: Callable[[], Predictor], options: ServeOptions, progress: Progress) -> None:
    """Serve the model that `load` loads from `path` until a signal comes. Raises OptionError, OutputError, RunError."""
    with opened(path, load, options, progress) as server:
        server.run()
        progress.say("stopped")


@contextlib.contextmanager
def opened(
    path: Path, load: Callable[[], Predictor], options: ServeOptions, progress: Progress
) -> Iterator[Server]:
    """A server that is about to `run`; its folder is locked for as long as the block lasts."""
    options = replace(options, token=options.token or os.environ.get(TOKEN) or None)
    listening = _listen(options)
    folder = Path(options.state) if options.state else _default_folder(path, options)
    with contextlib.closing(listening), _locked(folder, progress):
        requests = folder / "requests"
        shutil.rmtree(requests, ignore_errors=True)
        requests.mkdir(mode=0o700)
        try:
            yield _server(path, load, options, progress, (folder, listening))
        finally:  # what was kept for a port that was not chosen is found by no later server
            shutil.rmtree(requests if options.state or options.port else folder, ignore_errors=True)


def _server(
    path: Path,
    load: Callable[[], Predictor],
    options: ServeOptions,
    progress: Progress,
    place: tuple[Path, socket.socket],
) -> Server:
    uvicorn: Any = external.load("uvicorn", PURPOSE)
    folder, listening = place
    port = listening.getsockname()[1]
    with ThreadPoolExecutor(1) as thread:  # OpenMP keeps threads for each that computed; too many slow all of them
        predictor = thread.submit(load).result()
        runtime, metrics = predictor.runtime, Metrics()
        found = thread.submit(check_together, runtime, predictor.dtype or "uint8").result()
    turns = InTurn(runtime)
    turns.together = frozenset(key for key, why in found.items() if not why)
    predictor.runtime = turns
    engine = Engine(predictor, turns, _limits(options), metrics)
    batches = {f"{key[2]}x{key[3]}": why or "together" for key, why in found.items()}
    card = {**model_card(path, predictor, runtime), "takes": _takes(options), "batches": batches}
    jobs = Jobs(folder / "jobs", engine, parse_time(options.keep, "--keep"))
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{port}/" + _shown(options.token)
    announce = partial(_announce, options, address, batches, progress)
    service = Service(engine, jobs, folder / "requests", card, GRACE, announce)
    app = Guard(make_app(service), _rules(options, port), metrics)
    seconds = parse_time(options.receive, "--receive")
    config = uvicorn.Config(
        app, http=protocol(options.connections, seconds), loop="asyncio", ws="none", lifespan="on", log_config=None,
        log_level="error", access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=int(GRACE), h11_max_incomplete_event_size=HEAD_BYTES,
    )  # fmt: skip
    return Server(address, listening, _quiet(uvicorn.Server)(config))


def _shown(token: str | None) -> str:
    """The token as a part of the address; one of the environment is for no eyes."""
    return f"#token={token}" if token and token != os.environ.get(TOKEN) else ""


def _quiet(base: Any) -> Any:
    """uvicorn's server with signals that end it and are not raised again: to be stopped is no failure."""

    class Quiet(base):  # type: ignore[misc]
        """One server."""

        should_exit: bool

        def handle_exit(self, *_: object) -> None:
            """End after what runs; asked a second time, at once."""
            self.force_exit = self.should_exit
            self.should_exit = True

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Let SIGINT and SIGTERM end the server, a second one at once."""
            before = {}
            with contextlib.suppress(ValueError):  # not the main thread: `stop` ends it
                before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    return Quiet


def _limits(options: ServeOptions) -> Limits:
    if options.queue < 1 or options.connections < 1:
        raise OptionError("--queue and --connections cannot be less than 1.")
    return Limits(
        options.max_pixels, max(options.max_pixels, options.max_job_pixels),
        parse_time(options.decode_time, "--decode-time"), int(parse_size(options.decode_memory, "--decode-memory")),
        options.queue,
    )  # fmt: skip


def _rules(options: ServeOptions, port: int) -> Rules:
    bodies = {
        "/v1/predict": int(parse_size(options.max_bytes, "--max-bytes")),
        "/v1/jobs": int(parse_size(options.max_job_bytes, "--max-job-bytes")),
    }
    hosts = allowed_hosts(options.host, options.names, port)
    return Rules(bodies, parse_time(options.receive, "--receive"), options.token or None, hosts)


def _takes(options: ServeOptions) -> dict[str, Any]:
    return {
        "formats": FORMATS, "bytes": int(parse_size(options.max_bytes, "--max-bytes")), "pixels": options.max_pixels,
        "job_bytes": int(parse_size(options.max_job_bytes, "--max-job-bytes")), "job_pixels": options.max_job_pixels,
    }  # fmt: skip


def _listen(options: ServeOptions) -> socket.socket:
    if not 0 <= options.port < 65536:
        raise OptionError(f"--port {options.port} cannot be.", expected="0 (any free one) to 65535")
    try:
        kind = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host.strip("[]"), options.port), family=kind, backlog=128)
    except OSError as error:
        raise OptionError(
            f"{options.host}:{options.port} cannot be listened on.", found=error.strerror or str(error),
            do="choose another --port or --host",
        ) from error


def _default_folder(path: Path, options: ServeOptions) -> Path:
    """Where jobs of this model at this address lie between two processes; with a port that is not chosen, its own."""
    port = options.port or f"any, process {os.getpid()}"
    name = hashlib.sha256(f"{path.resolve()} {options.host} {port}".encode()).hexdigest()[:16]
    return cache_folder() / "serve" / name


@contextlib.contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made.", found=str(error), do="choose another --state") from error
    strange = sorted({path.name for path in folder.iterdir()} - {"jobs", "requests", ".lock"})
    if strange:
        raise OptionError(
            f"{folder} holds other files.", found=strange[0], expected="an empty folder, or one of a server before",
            do="choose another --state: what it does not know is swept there",
        )
    refused = f"Another server keeps its jobs in {folder}.", "choose another --state"
    with held(folder / ".lock", progress, refused):
        yield


def _announce(options: ServeOptions, address: str, batches: dict[str, str], progress: Progress) -> None:
    for size, why in batches.items():
        progress.say(f"batches {size}: " + ("four at once" if why == "together" else f"one by one, {why}"))
    if not is_loopback(options.host) and not options.token:
        progress.say("")
        progress.say(f"WARNING {options.host} is reached from the network, and there is no --token or {TOKEN}:")
        progress.say("WARNING whoever reaches this machine can use the model and its processor.")
        progress.say("")
    progress.say(f"serving {address}")
    progress.say("        Ctrl-C ends it after what runs")
