"""The verbs that take a RUN elsewhere: export it, and measure how fast it is here.

Computes nothing itself: `artefacts` does.
"""

from __future__ import annotations

from pathlib import Path

from keepmap.artefacts.benching import Bench, measure_speeds
from keepmap.artefacts.making import Artefact, make_artefact
from keepmap.config import from_arguments
from keepmap.networks.candidate import Segmenter
from keepmap.options import BenchOptions, ExportOptions, Target
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.runs import RunFolder


def export(
    run: StrPath,
    to: Target,
    out: StrPath | None = None,
    *,
    int8: bool = False,
    calibration: str | None = None,
    network: Segmenter | None = None,
    progress: Progress | None = None,
) -> Artefact:
    """Write the network of a RUN as one file that predicts on its own, and parity.json, the proof, beside it.

    to: "onnx" (model.onnx) or "openvino" (model.xml and .bin). out: a new folder, by default RUN/onnx, RUN/openvino,
    with -int8 where it is quantised. network: as in `load`. The graph takes `image` (N, C, H, W) float32, raw values,
    of any size, and gives `logits` (N, K, H, W).
    Raises ContractError, and writes nothing, where the two do not compute the same; OptionError, OutputError, RunError,
    MissingPackage.
    """
    options = from_arguments(ExportOptions, locals())
    return make_artefact(RunFolder(Path(run)), to, Path(out) if out else None, options, progress or Silent(), network)


def bench(path: StrPath, *, side: int = 1024, rounds: int = 3, progress: Progress | None = None) -> Bench:
    """Speed and peak memory of a RUN, and of what was exported into it, or of an exported file, on this machine.

    For each runtime, precision, way (pass, bands, tiles) and number of threads, each in a process of its own, on an
    image of side x side pixels. Raises OptionError, RunError, ArtefactError.
    """
    return measure_speeds(Path(path), from_arguments(BenchOptions, locals()), progress or Silent())
