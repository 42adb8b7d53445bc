"""`keepmap import-weights`: from weights that another library trained to a RUN.

Knows the shell's parameters only; `keepmap.import_weights` does the work.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import Quiet, takes
from keepmap.options import ImportOptions


@takes(ImportOptions)
def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="state dict (.safetensors, .pth), or `published`")],
    source: Annotated[str, typer.Option("--as", metavar="SOURCE", help="such as torchvision:fcn_resnet50")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="RUN", help="folder for the result")],
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Turn weights made elsewhere into a RUN.

    SOURCE is torchvision:fcn_resnet50 or -101, milesial:unet, or smp:unet-resnet18 to -152. No code in FILE is run.
    """
    from keepmap.cli.progress import make_progress

    progress = make_progress(quiet)
    run = keepmap.import_weights(file, source, out, **options, progress=progress)
    progress.say(f"keepmap predict {shlex.quote(str(run))} IMAGE... -o OUT")
