"""`keepmap evaluate`: scores of a RUN, or of masks that were predicted before.

Knows the shell's parameters and the table only; `keepmap.evaluate` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import JSON_FORMAT, JsonFile, Quiet, require_writable, takes
from keepmap.config import to_dict, write_json
from keepmap.options import EvaluateOptions


@takes(EvaluateOptions)
def evaluate(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="RUN, exported file, or folder of masks")],
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="IMAGES MASKS beside a RUN, else MASKS")],
    json: JsonFile = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Score a RUN, or masks predicted before.

    Either RUN IMAGES MASKS or PREDICTIONS MASKS; one confusion matrix over all pixels of all images.
    """
    from keepmap.cli.progress import make_progress
    from keepmap.cli.tables import score_table
    from keepmap.cli.terminal import show

    require_writable(json)
    scores = keepmap.evaluate(source, *folders, **options, progress=make_progress(quiet))
    if json is not None:
        write_json(json, to_dict(scores), format=JSON_FORMAT)
    show(score_table(scores))
