"""Who is let through, how much and how slowly; and what every answer carries."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from keepmap.errors import OptionError
from keepmap.serving.guard import allowed_hosts, is_loopback


def raw(port: int, *parts: bytes, pause: float = 0.0, wait: float = 10.0) -> bytes:
    """What a server answers to bytes; a part that it does not take any more is not sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as client:
        for part in parts:
            try:
                client.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        answer = b""
        try:
            while part := client.recv(65536):
                answer += part
        except OSError:
            pass
        return answer


def head(*lines: str, path: str = "/v1/predict") -> bytes:
    fixed = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n"
    return (fixed + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


def test_every_answer_is_safe(ask: Any) -> None:
    for path in ("/", "/v1/model", "/nothing", "/metrics"):
        headers = ask("GET", path)[1]
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "server" not in headers and not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost.evil.example", "http://["])
def test_other_sites_are_not_answered(ask: Any, origin: str) -> None:
    assert ask("GET", "/v1/model", headers={"Origin": origin})[0] == 403
    for host in ("evil.example", "[", "[::1"):
        assert ask("GET", "/v1/model", headers={"Host": host})[0] == 403
    assert ask("GET", "/v1/model", headers={"Origin": f"http://127.0.0.1:{ask.port}"})[0] == 200


def test_token(strict: Any) -> None:
    assert strict("GET", "/v1/model")[0] == 200
    for given in ("", "Bearer", "Bearer other", "Bearer sécret"):
        status, headers, content = strict("GET", "/v1/model", headers={"Authorization": given.encode("utf-8")})
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "TOKEN" in json.loads(content)["error"]["expected"]
    assert strict("GET", "/healthz", headers={"Authorization": ""})[0] == 200


def test_too_many_bytes_declared_counted_and_endless(strict: Any) -> None:
    assert strict("POST", "/v1/predict", bytes(20481))[0] == 413
    assert strict("POST", "/v1/jobs", bytes(30000))[0] != 413
    assert strict("POST", "/v1/nothing", bytes(70000))[0] == 413
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    answer = raw(strict.port, head("Transfer-Encoding: chunked"), *[chunk] * 60)
    assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer


def test_slow_body_and_false_lengths(strict: Any) -> None:
    assert raw(strict.port, head("Content-Length: 900"), b"abc").startswith(b"HTTP/1.1 408")
    assert raw(strict.port, head("Content-Length: 900"), *[b"a"] * 9, pause=0.1).startswith(b"HTTP/1.1 408")
    unknown = head("Content-Length: 900", path="/v1/predict?size=3")
    assert raw(strict.port, unknown).startswith(b"HTTP/1.1 400")  # before the body is waited for
    assert raw(strict.port, head("Content-Length: nine")).startswith(b"HTTP/1.1 400")
    assert raw(strict.port, head("Content-Length: 3", "Content-Length: 4")).startswith(b"HTTP/1.1 400")
    assert strict("GET", "/v1/model")[0] == 200


def test_made_up_methods_are_counted_as_one(ask: Any) -> None:
    for number in range(3):
        assert ask(f"M{number}", "/healthz")[0] == 405
    text = ask("GET", "/metrics")[2].decode()
    assert 'method="other",status="405"} ' in text and "M0" not in text


def test_hosts() -> None:
    assert allowed_hosts("0.0.0.0", None, 80) == frozenset()
    assert allowed_hosts("0.0.0.0", "Maps.example", 80) == {"maps.example"}
    assert {"127.0.0.1", "localhost", "localhost:80", "maps.example"} <= allowed_hosts("127.0.0.1", "maps.example", 80)
    assert is_loopback("127.0.0.9") and is_loopback("::1") and not is_loopback("192.168.1.1")
    with pytest.raises(OptionError, match="--names"):
        allowed_hosts("0.0.0.0", "http://maps.example/", 80)
