"""`keepmap bench`: how fast a network is on this machine, and what memory it takes.

Knows the shell's parameters and the table; `keepmap.bench` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import JSON_FORMAT, JsonFile, Quiet, require_writable, takes
from keepmap.config import to_dict, write_json
from keepmap.options import BenchOptions


@takes(BenchOptions)
def bench(
    path: Annotated[Path, typer.Argument(metavar="RUN", help="folder that train wrote, or what export wrote")],
    json: JsonFile = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Measure speed and memory on this machine.

    Each runtime, precision, way and number of threads in a process of its own; exports that lie in RUN are included.
    """
    from rich.text import Text

    from keepmap.cli.progress import make_progress
    from keepmap.cli.tables import make_table
    from keepmap.cli.terminal import show
    from keepmap.units import in_bytes

    require_writable(json)
    found = keepmap.bench(path, **options, progress=make_progress(quiet))
    if json is not None:
        write_json(json, to_dict(found), format=JSON_FORMAT)
    table = make_table(f"{path}, {found.side} x {found.side} px")
    for name in ("runtime", "precision", "way"):
        table.add_column(name, overflow="fold")
    for name in ("threads", "Mpx/s", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in found.rows:
        rate = "n/a" if row.rate is None else f"{row.rate:.3f}"
        peak = "n/a" if row.peak_bytes is None else in_bytes(row.peak_bytes)
        way = row.note or row.way
        table.add_row(Text(row.runtime), row.precision, Text(way), str(row.threads), rate, peak)
    show(table)
    show(*(f"matrix product, {y.precision}, threads {y.threads}: {y.gflops:.0f} GFLOP/s" for y in found.yardsticks))
