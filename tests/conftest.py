"""What tests of several parts share: other people's implementations as oracles, and a browser to open pages in."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from keepmap.protocols import Silent

_NAMESPACES: list[torch.library.Library] = []
"""Keeps what `peers` defines alive: an operator goes with the library object that defined it."""


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several workers a core of its own: two that both use all of them wait for each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})
        torch.set_num_threads(1)  # it counted the cores when it was imported


@pytest.fixture(scope="session")
def peers() -> None:
    """Make torchvision, timm and segmentation_models_pytorch importable, also beside a torch from another source.

    Their import needs two operators of torchvision's extension, which does not load there. They are declared, not
    implemented: no network calls them.
    """
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    try:
        torch.ops.load_library(str(next(Path(found.origin).parent.glob("_C*"))))
    except (OSError, StopIteration):
        namespace = torch.library.Library("torchvision", "DEF")
        namespace.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        namespace.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _NAMESPACES.append(namespace)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import segmentation_models_pytorch  # noqa: F401
        import timm  # noqa: F401
        import torchvision  # noqa: F401


class Lines(Silent):
    """A Progress that remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def lines() -> Lines:
    """To be handed over as the progress."""
    return Lines()


@dataclass
class Visit:
    """A tab of the browser, and all that went wrong in it.

    page: playwright's. requests: every address that was asked for; errors: lines of its console, exceptions, answers
    that failed.
    """

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def left(self) -> list[str]:
        """The addresses asked for that are not of this machine; they got no answer."""
        return [url for url in self.requests if not _is_here(url)]

    @property
    def broken_pictures(self) -> list[str]:
        """What `<img>` elements show nothing, by the first words of their address."""
        return list(
            self.page.evaluate(
                "Promise.all([...document.images].map(async i => { i.loading = 'eager';"
                " await i.decode().catch(() => 0); return i.naturalWidth ? '' : i.src.slice(0, 60) }))"
                ".then(found => found.filter(Boolean))"
            )
        )


class Browser:
    """A headless Chromium. What a tab may not do, leave this machine or raise, fails its test at the end."""

    def __init__(self, chromium: Any) -> None:
        self.chromium = chromium
        self.visits: list[Visit] = []

    def open(self, address: Path | str, *, width: int = 1280, height: int = 800, dark: bool = False) -> Visit:
        """A new tab with a file or an address, loaded. width, height: of the window, px; a narrow one is of a phone."""
        context = self.chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light",
            has_touch=width < 600, is_mobile=width < 600,
        )  # fmt: skip
        context.route(lambda url: not _is_here(url), lambda route: route.abort())
        visit = Visit(context.new_page())
        page = visit.page
        page.on("request", lambda request: visit.requests.append(request.url))
        page.on("websocket", lambda socket: visit.requests.append(socket.url))
        page.on("console", lambda line: visit.errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        page.on("requestfailed", lambda request: visit.errors.append(f"{request.url[-80:]}: {request.failure}"))
        self.visits.append(visit)
        page.goto(address.resolve().as_uri() if isinstance(address, Path) else address)
        return visit

    def close(self) -> None:
        """Close the tabs, and fail where one left this machine or had an error."""
        visits, self.visits = self.visits, []
        for visit in visits:
            visit.page.context.close()
        assert [url for visit in visits for url in visit.left] == []
        assert [error for visit in visits for error in visit.errors] == []


def _is_here(url: str) -> bool:
    """Whether an address is of this machine or holds its own content."""
    parts = urlsplit(url)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in ("127.0.0.1", "localhost", "::1")


@pytest.fixture(scope="module")
def _chromium() -> Iterator[Any]:
    """Debian's Chromium, headless; a module's own, because playwright keeps an event loop in the thread meanwhile."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("needs Debian's chromium, and there is none on PATH")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright: pip install '.[dev]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        rules = "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"
        flags = ["--no-sandbox", "--disable-dev-shm-usage", f"--host-resolver-rules={rules}"]
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def browser(_chromium: Any) -> Iterator[Browser]:
    """Opens pages: `browser.open(path_or_url)`; the test fails at its end if one had an error or left this machine."""
    tabs = Browser(_chromium)
    yield tabs
    tabs.close()
