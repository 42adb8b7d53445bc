"""Writes docs/how-it-works.md: the text beside this file, its fields filled.

usage: python docs/scripts/page.py
With what the last run of draw_how_it_works.py measured, and with what follows from the code as it is now. Trains,
measures and draws nothing. A field is a Python format field such as {parts[whole][iou]:.3f}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arithmetic import worked_out

DOCS = Path(__file__).resolve().parents[1]
PICTURES = DOCS / "pictures"
RESULTS = PICTURES / "how_it_works.json"
TEXT = Path(__file__).with_name("how-it-works.md")
PAGE = DOCS / "how-it-works.md"


def rounded(value: Any) -> Any:
    """A value of JSON with its floats to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def write_results(results: Mapping[str, Any]) -> None:
    """Write pictures/how_it_works.json."""
    RESULTS.write_text(json.dumps(rounded(results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def page() -> str:
    """The whole page. Raises KeyError for a field of the text that no result has."""
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    return TEXT.read_text(encoding="utf-8").format_map({**measured, **worked_out()})


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")


if __name__ == "__main__":
    main()
