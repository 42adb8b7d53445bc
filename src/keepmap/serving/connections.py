"""Connections that say or take nothing: so many at once, so long for the head of a request or a part of an answer.

Knows the protocol class of uvicorn, and nothing of what is asked.
"""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import Any

from keepmap import external
from keepmap.serving.refusals import JSON, Refusal, body_of, refusal

PURPOSE = "keepmap serve"
HEAD_BYTES = 16384
"""Bytes that the head of a request may have."""
TAKING = 60.0
"""Seconds in which a client has to take what was last sent to it."""


def _answer(refused: Refusal) -> bytes:
    """A refusal as it is written to a connection that is closed then."""
    body, status = body_of(refused), HTTPStatus(refused.status)
    headers = {"content-type": JSON, "content-length": str(len(body)), **refused.headers, "connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{head}\r\n".encode() + body


_SLOW = _answer(refusal(408, "The request did not arrive in time.", do="send it faster"))
_MANY = _answer(refusal(429, "Too many connections are open here.", do="try again in 5 s", Retry_After="5"))
_NONSENSE = _answer(refusal(400, "The request is not understood.", expected=f"HTTP/1.1, a head of {HEAD_BYTES} bytes"))


def protocol(most: int, seconds: float) -> type[Any]:
    """uvicorn's protocol over h11 for `most` connections at once, each with `seconds` for the head of a request.

    What is no HTTP is answered with 400, what is too slow with 408, who is too many with 429. Raises MissingPackage.
    """
    base: type[Any] = external.load("uvicorn.protocols.http.h11_impl", PURPOSE).H11Protocol
    return type("Protocol", (_Bounded, base), {"base": base, "most": most, "seconds": seconds})


class _Bounded:
    """What is added to uvicorn's protocol, of which `self` is one."""

    base: Any
    most: int
    seconds: float

    def connection_made(self: Any, transport: Any) -> None:
        """Begin to wait for a head, or refuse the connection."""
        self.base.connection_made(self, transport)
        self.waits = self.untaken = None
        transport.set_write_buffer_limits(0)
        if (sock := transport.get_extra_info("socket")) is not None:  # else an answer waits 40 ms for its head's ack
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.most:
            self.leave(_MANY)
        else:
            self.wait()

    def connection_lost(self: Any, exc: Exception | None) -> None:
        """Wait no more."""
        self.stop_waiting()
        self.stop_offering()
        self.base.connection_lost(self, exc)

    def data_received(self: Any, data: bytes) -> None:
        """Take some bytes; the time runs until they make a head."""
        if self.transport.is_closing():
            return
        before = self.cycle
        self.base.data_received(self, data)
        if self.cycle is not before:
            self.stop_waiting()

    def send_400_response(self: Any, _: str) -> None:
        """Refuse what is no HTTP; in the middle of an answer there is no place for words."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.leave(_NONSENSE)
        else:
            self.transport.abort()

    def on_response_complete(self: Any) -> None:
        """The next head has its own time."""
        self.base.on_response_complete(self)
        if not self.transport.is_closing() and self.waits is None:
            self.wait()

    def wait(self: Any) -> None:
        """Give the head its time from now on."""
        self.waits = self.loop.call_later(self.seconds, self.too_slow)

    def stop_waiting(self: Any) -> None:
        """The head is there, or the connection gone."""
        if self.waits is not None:
            self.waits.cancel()
            self.waits = None

    def too_slow(self: Any) -> None:
        """Close a connection without a head; with words where one was begun, or never."""
        self.waits = None
        if self.cycle is None or self.cycle.response_complete:
            self.leave(_SLOW if self.cycle is None or self.conn.trailing_data[0] else b"")

    def pause_writing(self: Any) -> None:
        """Bytes wait to be taken; a connection of whom does not is dropped: closed, it would wait for ever."""
        self.base.pause_writing(self)
        self.untaken = self.loop.call_later(TAKING, self.transport.abort)

    def resume_writing(self: Any) -> None:
        """All was taken."""
        self.stop_offering()
        self.base.resume_writing(self)

    def stop_offering(self: Any) -> None:
        """Nothing waits to be taken, or the connection is gone."""
        if self.untaken is not None:
            self.untaken.cancel()
            self.untaken = None

    def leave(self: Any, words: bytes) -> None:
        """Say some last words."""
        if not self.transport.is_closing():
            self.transport.write(words)
            self.transport.close()
