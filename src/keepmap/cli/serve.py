"""`keepmap serve`: a page and an HTTP API for a model.

Knows the shell's parameters only; `keepmap.serve` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import Quiet, takes
from keepmap.options import ServeOptions


@takes(ServeOptions)
def serve(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder that train wrote, or what export wrote")],
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Serve a page to drop images on, and an HTTP API.

    Only this machine reaches it, unless --host says otherwise.
    """
    from keepmap.cli.progress import make_progress

    keepmap.serve(run, **options, progress=make_progress(quiet))
