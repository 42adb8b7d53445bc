"""`keepmap export`: the network of a RUN in one file, with the proof that it computes the same.

Knows the shell's parameters and the words of the proof; `keepmap.export` does the work.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any, cast

import typer

import keepmap
from keepmap.cli.parameters import Quiet, one_of, takes
from keepmap.options import ExportOptions, Target


@takes(ExportOptions)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder that train wrote")],
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="onnx|openvino", help="what is to compute it", callback=one_of("--to", ("onnx", "openvino"))
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="OUT", help="new folder; default: RUN/onnx or RUN/openvino")
    ] = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Write the network as one file that predicts on its own.

    Original and export are compared before anything is written; parity.json beside the file says how well they agree.
    """
    from keepmap.cli.progress import make_progress

    progress = make_progress(quiet)
    made = keepmap.export(run, cast(Target, to), out, **options, progress=progress)
    parity = made.parity
    progress.say(
        f"parity  logits differ by {parity.difference:.1e} of the largest in float32; {parity.agreement:.2%} of the "
        f"labels are equal in {parity.precision}"
    )
    if parity.mean_iou is not None:
        before, after = parity.mean_iou
        progress.say(f"        mean IoU {after:.4f} for {before:.4f} over {parity.images} held-out images")
    original, exported = parity.rates
    progress.say(
        f"speed   {exported:.2f} megapixels per second in {parity.precision}, PyTorch {original:.2f} in "
        f"{parity.original_precision}"
    )
    progress.say(f"keepmap predict {shlex.quote(str(made.path))} IMAGE... -o OUT")
