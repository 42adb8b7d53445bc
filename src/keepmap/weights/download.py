"""Published files in the user's cache: fetched once, whole and verified, or not at all.

Knows addresses and hashes; not what is in the files.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from keepmap import __version__
from keepmap.config import whole_file
from keepmap.errors import DownloadError, OutputError, WeightsError
from keepmap.protocols import Progress
from keepmap.weights.published import Published

_PATIENCE = 30.0
"""Seconds without a byte after which an address counts as dead."""
_CHUNK = 1 << 18
_MEGA = 1e6


def cache_folder() -> Path:
    """Where fetched files are kept: KEEPMAP_CACHE, else `keepmap` in the platform's folder for such things."""
    if chosen := os.environ.get("KEEPMAP_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        ground = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        ground = Path.home() / "Library" / "Caches"
    else:
        ground = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(ground) / "keepmap"


def cached(published: Published) -> Path:
    """Where the file lies once it was fetched, or was put by hand."""
    return cache_folder() / published.file


def is_offline(offline: bool) -> bool:
    """Whether nothing may be fetched: so told, or KEEPMAP_OFFLINE is set to anything but 0."""
    return offline or os.environ.get("KEEPMAP_OFFLINE", "0") not in ("", "0")


def fetch(published: Published, progress: Progress, *, offline: bool = False) -> Path:
    """The file in the cache, downloaded if it is not there yet. An interrupted download leaves nothing behind.

    Raises DownloadError where it cannot be had, is not whole or has another hash, WeightsError where the file that is
    in the cache already has another hash, OutputError where the cache cannot be written.
    """
    target = cached(published)
    if target.is_file():
        _verify(target, published)
        return target
    if is_offline(offline):
        raise _failed(published, "it is not in the cache, and --offline or KEEPMAP_OFFLINE forbids to fetch it")
    note = "" if published.fetched else "; no test of keepmap has ever fetched this address"
    progress.say(f"fetch   {published.address}{note}")
    progress.say(f"        licence {published.licence}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The cache {target.parent} cannot be made.", found=str(error), do="set KEEPMAP_CACHE to another folder"
        ) from error
    with whole_file(target) as partial:
        _download(published, partial, progress)
    return target


def _download(published: Published, partial: Path, progress: Progress) -> None:
    """Stream the address into `partial`. Raises DownloadError; OSError where the disk does not take it."""
    request = urllib.request.Request(published.address, headers={"User-Agent": f"keepmap/{__version__}"})
    digest, done = hashlib.sha256(), 0
    try:
        answer = urllib.request.urlopen(request, timeout=_PATIENCE)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise _failed(published, _reason(error)) from error
    with answer, partial.open("wb") as file:
        total = int(answer.headers.get("Content-Length") or 0)
        with progress.track(published.file, total / _MEGA, "MB") as tracker:
            while chunk := _next(answer, published):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                tracker.advance(len(chunk) / _MEGA)
    if total and done != total:
        raise _failed(published, f"the connection ended after {done} of {total} bytes")
    if not digest.hexdigest().startswith(published.hash):
        found = digest.hexdigest()[: len(published.hash)]
        raise _failed(published, f"SHA-256 {found}... in {done} bytes", f"SHA-256 {published.hash}...")


def _next(answer: Any, published: Published) -> bytes:
    try:
        chunk: bytes = answer.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _failed(published, _reason(error)) from error
    return chunk


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    code = getattr(error, "code", None)
    return f"HTTP {code} {reason}" if code else str(reason) or type(error).__name__


def _verify(file: Path, published: Published) -> None:
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if not found.startswith(published.hash):
        raise WeightsError(
            f"{file} is not the published file.",
            found=f"SHA-256 {found[: len(published.hash)]}...",
            expected=f"SHA-256 {published.hash}...",
            do="delete it; it is then fetched anew",
        )


def _failed(published: Published, found: str, expected: str = "") -> DownloadError:
    return DownloadError(
        f"{published.file} could not be fetched.",
        found=found,
        expected=expected,
        do=f"download {published.address} by hand to {cached(published)}, or name a local file in its place",
    )
