"""`keepmap convert`: masks of class ids from annotations of any kind.

Knows the shell's parameters and the summary only; `keepmap.convert` does the work.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import Quiet, takes
from keepmap.options import ConvertOptions

_NAMES_SHOWN = 12


@takes(ConvertOptions)
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="folder of masks, COCO file, or labelme files")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="MASKS", help="new folder for the masks")],
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Turn annotations of any kind into masks of class ids.

    Reads masks of every kind, COCO json and labelme json. Also writes MASKS/classes.txt. Nothing else is touched,
    and nothing is written if anything is wrong.
    """
    from keepmap.cli.progress import make_progress
    from keepmap.cli.terminal import show, show_failure

    done = keepmap.convert(source, out, **options, progress=make_progress(quiet))
    for finding in done.findings:
        show_failure(finding.to_error(), finding.severity, stderr=False, style="bold yellow")
    if quiet:
        return
    names = [f"{number} {name}" for number, name in enumerate(done.names)]
    more = [f"... {names[-1]}"] if len(names) > _NAMES_SHOWN else []
    ignored = [f"{done.ignore} ignored"] if done.ignore is not None else []
    show(f"{done.masks} masks from {done.kind} in {done.path}: {', '.join([*names[:_NAMES_SHOWN], *more, *ignored])}")
    words = ["keepmap", "train", options.get("images") or "IMAGES", done.path, "-o", "RUN", "--classes", done.classes]
    large = ["--ignore", done.ignore] if done.ignore not in (None, 255) else []
    show(shlex.join(str(word) for word in (*words, *large)))
