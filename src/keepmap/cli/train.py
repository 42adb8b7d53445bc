"""`keepmap train`: from two folders to a RUN.

Knows the shell's parameters only; `keepmap.train` does the work.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import Quiet, parse_settings, takes
from keepmap.options import TrainOptions
from keepmap.resources import process_rank


@takes(TrainOptions)
def train(
    images: Annotated[Path | None, typer.Argument(metavar="IMAGES", help="folder of images")] = None,
    masks: Annotated[Path | None, typer.Argument(metavar="MASKS", help="folder of masks, same stems")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="folder for the result")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with RUN, which knows its folders")] = False,
    preview: Annotated[
        Path | None, typer.Option("--preview", metavar="FILE", help="draw the first crops into a PNG, and do not train")
    ] = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train on folders of images and masks, and write RUN.

    Plans for this data and this machine, holds out a part to validate on, keeps the best state and the last.
    """
    from keepmap.cli.progress import make_progress

    progress = make_progress(quiet or process_rank() > 0)
    options["set"] = parse_settings(options["set"]) if options["set"] else None
    run = keepmap.train(images, masks, out, resume=resume, preview=preview, **options, progress=progress)
    if preview is not None:
        progress.say(f"crops   of the first steps, drawn into {run.path}; nothing was trained")
        return
    if run.best >= 0:
        progress.say(f"best mean IoU on held-out images  {run.best:.4f}, at step {run.best_step} of {run.steps}")
    progress.say(f"keepmap predict {shlex.quote(str(run.path))} IMAGE... -o OUT")
