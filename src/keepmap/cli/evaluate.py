"""`keepmap evaluate`: scores of a RUN, or of masks that were predicted before.

Knows the shell's parameters and the tables only; `keepmap.evaluate` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import JSON_FORMAT, JsonFile, Quiet, require_writable, takes
from keepmap.config import to_dict, write_json, write_text
from keepmap.options import EvaluateOptions


@takes(EvaluateOptions)
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="RUN, or a folder of predicted masks")],
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="IMAGES MASKS beside a RUN, else MASKS")],
    json: JsonFile = None,
    table: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="also write FILE, a CSV line an image, worst first")
    ] = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Score a RUN, or masks predicted before.

    Either RUN IMAGES MASKS or PREDICTIONS MASKS; 95 % intervals by bootstrap. docs/metrics.md defines every number.
    """
    from keepmap.cli.progress import make_progress
    from keepmap.cli.tables import figure_table, image_lines, score_notes, score_table
    from keepmap.cli.terminal import show

    require_writable(json)
    require_writable(table, "--table")
    for name in ("html", "card"):
        require_writable(Path(options[name]) if options[name] else None, f"--{name}")
    scores = keepmap.evaluate(source, *folders, **options, progress=make_progress(quiet))
    if json is not None:
        write_json(json, to_dict(scores), format=JSON_FORMAT)
    if table is not None:
        write_text(table, image_lines(scores))
    show(score_table(scores))
    if scores.figures:
        show("", figure_table(scores), *score_notes(scores))
