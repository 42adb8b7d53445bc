"""`keepmap demo`: the whole way on a data set that is drawn on the spot.

Knows the shell's parameters only; `keepmap.demo` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import Quiet, takes
from keepmap.options import DemoOptions


@takes(DemoOptions)
def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder for everything")] = Path("keepmap-demo"),
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train on a small drawn data set and show a picture.

    Evaluates and predicts on images that training did not see.
    """
    from keepmap.cli.progress import make_progress
    from keepmap.cli.tables import score_table
    from keepmap.cli.terminal import show

    result = keepmap.demo(out, **options, progress=make_progress(quiet))
    show(score_table(result.scores, "images that training did not see"))
    show(f"\nrun      {result.run.path}", f"picture  {result.picture}")
