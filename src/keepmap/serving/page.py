"""The page as it is sent, and the policy under which a browser lets its own script and style run, and nothing else.

Knows no request; what the page does stands in page.html.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")


@cache
def read_page() -> tuple[bytes, str]:
    """page.html and its Content-Security-Policy, which names script and style by their SHA-256."""
    text = _FILE.read_text(encoding="utf-8")
    script, style = (_hashes(text, tag) for tag in ("script", "style"))
    policy = {
        "default-src": "'none'", "script-src": script, "style-src": style, "img-src": "blob: data:",
        "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    return text.encode("utf-8"), "; ".join(f"{name} {value}" for name, value in policy.items())


def _hashes(text: str, tag: str) -> str:
    """The hashes of what stands in the elements of a tag, as a policy lists them."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    digests = [hashlib.sha256(content.encode("utf-8")).digest() for content in found]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
