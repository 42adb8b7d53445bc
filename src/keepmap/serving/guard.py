"""What every request has to pass: host, origin, token, bytes counted as they come and time; what every answer carries.

Knows ASGI and nothing of images.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from keepmap.errors import OptionError
from keepmap.resources import Stopwatch
from keepmap.serving.metrics import Metrics
from keepmap.serving.refusals import JSON, Refusal, as_refusal, body_of, refusal
from keepmap.units import in_bytes

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

RATE = 100_000
"""Bytes a second that a request has to keep up on average once its time is over."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_METHODS = ("GET", "POST", "DELETE")
"""Those that are counted by name: a client may make up any number of others."""
_OPEN = ("/", "/healthz", "/readyz")
"""Paths that need no token: the page asks for it, a supervisor has none."""
_LINGER = 2.0
"""Seconds for which what a refused client still sends is thrown away, so that it can read why."""
_SMALL = 1 << 16
"""Bytes of a body that is no upload."""
_SAFE = {
    b"x-content-type-options": b"nosniff", b"x-frame-options": b"DENY", b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin", b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()", b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}  # fmt: skip
"""Headers of an answer that has none of the same name."""


@dataclass(frozen=True)
class Rules:
    """What is let through.

    bodies: path -> most bytes of its body. seconds: to send a request, before which its rate does not count. token:
    None where there is none. hosts: names by which the server may be called; empty: any.
    """

    bodies: Mapping[str, int]
    seconds: float
    token: str | None
    hosts: frozenset[str]


class Guard:
    """ASGI middleware around `app`; see the head of this file. metrics: told of every answer."""

    def __init__(self, app: App, rules: Rules, metrics: Metrics) -> None:
        self._app, self._rules, self._metrics = app, rules, metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._rules.bodies.get(scope["path"], _SMALL) if scope["method"] == "POST" else _SMALL
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"range"]  # answers are sent whole
        request = _Request(scope, receive, send, limit, self._rules.seconds)
        try:
            self._admit(request)
            await self._app(scope, request.receive, request.send)
        except asyncio.CancelledError:  # the server ends and does not wait for this request
            await request.end()
        except Exception as error:  # noqa: BLE001  (the next request has nothing to do with it)
            if not request.gone:
                await request.refuse(as_refusal(error))
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count("keepmap_requests_total", status=str(request.status or 499), method=method)
            self._metrics.count("keepmap_received_bytes_total", request.received)

    def _admit(self, request: _Request) -> None:
        """Raise Refusal for whom nothing is done."""
        rules, headers = self._rules, request.headers
        host = headers.get("host", "")
        if rules.hosts and _split(f"//{host}").hostname not in {name.strip("[]") for name in rules.hosts}:
            raise refusal(403, "The server is not known by this name.", found=host, expected=", ".join(rules.hosts))
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc not in {host, *rules.hosts}:
            raise refusal(403, "Pages of other sites are not answered.", found=origin, do="call from your own program")
        if rules.token is not None and request.scope["path"] not in _OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode("latin-1"), rules.token.encode()):
                raise refusal(
                    401, "A token is needed.", found="another one" if given else "none",
                    expected="Authorization: Bearer TOKEN", WWW_Authenticate="Bearer",
                )  # fmt: skip
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > request.limit:
            raise too_long(request.limit)


def _split(address: str) -> SplitResult:
    """The parts of an address; none of one that is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        return SplitResult("", "", "", "", "")


def too_long(limit: int) -> Refusal:
    """The refusal of a body of more than `limit` bytes."""
    return refusal(
        413, "The request is too long.", expected=f"at most {in_bytes(limit)}",
        do="send a smaller file, or a large one as a job",
    )


class _Request:
    """One request as it goes through: what was received of it, and whether it is answered."""

    def __init__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send, limit: int, seconds: float
    ) -> None:
        self.scope, self.limit, self.received, self.status, self.gone = scope, limit, 0, 0, False
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._receive, self._send, self._seconds = receive, send, seconds
        self._watch = Stopwatch()
        length = self.headers.get("content-length", "0")
        self._whole = "transfer-encoding" not in self.headers and length == "0"

    async def receive(self) -> Message:
        """The next message, counted. Raises Refusal for too many bytes and for too few."""
        if self._whole:
            message = await self._receive()
            self.gone = self.gone or message["type"] == "http.disconnect"
            return message
        left = self._seconds + self.received / RATE - self._watch.seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.01))
        except TimeoutError:
            raise refusal(
                408, "The request did not arrive in time.", found=in_bytes(self.received),
                expected=f"all of it in {self._seconds:g} s, or {RATE // 1000} kB a second",
            ) from None  # fmt: skip
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        self.gone = message["type"] == "http.disconnect"
        self.received += len(message.get("body", b""))
        if self.received > self.limit:
            raise too_long(self.limit)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, with the headers that all have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            given = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _SAFE.items() if name not in given]
            if not self._whole:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and not self._whole:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        """Throw away what still comes, for a moment: a connection closed at once would take the answer with it."""
        watch = Stopwatch()
        while not self._whole and watch.seconds < _LINGER:
            try:
                message = await asyncio.wait_for(self._receive(), max(_LINGER - watch.seconds, 0.01))
            except TimeoutError:
                return
            self._whole = message["type"] != "http.request" or not message.get("more_body", False)

    async def end(self) -> None:
        """Answer that the server ends, without taking what still comes."""
        self._whole = True
        await self.refuse(refusal(503, "The server was stopped.", do="try again later", Retry_After="5"))

    async def refuse(self, refused: Refusal) -> None:
        """Answer with an error, if nothing was answered yet."""
        if self.status:
            return
        body = body_of(refused)
        headers = {"content-type": JSON, "content-length": str(len(body)), **refused.headers}
        listed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refused.status, "headers": listed})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})


def allowed_hosts(host: str, names: str | None, port: int) -> frozenset[str]:
    """The names that a server on `host` may be called by: its own if nobody else reaches it, and `names`.

    Empty, which means any, where the whole network reaches it and no names are given. Raises OptionError.
    """
    given = [name.strip().lower() for name in (names or "").split(",") if name.strip()]
    if any("/" in name for name in given):
        raise OptionError(f"--names {names} cannot be read.", expected="host names with commas, such as maps.example")
    own = [*LOOPBACK, host] if is_loopback(host) else []
    if not own and not given:
        return frozenset()
    return frozenset([*own, *given, *(f"{name}:{port}" for name in own)])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")
