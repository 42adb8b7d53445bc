"""`keepmap predict`: masks for images.

Knows the shell's parameters only; `keepmap.predict` does the work.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import Quiet, takes
from keepmap.errors import Interrupted
from keepmap.options import PredictOptions


@takes(PredictOptions)
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder that train wrote, or what export wrote")],
    inputs: Annotated[list[Path], typer.Argument(metavar="INPUT", help="images, and folders of images")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="folder for the masks")],
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Write a mask for each image, with the values of training.

    Each mask has the size of its image. The structure of folders is kept.
    """
    from keepmap.cli.progress import make_progress

    progress = make_progress(quiet)
    try:
        written = keepmap.predict(run, inputs, out, **options, progress=progress)
    except (KeyboardInterrupt, SystemExit) as stop:  # Ctrl-C, or SIGTERM as `main` passes it on
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        raise Interrupted(
            f"Interrupted; the masks in {out} are whole.", signal=number,
            do="the same command with --resume goes on",
        ) from None
    progress.say(f"{len(written)} mask{'' if len(written) == 1 else 's'} in {out}")
