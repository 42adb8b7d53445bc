"""The routes of the API and the page, on FastAPI.

Knows HTTP; what an answer holds is decided further down. What a handler raises becomes a status and words.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepmap import __version__, external
from keepmap.resources import Stopwatch, resident_memory
from keepmap.serving import openapi
from keepmap.serving.answers import Answer
from keepmap.serving.connections import PURPOSE
from keepmap.serving.engine import Engine
from keepmap.serving.jobs import Jobs
from keepmap.serving.metrics import CONTENT_TYPE
from keepmap.serving.page import read_page
from keepmap.serving.receiving import is_form, receive
from keepmap.serving.refusals import JSON, as_refusal, body_of, encode, refusal
from keepmap.serving.tickets import Ticket
from keepmap.serving.wishes import Wish, read_wish

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

Handler = Callable[[Any, Any], Awaitable[Any]]
_AT_ONCE = 1 << 20
"""Bytes of an answer that is handed over in one piece, which a client has `connections.TAKING` to take."""
_GONE = 499
"""The status that is counted for a client that went away."""


@dataclass
class Service:
    """What the routes work with.

    folder: for uploads, private and empty. card: of the model. grace: seconds that a job has to end. announce: called
    when requests are taken, which `ready` says.
    """

    engine: Engine
    jobs: Jobs
    folder: Path
    card: dict[str, Any]
    grace: float
    announce: Callable[[], None]
    ready: bool = False


def make_app(service: Service) -> FastAPI:
    """The application; `service` starts and stops with it. Raises MissingPackage."""
    fastapi: Any = external.load("fastapi", PURPOSE)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await service.engine.start()
        await service.jobs.start()
        service.ready = True
        service.announce()
        try:
            yield
        except asyncio.CancelledError:  # the server ends without waiting
            return
        service.ready = False
        await service.jobs.stop(service.grace)
        await service.engine.close()

    app: FastAPI = fastapi.FastAPI(
        title="keepmap", version=__version__, description=openapi.ABOUT, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json", redirect_slashes=False,
    )  # fmt: skip
    for method, path, handler, told in ROUTES:
        plain = {"response_model": None, "response_class": fastapi.Response, "operation_id": handler.__name__}
        app.add_api_route(path, _endpoint(fastapi, service, handler), methods=[method], **plain, **told)
    for status in (404, 405):
        app.add_exception_handler(status, _nothing_here(fastapi, status))
    metrics = service.engine.metrics
    metrics.level("keepmap_ready", lambda: service.ready)
    metrics.level("keepmap_resident_bytes", lambda: resident_memory() or 0)
    return app


def _endpoint(fastapi: Any, service: Service, handler: Handler) -> Callable[..., Awaitable[Any]]:
    """A handler as FastAPI calls one, with every error as an answer."""
    gone: type[Exception] = external.load("starlette.requests", PURPOSE).ClientDisconnect

    async def endpoint(request: Any) -> Any:
        try:
            return await handler(service, request)
        except (ClientGone, gone):
            service.engine.metrics.count("keepmap_cancelled_total")
            return fastapi.Response(status_code=_GONE)
        except Exception as error:  # noqa: BLE001  (the next request has nothing to do with it)
            refused = as_refusal(error)
        return fastapi.Response(body_of(refused), refused.status, refused.headers, JSON)

    endpoint.__annotations__["request"] = fastapi.Request
    return endpoint


def _nothing_here(fastapi: Any, status: int) -> Callable[..., Any]:
    summary = {404: "There is nothing at this address.", 405: "The address does not take this method."}[status]

    def answer(request: Any, error: Any) -> Any:
        refused = refusal(status, summary, found=f"{request.method}", do="see /v1/openapi.json")
        here = [route for route in request.app.routes if route.path_regex.match(request.url.path)]
        allowed = {"allow": ", ".join(sorted(set().union(*(route.methods for route in here))))} if here else {}
        return fastapi.Response(body_of(refused), status, allowed, JSON)

    return answer


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def predict(service: Service, request: Request) -> Response:
    """One image to its answer. Where the client goes away, the work stops.

    A place in the queue is taken when the image is there: one that comes slowly keeps nobody else from it.
    """
    _require_ready(service)
    service.engine.require_place()
    room = tempfile.TemporaryDirectory(dir=service.folder, ignore_cleanup_errors=True)
    try:
        folder = Path(room.name)
        wish = await _upload(service, request, folder)
        with service.engine.place():
            answer = await until_gone(request, service.engine.answer(folder / "upload", folder, wish, Ticket()))
        if answer.path.stat().st_size > _AT_ONCE:
            for name in ("upload", "pixels"):  # a client that takes its answer slowly keeps no more than that
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
            return _file(answer, room.cleanup)
        content = answer.path.read_bytes()
    except BaseException:
        room.cleanup()
        raise
    room.cleanup()
    return _response(content, answer.media_type, {"content-disposition": _offered(answer)})


async def until_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """What `work` returns; it is cancelled where the client goes away. Raises ClientGone."""
    working, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _upload(service: Service, request: Request, folder: Path) -> Wish:
    """The body as the file `upload` in `folder`, and what is wished."""
    query, watch = dict(request.query_params), Stopwatch()
    kind, accept = request.headers.get("content-type", ""), request.headers.get("accept", "")
    read_wish(query, "" if is_form(kind) else accept)  # before a byte of the body is taken
    received = await receive(request.stream(), kind, folder / "upload")
    service.engine.metrics.observe("keepmap_step_seconds", watch.seconds, step="receive")
    return read_wish({**received.fields, **query}, accept, ome=received.ome)


async def create_job(service: Service, request: Request) -> Response:
    """Receive an image that is predicted later."""
    _require_ready(service)
    with service.jobs.receiving() as folder:
        job = service.jobs.add(folder, await _upload(service, request, folder))
    headers = {"location": f"/v1/jobs/{job.id}"}
    return _response(encode(service.jobs.as_json(job)), JSON, headers, 202)


async def show_job(service: Service, request: Request) -> Response:
    """How far a job is."""
    job = service.jobs.get(request.path_params["id"])
    return _response(encode(service.jobs.as_json(job)), JSON)


async def job_result(service: Service, request: Request) -> Response:
    """What a job made."""
    return _file(service.jobs.result(service.jobs.get(request.path_params["id"])), None)


async def delete_job(service: Service, request: Request) -> Response:
    """Stop a job and forget it."""
    service.jobs.delete(service.jobs.get(request.path_params["id"]))
    return _response(b"", JSON, status=204)


async def model(service: Service, _: Request) -> Response:
    """The model card."""
    return _response(encode(service.card), JSON)


async def healthy(_: Service, __: Request) -> Response:
    """That the process lives."""
    return _response(b'{"status":"alive"}', JSON)


async def readiness(service: Service, _: Request) -> Response:
    """Whether predictions are taken."""
    _require_ready(service)
    return _response(b'{"status":"ready"}', JSON)


async def measured(service: Service, _: Request) -> Response:
    """The metrics."""
    return _response(service.engine.metrics.text().encode(), CONTENT_TYPE)


async def page(_: Service, __: Request) -> Response:
    """The page."""
    content, policy = read_page()
    return _response(content, "text/html; charset=utf-8", {"content-security-policy": policy})


def _require_ready(service: Service) -> None:
    if not service.ready:
        raise refusal(503, "The server takes no predictions now.", do="try again in a moment", Retry_After="5")


def _response(content: bytes, media_type: str, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    responses: Any = external.load("fastapi", PURPOSE)
    response: Response = responses.Response(content, status, headers, media_type)
    return response


def _file(answer: Answer, afterwards: Callable[[], None] | None) -> Response:
    """A file as it lies there; `afterwards` is called when it is sent."""
    responses: Any = external.load("starlette.responses", PURPOSE)
    tasks: Any = external.load("starlette.background", PURPOSE)
    headers = {"content-disposition": _offered(answer), "accept-ranges": "none"}
    response: Response = responses.FileResponse(
        answer.path, media_type=answer.media_type, headers=headers,
        background=None if afterwards is None else tasks.BackgroundTask(afterwards),
    )  # fmt: skip
    return response


def _offered(answer: Answer) -> str:
    return f'attachment; filename="{answer.name}"'


ROUTES: tuple[tuple[str, str, Handler, dict[str, Any]], ...] = (
    ("GET", "/", page, {"include_in_schema": False}),
    ("POST", "/v1/predict", predict, openapi.PREDICT),
    ("POST", "/v1/jobs", create_job, openapi.CREATE_JOB),
    ("GET", "/v1/jobs/{id}", show_job, openapi.SHOW_JOB),
    ("DELETE", "/v1/jobs/{id}", delete_job, openapi.DELETE_JOB),
    ("GET", "/v1/jobs/{id}/result", job_result, openapi.JOB_RESULT),
    ("GET", "/v1/model", model, openapi.MODEL),
    ("GET", "/healthz", healthy, openapi.HEALTH),
    ("GET", "/readyz", readiness, openapi.READY),
    ("GET", "/metrics", measured, openapi.METRICS),
)
"""Method, path, handler and what the OpenAPI document says."""
