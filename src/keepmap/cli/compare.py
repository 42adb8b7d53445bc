"""`keepmap compare`: which of several predictions of the same images is better, and whether that is chance.

Knows the shell's parameters and the tables only; `keepmap.compare` does the work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import JSON_FORMAT, JsonFile, Quiet, require_writable, takes
from keepmap.config import to_dict, write_json
from keepmap.options import CompareOptions


@takes(CompareOptions)
def compare(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="folders of predicted masks, or RUNs")],
    masks: Annotated[Path, typer.Option("--masks", metavar="MASKS", help="the true masks")],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="IMAGES", help="the images, where the sources are RUNs")
    ] = None,
    json: JsonFile = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Compare predictions, or RUNs, on the same masks.

    The first source against each other one, with 95 % intervals of the difference by paired bootstrap.
    """
    from keepmap.cli.progress import make_progress
    from keepmap.cli.tables import pairing_parts
    from keepmap.cli.terminal import show

    require_writable(json)
    comparison = keepmap.compare(*sources, masks=masks, images=images, **options, progress=make_progress(quiet))
    if json is not None:
        write_json(json, to_dict(comparison), format=JSON_FORMAT)
    for pairing in comparison.pairings:
        show(*pairing_parts(pairing), "")
    show(comparison.resampled)
    for source, scores in zip(comparison.sources, comparison.scores, strict=True):
        show(*(f"{source}: {remark}." for remark in scores.remarks))
