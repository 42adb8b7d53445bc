"""`keepmap plan`: what a training would do, why, and what it would take.

Knows the shell's parameters and the layout only; `keepmap.plan` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import JSON_FORMAT, JsonFile, Quiet, parse_settings, require_writable, takes
from keepmap.config import write_json
from keepmap.options import TrainOptions

if TYPE_CHECKING:
    from rich.table import Table

    from keepmap.planning.plan import Plan

_BYTES = ("memory", "cache", "step_bytes")
_SECONDS = ("seconds", "step_seconds", "validation_seconds")
_PIXELS = ("crop",)
_SHORT = 20
"""Letters of a reason that may be repeated."""


@takes(TrainOptions)
def plan(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="folder of images")],
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="folder of masks, same stems")],
    json: JsonFile = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Show what a training would do, and why.

    Takes the options of `keepmap train`, and a few real steps to measure; writes no RUN.
    """
    from keepmap.cli.progress import make_progress
    from keepmap.cli.terminal import show

    require_writable(json)
    options["set"] = parse_settings(options["set"]) if options["set"] else None
    made = keepmap.plan(images, masks, **options, progress=make_progress(quiet))
    if json is not None:
        expected = {"expected_seconds": made.expected_seconds, "expected_bytes": made.expected_bytes}
        write_json(json, {**expected, "plan": made.rows()}, format=JSON_FORMAT)
    show(plan_table(made), f"\n{_expected(made)}")
    if not quiet:
        show("--set NAME=VALUE fixes an entry, and the rest is planned around it")


def plan_table(made: Plan) -> Table:
    """One row per entry, in groups."""
    from rich.text import Text

    from keepmap.cli.tables import make_table
    from keepmap.planning.plan import GROUPS

    table = make_table()
    table.add_column("entry", no_wrap=True)
    table.add_column("value", overflow="fold", max_width=28)
    table.add_column("because", overflow="fold")
    for title, names in GROUPS.items():
        table.add_section()
        table.add_row(Text(title, "bold"), "", "")
        before = ""
        for name in names:
            reason = made.because[name]
            table.add_row(Text(f"  {name}"), Text(_as_text(name, getattr(made, name))), Text(_said(reason, before)))
            before = reason
    return table


def _said(reason: str, before: str) -> str:
    """A long reason is not repeated in the next row."""
    return "as above" if reason == before and len(reason) > _SHORT else reason


def _expected(made: Plan) -> str:
    from keepmap.units import in_bytes, in_time

    limit = "" if made.seconds is None else f" of {in_time(max(made.seconds, 0))}"
    return (
        f"expected  {in_time(made.expected_seconds)}{limit} for {_many(made.steps, 'step')} and "
        f"{_many(made.validations, 'validation')}, {in_bytes(made.expected_bytes)}"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _as_text(name: str, value: Any) -> str:
    """A value as people read it; numbers with four digits."""
    from keepmap.units import in_bytes

    if name in _BYTES:
        return in_bytes(value)
    if isinstance(value, dict):
        return ", ".join(f"{key}={_as_text('', item)}" for key, item in value.items()) or "its defaults"
    if isinstance(value, tuple | list):
        return ", ".join(_as_text("", item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text + (" s" if name in _SECONDS else " px" if name in _PIXELS else "")
